"""The server among clients that stall, lie, hoard and go: nobody else is hurt, and it stops in time."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from offsite import admission as admission_module
from offsite.access.certificates import Authority
from offsite.admission import Admission
from offsite.clock import SystemClock
from offsite.errors import BadParameter, InUse, OffsiteError
from offsite.events import ignore
from offsite.pools.protocol import Create, Kind, Rename
from offsite.targets.common.server import TargetServer
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd.connection import NbdConnection
from offsite.units import MIB
from tests.targets.nbd.nbd_bench import NbdBench, complaints, until
from tests.targets.nbd.nbd_client import RawClient

LOOPBACK = ("127.0.0.1", 0)


def tcp_address(server: TargetServer) -> tuple[str, int]:
    (address,) = (each for each in server.addresses() if not isinstance(each, Path))
    return address


# -- who sees what ---------------------------------------------------------------------------------------------


def names(client: RawClient) -> list[str]:
    *servers, _ = client.option(nbd.OPT_LIST)
    return [data[4 : 4 + struct.unpack_from(">I", data)[0]].decode() for _, data in servers]


def test_only_what_is_mapped_is_listed_and_opened(bench: NbdBench) -> None:
    for name in ("mine", "theirs", "nobodys", "kept back", "internal"):
        kind: Kind = "internal" if name == "internal" else "volume"
        (image,) = bench.pool.apply([Create(name, MIB, kind)])
        if name == "theirs":
            bench.maps.map(image.id, "tls:them", "read-write")
        elif name != "nobodys":
            bench.maps.map(image.id, "nbd:unix", "read-write")
    bench.serve(available=lambda image: image.name != "kept back")
    client = bench.connect()
    client.greet()
    assert names(client) == ["mine"]
    for name in ("theirs", "nobodys", "kept back", "internal", "no such"):
        with pytest.raises(ConnectionRefusedError, match=f"no export '{name}'"):
            client.haggle(name)
    client.haggle("mine")
    assert client.read(0, 4) == bytes(4)


def test_a_map_of_ones_own_goes_before_the_default_one(bench: NbdBench) -> None:
    image = bench.volume()
    bench.maps.map(image.id, "nbd:127.0.0.1", "read-only")
    bench.maps.map(image.id, "nbd:unix", "no-access")
    server = bench.serve(LOOPBACK, bench.socket_path)
    by_tcp, by_unix = bench.connect(tcp_address(server)), bench.connect()
    by_tcp.go("Sales")
    assert by_tcp.flags & nbd.FLAG_READ_ONLY
    with pytest.raises(ConnectionRefusedError):
        by_unix.go("Sales")


def test_initiators_are_seen_at_most_once_a_minute(bench: NbdBench) -> None:
    bench.volume()
    bench.serve()
    for _ in range(3):
        bench.client().close()
    (first,) = bench.maps.initiators()
    assert first.id == "nbd:unix"
    assert first.last_seen_at is not None
    assert abs(first.last_seen_at - time.time()) < 60


# -- cutting connections ---------------------------------------------------------------------------------------


def test_recheck_ends_the_connections_that_maps_no_longer_allow(bench: NbdBench) -> None:
    kept, unmapped, now_read_only = bench.volume("kept"), bench.volume("unmapped"), bench.volume("now read-only")
    server = bench.serve()
    clients = {name: bench.client(name) for name in ("kept", "unmapped", "now read-only")}
    bench.maps.unmap(unmapped.id, None)
    bench.maps.map(now_read_only.id, None, "read-only")
    assert server.recheck() == 0
    assert clients["unmapped"].is_closed()
    assert clients["now read-only"].is_closed()
    assert clients["kept"].read(0, 1) == b"\0"
    assert server.connections() == [("nbd:unix", kept.id)]
    bench.pool.apply([Rename(kept.id, "renamed")])
    assert server.recheck() == 0
    assert clients["kept"].read(0, 1) == b"\0", "a new name is no reason to be cut"


def test_disconnect_ends_the_connections_to_one_image_once_they_are_answered(bench: NbdBench) -> None:
    image, _ = bench.volume("one"), bench.volume("other")
    server = bench.serve()
    one, other = bench.client("one"), bench.client("other")
    bench.disk.gate.clear()
    flush = one.ask(nbd.CMD_FLUSH)
    assert bench.disk.flushing.wait(10)
    threading.Timer(0.2, bench.disk.gate.set).start()
    assert server.disconnect(image.id) == 0
    assert one.replies(flush)[flush].error == 0
    assert one.is_closed()
    assert other.read(0, 1) == b"\0"


def test_disconnect_does_not_wait_for_a_client_that_takes_no_reply(bench: NbdBench) -> None:
    image = bench.volume()
    server = bench.serve()
    stalled = bench.client()
    for _ in range(40):
        stalled.ask(nbd.CMD_READ, 0, MIB)
    began = time.monotonic()
    assert server.disconnect(image.id, 1.0) == 0
    assert time.monotonic() - began < 5


def test_disconnect_tells_how_many_are_left_when_the_disk_is_dead(bench: NbdBench) -> None:
    image = bench.volume()
    server = bench.serve()
    client = bench.client()
    bench.disk.gate.clear()
    client.ask(nbd.CMD_FLUSH)
    assert bench.disk.flushing.wait(10)
    assert server.disconnect(image.id, 0.3) == 1
    bench.disk.gate.set()
    until(lambda: server.connections() == [])


def test_a_volume_unmapped_while_it_is_being_opened_is_not_opened(bench: NbdBench) -> None:
    """Unmapped after it was found, and before `recheck` could have found the connection by its export."""
    bench.volume()
    looks = iter([True, False])
    server = bench.serve(available=lambda _image: next(looks))
    client = bench.connect()
    with capture_logs() as lines:
        with pytest.raises(ConnectionError):
            client.go("Sales", structured=False)
        until(lambda: any("no longer mapped" in str(line.get("reason")) for line in lines))
    until(lambda: server.connections() == [])


# -- bad clients -----------------------------------------------------------------------------------------------


def test_a_silent_client_is_dropped_at_the_handshake_deadline(bench: NbdBench) -> None:
    bench.volume()
    server = bench.serve(handshake_seconds=0.3)
    working = bench.client()
    silent, slow = bench.connect(), bench.connect()
    slow.greet()
    slow.option(nbd.OPT_LIST)
    with capture_logs() as lines:
        assert silent.take(18)
        assert silent.is_closed()
        assert slow.is_closed()
        until(lambda: len(complaints(lines)) == 2)
    assert all("timed out" in line["reason"] for line in complaints(lines))
    time.sleep(0.4)
    assert working.read(0, 1) == b"\0", "the deadline is of the handshake only"
    assert len(server.connections()) == 1


def test_a_trickle_does_not_stretch_the_handshake_deadline(bench: NbdBench) -> None:
    bench.serve(handshake_seconds=0.5)
    client = bench.connect()
    client.greet()
    began = time.monotonic()
    client.socket.sendall(struct.pack(">QII", nbd.OPTION_MAGIC, nbd.OPT_LIST, 1000))
    with pytest.raises(OSError):
        for _ in range(200):
            client.socket.sendall(b"x")
            time.sleep(0.05)
    assert 0.4 < time.monotonic() - began < 5


@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_a_client_that_keeps_bytes_coming_does_not_stretch_the_handshake_deadline(
    bench: NbdBench, transport: str
) -> None:
    """There is always an option to answer: the server never waits for one."""
    authority = Authority(bench.directory / "keys", "London", ["127.0.0.1"]) if transport == "tls" else None
    server = bench.serve(LOOPBACK, authority=authority, handshake_seconds=1.0)
    client = bench.connect(tcp_address(server))
    client.greet()
    if authority is not None:
        assert client.option(nbd.OPT_STARTTLS) == [(nbd.REP_ACK, b"")]
        context = ssl.create_default_context(cafile=str(authority.ca_path))
        client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
    options = struct.pack(">QII", nbd.OPTION_MAGIC, nbd.OPT_LIST, 0) * 10
    began = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() - began < 30:
            client.socket.sendall(options)
            client.take(10 * 20)
    assert time.monotonic() - began < 25
    until(lambda: server.connections() == [])


def test_a_client_that_takes_no_answers_does_not_stretch_the_handshake_deadline(bench: NbdBench) -> None:
    bench.serve(handshake_seconds=0.5, send_seconds=60.0)
    client = bench.connect()
    client.greet()
    options = struct.pack(">QII", nbd.OPTION_MAGIC, nbd.OPT_LIST, 0) * 1000
    began = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() - began < 30:
            client.socket.sendall(options)
    assert time.monotonic() - began < 25


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 4, b"\0\0\0\x03" + b"IHAVEOPX" + bytes(100)]
)
def test_garbage_in_the_handshake_closes_the_connection_with_one_line(bench: NbdBench, garbage: bytes) -> None:
    bench.volume()
    bench.serve()
    working, client = bench.client(), bench.connect()
    client.take(18)
    with capture_logs() as lines:
        client.socket.sendall(garbage)
        assert client.is_closed()
        until(lambda: bool(complaints(lines)))
    assert [line["event"] for line in complaints(lines)] == ["NBD connection closed"]
    assert working.read(0, 1) == b"\0"


def test_a_client_that_takes_no_replies_is_dropped_and_nobody_waits_for_it(bench: NbdBench) -> None:
    bench.volume()
    server = bench.serve(send_seconds=0.5)
    stalled, working = bench.client(), bench.client()
    with capture_logs() as lines:
        for _ in range(40):
            stalled.ask(nbd.CMD_READ, 0, MIB)
        began = time.monotonic()
        for _ in range(20):
            assert working.read(0, 4096) == bytes(4096)
        assert time.monotonic() - began < 0.5 * 20
        until(lambda: len(server.connections()) == 1)
    assert any("did not accept a reply for" in str(line.get("reason")) for line in lines)


def test_a_slow_client_that_goes_on_taking_is_not_dropped(bench: NbdBench) -> None:
    bench.volume()
    bench.serve(send_seconds=0.3)
    slow = bench.client(structured=False)
    for _ in range(40):
        slow.ask(nbd.CMD_READ, 0, MIB)
    began, left = time.monotonic(), 40 * (MIB + 16)
    while time.monotonic() - began < 1.2:
        time.sleep(0.1)
        left -= len(slow.take(MIB))
    slow.take(left)
    assert slow.read(0, 1) == b"\0"


def admission(known_max: int, **bounds: Any) -> Admission:
    return Admission("over NBD", lambda: known_max, ignore, SystemClock(), **bounds)


def test_more_connections_than_allowed_are_turned_away(bench: NbdBench) -> None:
    bench.volume()
    server = bench.serve(LOOPBACK, bench.socket_path, admission=admission(4))
    kept = [bench.client() for _ in range(3)]
    with pytest.raises(ConnectionRefusedError, match="unix has 3 of 3 connections over NBD"):
        bench.client()
    by_tcp = bench.connect(tcp_address(server))
    by_tcp.go("Sales")
    assert by_tcp.read(0, 1) == b"\0", "no host takes all, the Unix socket included"
    kept[0].close()
    kept[1].close()
    until(lambda: len(server.connections()) == 2)
    assert bench.client().read(0, 1) == b"\0"


def test_a_host_that_was_refused_is_no_stranger_for_longer_than_others(bench: NbdBench) -> None:
    bench.volume()
    server = bench.serve(admission=admission(2), handshake_seconds=0.5)
    kept = bench.client()
    with pytest.raises(ConnectionRefusedError):
        bench.client()
    refused = bench._clients[-1]
    assert refused.is_closed()
    assert kept.read(0, 1) == b"\0"
    assert len(server.connections()) == 1


def test_who_only_opens_connections_does_not_take_the_places_of_others(
    bench: NbdBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four addresses hold all places for strangers; another host, and one at an address of theirs, gets in."""
    monkeypatch.setattr(admission_module, "PATIENCE_SECONDS", 0.0)
    bench.volume()
    places = admission(16, strangers_max=8, strangers_of_network_max=2)
    server = bench.serve(LOOPBACK, bench.socket_path, admission=places)
    host, port = tcp_address(server)
    hoard = [
        socket.create_connection((host, port), 10, (f"127.0.0.{last}", 0)) for last in (2, 3, 4, 5) for _ in range(2)
    ]
    until(lambda: places.counts() == (8, 0))
    assert bench.client().read(0, 1) == b"\0"
    for address in ("127.0.0.1", "127.0.0.2"):
        client = bench.connect((host, port), source=address)
        client.go("Sales")
        assert client.read(0, 1) == b"\0"
    for each in hoard:
        each.close()
    until(lambda: places.counts()[0] == 0)


