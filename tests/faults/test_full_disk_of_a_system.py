"""A real system on a disk that gets full, as a host and an operator see it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.small_disks import DISK_BYTES, PROGRAMS, fill_up, run, small_disk
from tests.systems import System, loopback, wait_until

pytestmark = [pytest.mark.root, pytest.mark.needs("qemu-io", "curl", *PROGRAMS)]

POOL_FULL, SPACE_BACK, NOT_WRITTEN, RESERVE_GIVEN_UP, RESERVE_KEPT, POOL_FAILED = 570, 560, 561, 563, 564, 569


@pytest.fixture
def disk(short_directory: Path) -> Iterator[Path]:
    with small_disk("ext4", short_directory) as place:
        yield place


@pytest.fixture
def london(disk: Path) -> Iterator[System]:
    system = System("London", loopback(1), disk / "london", f"{DISK_BYTES >> 20}MiB")
    system.start()
    try:
        for name in ("Sales", "Stock"):
            system.ask("create", "volume", "pool", "A", "size", "1GiB", name)
            system.map(name)
        yield system
    finally:
        if system.is_running():
            system.kill()


def host(system: System, volume: str, *commands: str) -> str:
    """What a host sees that does these commands of qemu-io, which does not cache."""
    words = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-t", "none", "-f", "raw", *words, system.nbd_uri(volume)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


def pool(system: System) -> dict[str, Any]:
    return dict(system.ask("show", "pools")["pools"][0])


def codes(system: System) -> list[int]:
    return [event["event-code"] for event in system.ask("show", "events", "last", "1000")["events"]]


def fill(system: System) -> None:
    said = host(system, "Sales", *(f"write -P 7 {at}M 1M" for at in range(DISK_BYTES >> 20)))
    assert "No space left on device" in said
    assert "Input/output error" not in said


def test_a_pool_larger_than_its_file_system(london: System) -> None:
    assert pool(london)["total-avail-numeric"] < 270 << 20, "as much as the file system takes"
    host(london, "Stock", "write -P 1 0 1M", "flush")
    fill(london)
    assert POOL_FULL in codes(london)
    found = london.ask("show", "events", "error", "last", "1000")["events"]
    assert any(f"the file system at {london.directory.parent} is full" in each["message"] for each in found)
    assert [each["event-code"] for each in found].count(571) == 2
    assert [each["event-code"] for each in found].count(572) == 1, "percent of what the file system has room for"
    shown = pool(london)
    assert (shown["health"], shown["health-numeric"]) == ("Degraded", 1)
    assert "file system" in shown["health-reason"]
    assert shown["total-avail-numeric"] < 2 << 20

    said = host(london, "Stock", "write -P 2 0 1M", "flush", "read -P 2 0 1M")
    assert "failed" not in said, "what is allocated can be written, and flushed"

    london.ask("unmap", "volume", "initiator", "nbd:unix", "Sales")
    london.ask("delete", "volumes", "Sales")
    wait_until("Sales's space is free", lambda: pool(london)["total-avail-numeric"] > 100 << 20)
    assert "failed" not in host(london, "Stock", "write -P 3 8M 8M", "flush", "read -P 3 8M 8M")
    wait_until("it is told that there is space again", lambda: SPACE_BACK in codes(london))
    assert pool(london)["health"] == "OK"
    london.stop()
    london.start()
    assert "failed" not in host(london, "Stock", "read -P 2 0 1M", "read -P 3 8M 8M")


def test_a_disk_that_another_program_fills(london: System) -> None:
    """To the last byte: flushes, deleting, a stop and a start go on working."""
    host(london, "Sales", "write -P 1 0 64M", "flush")
    host(london, "Stock", "write -P 1 0 64M", "flush")
    junk = fill_up(london.directory.parent)
    assert "No space left" in host(london, "Sales", "write -P 2 512M 64M")
    assert "failed" not in host(london, "Sales", "write -P 2 0 64M", "flush", "read -P 2 0 64M")
    london.ask("create", "snapshots", "volumes", "Sales", "names", "Before")
    london.ask("delete", "snapshot", "Before")
    assert RESERVE_GIVEN_UP in codes(london)
    london.stop()
    london.start()
    assert "failed" not in host(london, "Sales", "read -P 2 0 64M", "discard 0 32M", "flush")
    london.ask("unmap", "volume", "initiator", "nbd:unix", "Stock")
    london.ask("delete", "volumes", "Stock")
    wait_until("Stock's space is free", lambda: pool(london)["total-avail-numeric"] > 16 << 20)
    assert "failed" not in host(london, "Sales", "write -P 3 512M 8M", "flush", "read -P 3 512M 8M")
    junk.unlink()
    wait_until("the reserve is kept again", lambda: (london.directory / "reserve").stat().st_blocks > 0)
    wait_until("that is told", lambda: RESERVE_KEPT in codes(london))


def test_a_file_system_that_turns_read_only(london: System) -> None:
    """No event can be stored, and yet it is shown what is wrong."""
    assert "failed" not in host(london, "Sales", "write -P 1 0 1M", "flush")
    run("mount", "-o", "remount,abort", str(london.directory.parent))  # what ext4 does when it finds itself damaged
    host(london, "Sales", "write -P 2 0 1M", "flush")
    shown = pool(london)
    assert (shown["health"], shown["health-numeric"]) == ("Fault", 2)
    assert shown["health-reason"]
    assert {NOT_WRITTEN, POOL_FAILED} & set(codes(london))
    assert "failed" not in host(london, "Sales", "read 0 1M")
    text = run("curl", "--silent", "--unix-socket", str(london.directory / "control.sock"), "http://localhost/metrics")
    assert 'offsite_pool_health{pool="A"} 2.0' in text
