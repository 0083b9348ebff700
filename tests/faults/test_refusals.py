"""Bad input, through the real program: each is refused with the value and the rule, and changes nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offsite.demo.disk import Disk
from tests.systems import System, loopback, pair, try_to_pair, two_systems, wait_until

MIB = 1 << 20


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, System]]:
    directory = tmp_path_factory.mktemp("refusals")
    with two_systems(directory, secondary_pool_size="48MiB", paired=False) as (london, newark):
        check_refused_pairings(london, newark)
        pair(london, newark)
        london.ask("create", "volume", "pool", "A", "size", "64MiB", "Sales")
        london.map("Sales")
        newark.ask("create", "volume", "pool", "A", "size", "1MiB", "Taken")
        london.ask("create", "replication-set", "peer-connection", "Newark", "primary-volume", "Sales", "SalesDR")
        london.ask("create", "volume", "pool", "A", "size", "1MiB", "Taken")
        yield london, newark


def check_refused_pairings(london: System, newark: System) -> None:
    """A peer that is not there, a wrong password, another certificate than the one that was asked for."""
    before = state_of(london), state_of(newark)
    for address, password, more, told in (
        (f"{loopback(3)}:1", newark.password, [], f"{loopback(3)}:1"),
        (newark.peer_address, "wrong-password-1", [], "password"),
        (newark.peer_address, newark.password, ["fingerprint", "ab" * 32], "abab"),
    ):
        done = try_to_pair(london, address, password, "Newark", *more)
        assert done.returncode == 1, done.stderr
        assert told in done.stderr
        assert password not in done.stderr
    assert (state_of(london), state_of(newark)) == before


def state_of(system: System) -> list[Any]:
    """All that a refused command must not change."""
    shows = ("volumes", "snapshots", "pools", "maps", "peer-connections", "replication-sets", "users")
    found = [system.ask("show", what) for what in shows]
    for peer in found[shows.index("peer-connections")].get("peer-connections", ()):
        del peer["clock-skew"], peer["clock-skew-numeric"]  # it is measured at each contact
    return found


REFUSED_ON_LONDON = [
    (["create", "volume", "pool", "A", "size", "1MiB", "x" * 33], ["33", "32"]),
    (["create", "volume", "pool", "A", "size", "1MiB", "a,b"], [","]),
    (["create", "volume", "pool", "A", "size", "1MiB", "a<b"], ["<"]),
    (["create", "volume", "pool", "A", "size", "4KiB", "small"], ["4 KiB", "16 KiB"]),
    (["create", "volume", "pool", "A", "size", "129TiB", "big"], ["129 TiB", "128 TiB"]),
    (["create", "volume", "pool", "C", "size", "1MiB", "v"], ["C"]),
    (["create", "volume", "pool", "A", "size", "1MiB", "Sales"], ["Sales", "in use"]),
    (["create", "snapshots", "volumes", "Sales", "Sales"], ["Sales", "in use"]),
    (["create", "snapshots", "volumes", "Nowhere", "s"], ["Nowhere"]),
    (["expand", "volume", "size", "128TiB", "Taken"], ["128 TiB"]),
    (["delete", "volumes", "--yes", "Sales"], ["Sales", "SalesDR"]),
    (["delete", "peer-connection", "--yes", "Newark"], ["Newark", "SalesDR"]),
    (
        ["create", "replication-set", "peer-connection", "Newark", "primary-volume", "Taken", "TakenDR"],
        ["Taken", "Newark"],
    ),
    (["create", "replication-set", "peer-connection", "Boston", "primary-volume", "Taken", "T"], ["Boston"]),
    (["create", "replication-set", "peer-connection", "Newark", "primary-volume", "Sales", "Again"], ["Sales"]),
    (["replicate", "NoSet"], ["NoSet"]),
]

REFUSED_ON_NEWARK = [
    (["delete", "volumes", "--yes", "Sales"], ["Sales", "SalesDR"]),
    (["map", "volume", "access", "rw", "Sales"], ["Sales", "SalesDR"]),
    (["expand", "volume", "size", "1MiB", "Sales"], ["Sales", "SalesDR"]),
    (["replicate", "SalesDR"], ["SalesDR"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "told"), REFUSED_ON_LONDON, ids=lambda value: " ".join(map(str, value))[:60])
def test_the_primary_refuses(systems: tuple[System, System], command: list[str], told: list[str]) -> None:
    expect_refusal(systems[0], command, told)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "told"), REFUSED_ON_NEWARK, ids=lambda value: " ".join(map(str, value))[:60])
def test_the_secondary_refuses(systems: tuple[System, System], command: list[str], told: list[str]) -> None:
    """Section 1.4 of the reference: what is forbidden while a volume is the secondary of a set."""
    expect_refusal(systems[1], command, told)


def expect_refusal(system: System, command: list[str], told: list[str]) -> None:
    before = state_of(system)
    sentence = system.refused(*command)
    for value in told:
        assert value in sentence
    assert state_of(system) == before


@pytest.mark.slow
def test_a_secondary_pool_that_is_full_is_told_and_leaves_the_volume_whole(
    systems: tuple[System, System],
) -> None:
    """P7 over there, R1: whoever waits for the run is told, and the run stays until it is aborted."""
    london, newark = systems
    whole = newark.digest("Sales")
    with Disk(london.nbd_socket, "Sales") as disk:
        for at in range(60):
            disk.write(at * MIB, os.urandom(MIB))
        disk.flush()
    done = subprocess.run(
        london.command("replicate", "SalesDR", "--wait"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "Newark" in done.stderr
    assert "free" in done.stderr or "full" in done.stderr
    assert newark.digest("Sales") == whole
    run = london.last_run("SalesDR")
    assert (run["state"], run["error-class"]) == ("running", "operator must act")
    assert london.ask("show", "replication-sets", "SalesDR")["replication-sets"][0]["status"] == "Suspended"
    newark.ask("create", "snapshots", "volumes", "Sales", "still-there")
    with Disk(london.nbd_socket, "Sales") as disk:
        disk.write(0, os.urandom(MIB))
    london.ask("abort", "replication", "SalesDR")


@pytest.mark.slow
def test_garbage_on_any_port_closes_that_connection_alone(systems: tuple[System, System]) -> None:
    """One log line each, and everyone else is served as before."""
    london, _ = systems
    ports = [int(port) for port in london._ports[1::2]]
    lines = len(london.log.read_text().splitlines())
    for port in ports:
        with socket.create_connection((london.address, port), timeout=20) as connection:
            connection.sendall(os.urandom(4096))
            connection.settimeout(30)
            try:
                while connection.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    london.ask("show", "volumes")
    with Disk(london.nbd_socket, "Sales") as disk:
        disk.write(0, b"x" * 4096)
    wait_until(
        "the log has a line for each", lambda: len(london.log.read_text().splitlines()) >= lines + len(ports) - 1
    )
    assert "Traceback" not in london.log.read_text()


@pytest.mark.slow
def test_a_second_serve_on_the_same_directory_is_refused(systems: tuple[System, System]) -> None:
    london, _ = systems
    done = subprocess.run(
        [sys.executable, "-m", "offsite", "serve", str(london.directory), "--listen", loopback(3)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert str(london.pid) in done.stderr
    london.ask("show", "system")


@pytest.mark.slow
def test_a_foreign_directory_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    done = subprocess.run(
        [sys.executable, "-m", "offsite", "serve", str(tmp_path), "--listen", loopback(3)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