def test_who_opens_many_at_once_is_turned_away_at_once(bench: NbdBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "PATIENCE_SECONDS", 60.0)
    bench.volume()
    server = bench.serve(LOOPBACK, bench.socket_path, admission=admission(16, strangers_of_network_max=5))
    hoard = [bench.connect(tcp_address(server)) for _ in range(5)]
    assert all(each.take(18) for each in hoard)
    with capture_logs() as lines:
        assert bench.connect(tcp_address(server)).is_closed()
        until(lambda: bool(complaints(lines)))
    assert "too many unauthenticated connections" in complaints(lines)[0]["reason"]
    assert bench.client().read(0, 1) == b"\0"


def test_a_thread_that_cannot_be_had_costs_one_connection(bench: NbdBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.volume()
    bench.serve()
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "nbd":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with capture_logs() as lines:
        assert bench.connect().is_closed()
        until(lambda: bool(complaints(lines)))
    assert "no thread" in complaints(lines)[0]["reason"]
    monkeypatch.undo()
    assert bench.client().read(0, 1) == b"\0"


def test_an_accept_that_fails_is_told_and_tried_again(bench: NbdBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.volume()
    bench.serve()
    accept, failures = socket.socket.accept, [OSError(24, "Too many open files"), BlockingIOError()]

    def fail_twice(listener: socket.socket) -> object:
        if failures:
            raise failures.pop(0)
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", fail_twice)
    with capture_logs() as lines:
        assert bench.client().read(0, 1) == b"\0"
    assert [line["event"] for line in complaints(lines)] == ["NBD cannot accept"]


def test_a_connection_takes_batches_and_does_without_where_that_is_forbidden(
    bench: NbdBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.volume()
    bench.serve()
    chosen: list[int] = []
    setting = os.sched_setscheduler

    def remember(pid: int, policy: int, parameters: os.sched_param) -> None:
        chosen.append(policy)
        setting(pid, policy, parameters)

    monkeypatch.setattr(os, "sched_setscheduler", remember)
    assert bench.client().read(0, 1) == b"\0"
    assert chosen == [os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "it is the connection's thread that changes"

    def forbid(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbid)
    assert bench.client().read(0, 1) == b"\0"


# -- start and stop --------------------------------------------------------------------------------------------


def test_stop_answers_what_was_received_and_closes_everything(bench: NbdBench) -> None:
    bench.volume()
    server = bench.serve(LOOPBACK, bench.socket_path)
    idle, busy, shaking_hands = bench.client(), bench.client(), bench.connect()
    assert shaking_hands.take(18)
    bench.disk.gate.clear()
    flush = busy.ask(nbd.CMD_FLUSH)
    assert bench.disk.flushing.wait(10)
    threading.Timer(0.2, bench.disk.gate.set).start()
    address = tcp_address(server)
    began = time.monotonic()
    server.stop(5)
    assert time.monotonic() - began < 4
    assert busy.replies(flush)[flush].error == 0
    assert all(client.is_closed() for client in (idle, busy, shaking_hands))
    assert not bench.socket_path.exists()
    with pytest.raises(ConnectionRefusedError):
        RawClient(address)


def test_stop_keeps_its_deadline_when_the_disk_is_dead(bench: NbdBench) -> None:
    bench.volume()
    server = bench.serve()
    client = bench.client()
    bench.disk.gate.clear()
    client.ask(nbd.CMD_FLUSH)
    assert bench.disk.flushing.wait(10)
    began = time.monotonic()
    server.stop(0.5)
    assert time.monotonic() - began < 3


def test_stop_before_start_and_twice_is_harmless(bench: NbdBench) -> None:
    server = TargetServer(NbdConnection, [LOOPBACK], object(), None)  # type: ignore[arg-type]
    server.stop(1)
    started = bench.serve()
    started.stop(1)
    started.stop(1)


def test_only_the_owner_may_connect_to_the_unix_socket(bench: NbdBench) -> None:
    bench.serve()
    assert bench.socket_path.stat().st_mode & 0o777 == 0o600


def test_the_socket_of_a_killed_process_is_replaced_and_that_of_a_living_one_is_not(bench: NbdBench) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(bench.socket_path))
    bench.volume()
    bench.serve()
    assert bench.client().read(0, 1) == b"\0"
    with pytest.raises(InUse, match=r"cannot listen on .*nbd\.sock"):
        bench.serve()
    assert bench.client().read(0, 1) == b"\0"


@pytest.mark.parametrize(
    ("address", "kind", "sentence"),
    [
        (("192.0.2.1", 0), BadParameter, "192.0.2.1:0: Cannot assign requested address"),
        (("no host of that name.invalid", 0), BadParameter, "no host of that name.invalid:0"),
        (Path("/nonexistent/directory/nbd.sock"), BadParameter, "No such file or directory"),
    ],
)
def test_an_address_that_cannot_be_had_is_named_and_nothing_listens(
    bench: NbdBench, address: tuple[str, int] | Path, kind: type[OffsiteError], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        bench.serve(bench.socket_path, address)
    assert not bench.socket_path.exists()


def test_a_port_that_is_taken_is_named(bench: NbdBench) -> None:
    server = bench.serve(LOOPBACK)
    with pytest.raises(InUse, match=f"127.0.0.1:{tcp_address(server)[1]}: Address already in use"):
        bench.serve(tcp_address(server))


def test_ipv6_loopback_is_served_in_the_clear(bench: NbdBench) -> None:
    image = bench.volume()
    bench.maps.map(image.id, "nbd:::1", "read-only")
    server = bench.serve(("::1", 0))
    client = bench.connect(tcp_address(server))
    client.go("Sales")
    assert client.flags & nbd.FLAG_READ_ONLY
    assert client.read(0, 1) == b"\0"


def test_what_stops_leaves_no_descriptor_behind(bench: NbdBench) -> None:
    bench.volume()
    bench.serve().stop(1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        server = bench.serve(LOOPBACK, bench.socket_path)
        bench.client().close()
        server.stop(1)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
