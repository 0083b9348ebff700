"""Changes of a peer connection between two real processes: name, address, lost certificates, bandwidth."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.replication.proxy import Proxy
from tests.systems import DEADLINE_SECONDS, System, two_systems, wait_until

pytestmark = pytest.mark.slow

MB = 10**6
BATCH_BYTES = 1 << 20


@pytest.fixture
def systems(tmp_path: Path) -> Iterator[tuple[System, System]]:
    with two_systems(tmp_path) as both:
        yield both


def make_set(london: System, tmp_path: Path, size_bytes: int) -> None:
    """A set SalesDR of a volume full of bytes that do not compress."""
    path = tmp_path / "random.raw"
    path.write_bytes(os.urandom(size_bytes))
    done = subprocess.run(london.command("import", "Sales", str(path)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    london.ask("create", "replication-set", "peer-connection", "Newark", "primary-volume", "Sales", "SalesDR")


def log_in_again(system: System, other: System, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        system.command("set", "peer-connection", "remote-username", "manage", *more, other.name),
        env=os.environ | {"OFFSITE_REMOTE_PASSWORD": other.password},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


def peer(system: System) -> dict[str, Any]:
    return dict(system.ask("show", "peer-connections")["peer-connections"][0])


def wire_bytes(system: System) -> int:
    return int(system.last_run("SalesDR")["wire-bytes-numeric"])


def await_batch(system: System) -> tuple[float, int]:
    """When the next batch goes, and the bytes of the run with it."""
    before = wire_bytes(system)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (now := wire_bytes(system)) < before + BATCH_BYTES // 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return time.monotonic(), now


def replicate_to_end(system: System) -> dict[str, Any]:
    system.ask("replicate", "SalesDR")
    return await_end(system)


def await_end(system: System) -> dict[str, Any]:
    wait_until("the run ends", lambda: system.last_run("SalesDR")["state"] in ("success", "failed"))
    return system.last_run("SalesDR")


def events_of(system: System, words: str) -> list[str]:
    return [each["message"] for each in system.ask("show", "events")["events"] if words in each["message"]]


def test_a_limit_holds_and_its_rise_during_the_run_is_felt_at_once(
    systems: tuple[System, System], tmp_path: Path
) -> None:
    london, newark = systems
    make_set(london, tmp_path, 64 << 20)
    london.ask("set", "peer-connection", "bandwidth-limit", "1MB", "Newark")
    london.ask("replicate", "SalesDR")
    wait_until("it sends", lambda: wire_bytes(london) > BATCH_BYTES)

    began, first = await_batch(london)
    while True:
        ended, last = await_batch(london)
        if ended - began >= 5:
            break
    rate = (last - first) / (ended - began)
    print(f"1MB: {rate / MB:.3f} MB/s over {ended - began:.1f} s")
    assert rate == pytest.approx(MB, rel=0.2)

    london.ask("set", "peer-connection", "bandwidth-limit", "8MB", "Newark")
    began, first = time.monotonic(), wire_bytes(london)
    time.sleep(1)
    in_a_second = wire_bytes(london) - first
    while time.monotonic() < began + 4:
        ended, last = await_batch(london)
    rate = (last - first) / (ended - began)
    print(f"8MB: {in_a_second / MB:.1f} MB in the first second, {rate / MB:.3f} MB/s over {ended - began:.1f} s")
    assert in_a_second > 4 * MB
    assert 5 * MB < rate < 9.6 * MB, "a slow machine may not get there, but nobody may get further"

    london.ask("set", "peer-connection", "bandwidth-calendar", "Mon-Sun 00:00-24:00 1MB", "Newark")
    assert (peer(london)["bandwidth-limit"], peer(london)["bandwidth-limit-now"]) == ("8MB", "1MB")
    london.ask("set", "peer-connection", "bandwidth-limit", "none", "bandwidth-calendar", "none", "Newark")
    began = time.monotonic()
    assert await_end(london)["state"] == "success"
    assert time.monotonic() - began < 5, "nothing holds it up any more"
    assert london.digest("Sales") == newark.digest("Sales")


def test_a_new_name_disturbs_no_run_and_a_new_address_waits_for_its_end(
    systems: tuple[System, System], tmp_path: Path
) -> None:
    london, newark = systems
    proxy = Proxy(int(newark.peer_address.rpartition(":")[2]), newark.address)
    try:
        make_set(london, tmp_path, 4 << 20)
        london.ask("set", "peer-connection", "bandwidth-limit", "1MB", "Newark")
        london.ask("replicate", "SalesDR")
        run = london.last_run("SalesDR")["run"]
        wait_until("it sends", lambda: wire_bytes(london) > BATCH_BYTES)
        london.ask("set", "peer-connection", "name", "East", "Newark")
        sentence = london.refused("set", "peer-connection", "remote-port-address", proxy.address, "East")
        assert "SalesDR" in sentence and "while runs use it" in sentence
        last = await_end(london)
        assert (last["state"], last["run"], last["error"]) == ("success", run, "")

        london.ask("set", "peer-connection", "remote-port-address", proxy.address, "East")
        assert (peer(london)["remote-host-port-address"], proxy.bytes_there > 0) == (proxy.address, True)
        before = proxy.bytes_there
        assert replicate_to_end(london)["state"] == "success"
        assert proxy.bytes_there > before
        assert london.digest("Sales") == newark.digest("Sales")
    finally:
        proxy.close()


def test_a_peer_that_has_moved_during_a_run_is_found_again_with_the_set_suspended(
    systems: tuple[System, System], tmp_path: Path
) -> None:
    london, newark = systems
    make_set(london, tmp_path, 8 << 20)
    london.ask("set", "peer-connection", "bandwidth-limit", "1MB", "Newark")
    london.ask("replicate", "SalesDR")
    run = london.last_run("SalesDR")["run"]
    wait_until("it sends", lambda: wire_bytes(london) > BATCH_BYTES)
    began = time.monotonic()
    london.ask("suspend", "replication-set", "SalesDR")
    assert time.monotonic() - began < 1, "also while it waits for its bandwidth"
    proxy = Proxy(int(newark.peer_address.rpartition(":")[2]), newark.address)
    try:
        london.ask("set", "peer-connection", "remote-port-address", proxy.address, "bandwidth-limit", "none", "Newark")
        before = proxy.bytes_there
        london.ask("resume", "replication-set", "SalesDR")
        last = await_end(london)
        assert (last["state"], last["run"]) == ("success", run)
        assert 0 < proxy.bytes_there - before < 8 << 20, "it went on where it was"
        assert london.digest("Sales") == newark.digest("Sales")
    finally:
        proxy.close()


@pytest.mark.parametrize("loser", ["London", "Newark"])
def test_a_lost_certificate_is_repaired_and_the_sets_go_on(
    systems: tuple[System, System], tmp_path: Path, loser: str
) -> None:
    london, newark = systems
    make_set(london, tmp_path, 2 << 20)
    assert replicate_to_end(london)["state"] == "success"
    lost = london if loser == "London" else newark
    before = {system.name: peer(other)["remote-certificate-fingerprint"] for system, other in both_ways(london, newark)}

    lost.stop()
    for path in (lost.directory / "keys").iterdir():
        path.unlink()
    again = subprocess.run(
        [*lost.command()[:3], "serve", str(lost.directory)], capture_output=True, text=True, check=False, timeout=30
    )
    assert again.returncode == 1
    assert "keys/ca.pem is missing" in again.stderr and "start once with --new-keys" in again.stderr
    lost.start("--new-keys")
    assert len(events_of(lost, "were lost and created again")) == 1
    london.ask("replicate", "SalesDR")
    wait_until("the run finds a stranger", lambda: "certificate" in london.last_run("SalesDR")["error"])

    done = log_in_again(london, newark)
    assert done.returncode == 0, done.stderr
    after = {system.name: peer(other)["remote-certificate-fingerprint"] for system, other in both_ways(london, newark)}
    assert {name for name in before if before[name] != after[name]} == {loser}
    assert len(events_of(london, after[loser])) >= 1
    if loser == "London":
        assert len(events_of(newark, f"its fingerprint was {before[loser]} and is now {after[loser]}")) == 1
    assert await_end(london)["state"] == "success", "the run that waited goes on by itself"
    run = replicate_to_end(london)
    assert (run["state"], run["error"]) == ("success", "")
    assert run["changed-bytes-numeric"] < 2 << 20, "it did not begin from nothing"
    assert london.digest("Sales") == newark.digest("Sales")
    assert all(peer(system)["connection-status"] == "Online" for system in systems)


def both_ways(london: System, newark: System) -> list[tuple[System, System]]:
    return [(london, newark), (newark, london)]
