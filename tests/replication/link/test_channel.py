"""A channel over real TLS, with someone at the other end who stops at bad moments."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from offsite.access.certificates import Authority
from offsite.errors import PeerUnreachable, ProtocolError
from offsite.replication.link.channel import ConnectionEnded, PeerChannel
from offsite.replication.wire import frames
from offsite.replication.wire.messages import Batch, Ping, Position, Working
from tests.dated_certificates import dated_certificate
from tests.replication.sites import WAIT_SECONDS, random_bytes

MIB = 1 << 20


@dataclass
class Ends:
    channel: PeerChannel
    other: ssl.SSLSocket  # the other end, in the test's hands


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("keys") / "keys", "London", [])


@pytest.fixture
def ends(authority: Authority) -> Iterator[Ends]:
    ours, others = socket.socketpair()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.certificate_path, authority.key_path)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    wrapped: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: wrapped.append(server.wrap_socket(others, server_side=True)))
    thread.start()
    channel = PeerChannel(client.wrap_socket(ours), "Newark")
    thread.join()
    yield Ends(channel, wrapped[0])
    channel.close()
    wrapped[0].close()


PING = frames.encode(Ping())


def test_messages_one_after_the_other_and_then_silence(ends: Ends) -> None:
    ends.other.sendall(PING + frames.encode(Working()))
    first, second = ends.channel.receive(5), ends.channel.receive(5)
    assert first is not None and second is not None
    assert (first[0], second[0]) == (Ping(), Working())
    assert ends.channel.receive(0.01) is None
    assert ends.channel.wire_bytes == len(PING) + len(frames.encode(Working()))


def test_whether_something_has_arrived(ends: Ends) -> None:
    while ends.channel.readable():  # what TLS itself may have to say
        assert ends.channel.receive(0.05) is None
    ends.other.sendall(PING + PING)
    assert ends.channel.receive(5) is not None
    assert ends.channel.readable(), "the second one came with the first"
    assert ends.channel.receive(5) is not None
    assert not ends.channel.readable()


def test_a_batch_with_its_payload(ends: Ends) -> None:
    data = random_bytes(MIB)
    batch = Batch(sequence=0, position=Position(), extents=0, data_bytes=MIB, compression=0, digest=bytes(16))
    ends.channel.allow_payloads()
    thread = threading.Thread(target=ends.other.sendall, args=(frames.encode(batch, MIB) + data,))
    thread.start()
    received = ends.channel.receive(5)
    thread.join()
    assert received is not None
    assert received[0] == batch
    assert bytes(received[1]) == data


def test_no_payload_before_it_is_known_who_is_there(ends: Ends) -> None:
    batch = Batch(sequence=0, position=Position(), extents=0, data_bytes=9, compression=0, digest=bytes(16))
    ends.other.sendall(frames.encode(batch, 9) + bytes(9))
    with pytest.raises(ProtocolError, match="a payload of 9 bytes was announced; at most 0 are allowed"):
        ends.channel.receive(5)


def test_the_end_between_two_messages(ends: Ends) -> None:
    ends.other.sendall(PING)
    ends.other.close()
    assert ends.channel.receive(5) is not None
    with pytest.raises(ConnectionEnded, match="Newark closed the connection"):
        ends.channel.receive(5)


def test_the_end_within_a_message(ends: Ends) -> None:
    ends.other.sendall(PING[:-1])
    ends.other.close()
    with pytest.raises(PeerUnreachable):
        ends.channel.receive(5)


def test_a_message_that_stops_half_way(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.link.channel.FRAME_SECONDS", 0.05)
    ends.other.sendall(PING[:-1])
    with pytest.raises(PeerUnreachable, match="Newark stopped in the middle of a message"):
        ends.channel.receive(5)


def test_a_message_that_comes_byte_by_byte_gets_no_more_time_than_another(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offsite.replication.link.channel.FRAME_SECONDS", 0.2)
    stop = threading.Event()

    def drip() -> None:
        for byte in PING * 100:
            if stop.wait(0.02):
                return
            ends.other.sendall(bytes([byte]))

    thread = threading.Thread(target=drip)
    ends.other.sendall(frames.MAGIC + (60000).to_bytes(4, "little") + bytes(4))
    thread.start()
    begun = time.monotonic()
    with pytest.raises(PeerUnreachable, match="stopped in the middle"):
        ends.channel.receive(5)
    assert time.monotonic() - begun < 2
    stop.set()
    thread.join()


def test_someone_who_takes_nothing_does_not_hold_us(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.link.channel.SEND_SECONDS", 0.1)
    data = memoryview(bytes(2 * MIB))
    with pytest.raises(PeerUnreachable, match="timeout: Newark has accepted no data for"):
        for _ in range(100):
            ends.channel.send(Ping(), b"", data)


def test_a_channel_that_is_cut_from_another_thread_ends_a_wait(ends: Ends) -> None:
    timer = threading.Timer(0.05, ends.channel.cut)
    timer.start()
    with pytest.raises(PeerUnreachable):
        ends.channel.receive(20)
    timer.join()
    ends.channel.cut()  # again, when it has ended: harmless
    ends.channel.linger(0.1)


def test_a_peer_that_looks_at_dates_is_told_as_a_matter_of_clocks(tmp_path: Path, authority: Authority) -> None:
    """An older version: this one compares pins, and no dates."""
    path = dated_certificate(tmp_path, timedelta(days=-20), timedelta(days=-10))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.certificate_path, authority.key_path)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(path)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.load_cert_chain(path)
    ours, others = socket.socketpair()

    def serve() -> None:
        with pytest.raises(ssl.SSLError):
            server.wrap_socket(others, server_side=True)

    thread = threading.Thread(target=serve)
    thread.start()
    channel = PeerChannel(client.wrap_socket(ours), "Newark")
    with pytest.raises(PeerUnreachable, match="one of the two clocks is wrong"):
        channel.receive(WAIT_SECONDS)
    thread.join()
    channel.close()
