"""A kind of pool that only these tests know: whole systems use it, and nothing above the floor of pools was changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from offsite.daemon import Daemon, StartOptions
from offsite.demo.disk import Disk
from offsite.errors import BadParameter, OffsiteError, StateDirectoryError
from offsite.interfaces.cli import client
from offsite.interfaces.encoding.reply_json import for_programs
from offsite.management.command_table.reply import Reply
from offsite.pools import registry
from tests.pools.object_pool import ObjectBackend

MIB = 1 << 20
PASSWORD = "open sesame"
DEADLINE_SECONDS = 30


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ObjectBackend:
    made = ObjectBackend()
    monkeypatch.setitem(registry.BACKENDS, made.name, made)
    return made


class Running:
    def __init__(self, daemon: Daemon, state: Path) -> None:
        self.daemon = daemon
        self.state = state

    def do(self, line: str, secrets: dict[str, str] | None = None) -> Any:
        reply = client.local(self.state).command(tuple(line.split()), secrets or {}, asks=False)
        assert isinstance(reply, Reply)
        return for_programs(reply)

    def digest(self, name: str) -> str:
        return str(self.do(f"show digest {name}")["digests"][0]["digest"])

    def pool(self, name: str) -> Any:
        return self.do(f"show pools {name}")["pools"][0]


@contextmanager
def running(state: Path, name: str) -> Iterator[Running]:
    options = StartOptions(state, name, api_port=0, nbd_port=0, peer_port=0, pool_bytes=64 * MIB, password=PASSWORD)
    daemon = Daemon(options, print)
    daemon.start()
    try:
        yield Running(daemon, state)
    finally:
        daemon.stop()


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a Unix socket may have 107 bytes."""
    return tmp_path_factory.mktemp("m")


def write(system: Running, volume: str, data: bytes, offset: int = 0) -> None:
    with Disk(system.state / "nbd.sock", volume) as disk:
        disk.write(offset, data)
        disk.flush()


def replicate(system: Running, name: str) -> None:
    system.do(f"replicate {name}")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (run := system.do(f"show replication-runs {name}")["replication-runs"][0])["state"] != "success":
        assert time.monotonic() < deadline, run
        time.sleep(0.02)


def test_a_pool_of_another_kind_lives_from_create_to_delete(backend: ObjectBackend, short: Path) -> None:
    """Volume, writes of a host, snapshot, copy to a local pool, settings, the next start, deletion."""
    state = short / "l"
    with running(state, "London") as london:
        london.do("create pool backend objects size 32MiB B")
        london.do("create volume pool B size 1MiB access rw initiator nbd:unix Sales")
        write(london, "Sales", b"sales" * 1000)
        london.do("create snapshots volumes Sales Monday")
        write(london, "Sales", b"later", 65536)
        london.do("copy volume destination-pool A name Copy Monday")
        london.do("set pool low-threshold 10% overcommit disabled B")
        digests = [london.digest(each) for each in ("Sales", "Monday", "Copy")]
        assert digests[1] == digests[2] != digests[0]
        assert len(backend.store.of("B")) == 2
    with running(state, "London") as london:
        assert [london.digest(each) for each in ("Sales", "Monday", "Copy")] == digests
        row = london.pool("B")
        assert (row["low-threshold-numeric"], row["overcommit"], row["health"]) == (10.0, False, "OK")
        assert (row["volumes"], row["snapshots"], row["page-size-numeric"]) == (1, 1, 16384)
        london.do("delete snapshot Monday")
        london.do("delete volumes Sales")
        london.do("delete pools B")
        assert "B" not in backend.store.objects
        assert [each["name"] for each in london.do("show pools")["pools"]] == ["A"]
        london.do("create pool backend objects size 32MiB B")


def test_sets_replicate_between_pools_of_any_kind(backend: ObjectBackend, short: Path) -> None:
    """From objects to objects, and from objects to a local file, with snapshot history on both sides."""
    with running(short / "l", "London") as london, running(short / "n", "Newark") as newark:
        london.do("create pool backend objects size 32MiB B")
        newark.do("create pool backend objects size 32MiB C")
        address = newark.daemon.addresses["peer"]
        london.do(
            f"create peer-connection remote-port-address {address} remote-username manage Newark",
            {"remote-password": PASSWORD},
        )
        pairs = (("Sales", "C"), ("Books", "A"))
        for volume, pool in pairs:
            london.do(f"create volume pool B size 1MiB access rw initiator nbd:unix {volume}")
            write(london, volume, b"first" * 1000)
            london.do(
                f"create replication-set peer-connection Newark primary-volume {volume} secondary-pool {pool} "
                f"snapshot-history both snapshot-count 2 snapshot-basename {volume}h {volume}DR"
            )
            replicate(london, f"{volume}DR")
            write(london, volume, b"second", 131072)
            replicate(london, f"{volume}DR")
            assert london.digest(volume) == newark.digest(volume)
        assert len(backend.store.of("C")) == len(newark.daemon.system.pools["C"].images())  # type: ignore[union-attr]


def test_a_backend_says_which_parameters_it_knows(backend: ObjectBackend, short: Path) -> None:
    del backend
    with running(short / "l", "London") as london:
        for line, words in (
            (
                "create pool backend objects size 32MiB page-size 4KiB B",
                "page-size does not apply to a pool of the backend",
            ),
            ("create pool backend objects device /dev/null B", "device does not apply to a pool of the backend"),
            ("create pool backend objects B", "give a size"),
            ("create pool backend nothing size 32MiB B", "valid: local, objects"),
        ):
            with pytest.raises(OffsiteError, match=words):
                london.do(line)
        assert [each["name"] for each in london.do("show pools")["pools"]] == ["A"]


def test_a_pool_whose_backend_is_not_there_keeps_the_system_from_starting(
    monkeypatch: pytest.MonkeyPatch, short: Path
) -> None:
    state = short / "l"
    with monkeypatch.context() as patch:
        patch.setitem(registry.BACKENDS, "objects", ObjectBackend())
        with running(state, "London") as london:
            london.do("create pool backend objects size 32MiB B")
    with pytest.raises(StateDirectoryError, match="pool B is of the backend 'objects'"), running(state, "London"):
        pass
    with pytest.raises(BadParameter, match="valid: local"):
        registry.backend("objects")
