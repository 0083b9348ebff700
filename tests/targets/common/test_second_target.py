"""A second target stands on targets/common alone, and the floors above serve it as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from offsite.admission import Admission
from offsite.clock import SystemClock
from offsite.errors import InUse, PoolFailed, PoolFull
from offsite.events import ignore
from offsite.interfaces.http import metrics
from offsite.targets.common.grants import Grants
from offsite.targets.common.server import TargetServer
from tests.management import management_bench
from tests.management.management_bench import Bench
from tests.targets.common.line_target import LineClient, LineConnection
from tests.targets.nbd.nbd_bench import Disk, FaultyPool, until

WEB = "line:web1"


class SecondTarget:
    """A whole system, and the second target beside its first."""

    def __init__(self, system_bench: Bench, directory: Path, **options: Any) -> None:
        self.bench = system_bench
        self.system = system_bench.system
        self.disk = Disk()
        self.path = directory / "line.sock"
        faulty: Any = FaultyPool(self.system.pools["A"], self.disk)
        grants = Grants({"A": faulty}, self.system.maps)
        self.server = TargetServer(LineConnection, [self.path], grants, None, counters=self.system.counters, **options)
        self.system.targets = (*self.system.targets, self.server)
        self.server.start()
        self._clients: list[LineClient] = []

    def volume(self, name: str, lun: int, access: str = "read-write") -> None:
        self.bench.do(f"create volume pool A size 1MiB {name}")
        self.bench.do(f"map volume initiator {WEB} access {access} lun {lun} {name}")

    def client(self, initiator: str = WEB) -> LineClient:
        client = LineClient(self.path, initiator)
        self._clients.append(client)
        return client

    def close(self) -> None:
        self.disk.gate.set()
        for client in self._clients:
            client.close()
        self.server.stop(5)


@pytest.fixture
def second(short_directory: Path) -> Iterator[SecondTarget]:
    with management_bench.bench_in(short_directory / "London", "London") as bench:
        second = SecondTarget(bench, short_directory)
        yield second
        second.close()


def test_it_serves_what_is_mapped_at_its_luns(second: SecondTarget) -> None:
    second.volume("Sales", 0)
    second.volume("Orders", 5)
    second.bench.do("create volume pool A size 1MiB Hidden")
    client = second.client()
    assert client.greeting == "READY 0 5"
    assert client.ask("WRITE 1 5 512 4", b"abcd") == ("1 OK", b"")
    assert client.ask("READ 2 5 510 8") == ("2 DATA 8", b"\0\0abcd\0\0")
    assert client.ask("READ 3 0 510 8") == ("3 DATA 8", bytes(8))
    assert client.ask("FLUSH 4 5") == ("4 OK", b"")
    assert second.client("line:other").greeting == "READY"


@pytest.mark.parametrize("claim", ["tls:web1", "nbd:unix"])
def test_its_clients_cannot_pass_for_initiators_of_another_kind(second: SecondTarget, claim: str) -> None:
    with capture_logs() as lines:
        client = second.client(claim)
        assert client.greeting == ""
    assert any("does not begin with line:" in str(line.get("reason")) for line in lines)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (PoolFull("no page is left"), "no space"),
        (PoolFailed("the disk is dead"), "I/O error"),
        (OSError(28, "No space left on device"), "no space"),
        (OSError(5, "Input/output error"), "I/O error"),
        (ZeroDivisionError(), "internal error"),
    ],
)
def test_failures_in_the_background_have_no_protocols_numbers(
    second: SecondTarget, failure: Exception, told: str
) -> None:
    second.volume("Sales", 0)
    client = second.client()
    second.disk.failure = failure
    assert client.ask("FLUSH 1 0") == (f"1 {told}", b"")


def test_reads_of_several_luns_go_on_in_the_background_side_by_side(second: SecondTarget) -> None:
    second.volume("Sales", 0)
    second.volume("Orders", 1)
    client = second.client()
    client.ask("WRITE 1 1 0 4", b"abcd")
    second.disk.cold = True
    client.send(b"READ 2 0 0 4\nREAD 3 1 0 4\nFLUSH 4 0\n")
    assert sorted(client.answer() for _ in range(3)) == [("2 DATA 4", bytes(4)), ("3 DATA 4", b"abcd"), ("4 OK", b"")]


def test_what_it_does_is_counted_with_what_other_targets_do(second: SecondTarget) -> None:
    second.volume("Sales", 0)
    client = second.client()
    client.ask("WRITE 1 0 0 4", b"abcd")
    client.ask("READ 2 0 0 1024")
    second.disk.cold = True
    client.ask("READ 3 0 0 1024")
    uuid = second.system.image("Sales").image.uuid
    until(lambda: second.system.counters.volumes()[uuid].reads == 2)
    totals = second.system.counters.volumes()[uuid]
    assert (totals.reads, totals.read_bytes, totals.writes, totals.written_bytes) == (2, 2048, 1, 4)
    assert second.system.counters.initiators()[WEB] == totals
    content = metrics.exposition(second.system, "")[0].decode()
    assert 'offsite_volume_reads_total{pool="A",volume="Sales"} 2.0' in content
    assert re.search(r'offsite_port_written_bytes_total\{address="[^"]*line.sock",protocol="line"\} 4.0', content)


def test_commands_end_its_connections(second: SecondTarget) -> None:
    """Unmapped, mapped otherwise, deleted: nothing above knows which targets there are."""
    for lun, name in enumerate(("unmapped", "read-only", "deleted")):
        second.volume(name, lun)
    commands = (
        f"unmap volume initiator {WEB} unmapped",
        f"map volume initiator {WEB} access read-only lun 1 read-only",
        "delete volumes deleted",
    )
    for command in commands:
        client = second.client()
        assert second.server.connections()
        second.bench.do(command)
        assert client.is_closed(), command
    assert second.server.connections() == []


def test_what_it_has_open_is_not_rolled_back(second: SecondTarget) -> None:
    second.volume("Sales", 0)
    second.bench.do("create snapshots volumes Sales Monday")
    second.client()
    second.bench.refused("rollback volume snapshot Monday Sales", InUse, f"in use by initiator {WEB}")


def test_an_open_volume_that_was_renamed_is_not_rolled_back(second: SecondTarget) -> None:
    """A connection keeps the name that it began with."""
    second.volume("Sales", 0)
    second.bench.do("create snapshots volumes Sales Monday")
    second.client()
    second.bench.do("set volume name Turnover Sales")
    second.bench.refused(
        "rollback volume snapshot Monday Turnover", InUse, f"volume Turnover is in use by initiator {WEB}"
    )


def test_its_connections_have_places_of_their_own(second: SecondTarget, short_directory: Path) -> None:
    second.server.stop(5)
    admission = Admission("over LINE", lambda: 1, ignore, SystemClock(), listens="Unix socket")
    second = SecondTarget(second.bench, short_directory, admission=admission)
    second.volume("Sales", 0)
    assert second.client().greeting == "READY 0"
    with capture_logs() as lines:
        assert second.client().greeting == ""
    assert any("the maximum of connections" in str(line.get("reason")) for line in lines)
    second.close()
