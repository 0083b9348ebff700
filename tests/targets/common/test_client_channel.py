"""A connection that breaks is told apart from everything else, in whatever the channel was doing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from offsite.access.certificates import Authority
from offsite.targets.common import channel as channel_module
from offsite.targets.common.channel import ClientGone, ClientStalled, PlainChannel, TlsChannel


@pytest.fixture
def pair() -> Iterator[tuple[PlainChannel, socket.socket]]:
    """A channel over TCP, and the client at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 10)
        accepted, _ = listener.accept()
    channel = PlainChannel(accepted, send_seconds=0.2)
    yield channel, client
    channel.close()
    client.close()


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def test_a_reset_is_a_client_that_is_gone(pair: tuple[PlainChannel, socket.socket]) -> None:
    channel, client = pair
    channel.prepare()
    reset(client)
    with pytest.raises(ClientGone, match="reset"):
        channel.receive(memoryview(bytearray(10)))
    with pytest.raises(ClientGone, match="Broken pipe"):
        channel.send(b"anyone there?")
    channel.cut(socket.SHUT_RDWR)


def test_a_reset_in_the_handshake_is_a_client_that_is_gone(pair: tuple[PlainChannel, socket.socket]) -> None:
    channel, client = pair
    reset(client)
    with pytest.raises(ClientGone) as raised:
        channel.receive_before(memoryview(bytearray(10)), time.monotonic() + 10)
    assert not isinstance(raised.value, ClientStalled)


def test_a_socket_that_is_closed_already_is_a_client_that_is_gone(pair: tuple[PlainChannel, socket.socket]) -> None:
    channel, _ = pair
    channel.close()
    with pytest.raises(ClientGone, match="Bad file descriptor"):
        channel.prepare()


def test_the_deadlines_of_receiving_and_sending_pass(pair: tuple[PlainChannel, socket.socket]) -> None:
    channel, client = pair
    channel.prepare()
    with pytest.raises(ClientStalled, match="sent nothing for"):
        channel.receive_before(memoryview(bytearray(10)), time.monotonic() + 0.1)
    with pytest.raises(ClientStalled, match="did not accept a reply for"):
        channel.send(bytes(64 << 20))
    assert client.recv(1) == b"\0"


def test_keepalive_and_no_delay_are_set_on_tcp(pair: tuple[PlainChannel, socket.socket]) -> None:
    channel, _ = pair
    channel.prepare()
    assert channel.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert channel.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert channel.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_client_that_goes_in_the_tls_handshake_is_gone(
    pair: tuple[PlainChannel, socket.socket], tmp_path: Path, when: str
) -> None:
    channel, client = pair
    context = Authority(tmp_path / "keys", "London", []).server_context(require_client_certificate=False)
    if when == "before":
        channel.close()
    else:
        threading.Timer(0.1, reset, [client]).start()
    with pytest.raises(ClientGone) as raised, closing(TlsChannel(channel, context)) as tls:
        tls.shake_hands(time.monotonic() + 10)
    assert not isinstance(raised.value, ClientStalled)


class SlowSocket:
    """A client that takes `rate_bytes` in each second, and a clock that stands still but while it is sent to."""

    def __init__(self, rate_bytes: int, while_seconds: float) -> None:
        self.seconds = 1000.0
        self.taken = 0
        self._rate_bytes = rate_bytes
        self._while_seconds = while_seconds

    def monotonic(self) -> float:
        return self.seconds

    def send(self, data: memoryview) -> int:
        sent = min(len(data), int(self._rate_bytes * self._while_seconds))
        self.seconds += self._while_seconds
        if not sent:
            raise BlockingIOError
        self.taken += sent
        return sent

    def fileno(self) -> int:
        return -1

    recv_into = None


def slow(monkeypatch: pytest.MonkeyPatch, rate_bytes: int) -> tuple[Any, PlainChannel]:
    client: Any = SlowSocket(rate_bytes, 1.0)
    monkeypatch.setattr(channel_module, "time", client)
    return client, PlainChannel(client, send_seconds=30.0)


@pytest.mark.parametrize("rate_bytes", [0, 1, 8000])
def test_a_client_that_takes_nothing_or_next_to_nothing_is_dropped_after_the_send_deadline(
    monkeypatch: pytest.MonkeyPatch, rate_bytes: int
) -> None:
    """Once: a call that has sent a part before its time was over does not make the next one wait as long again."""
    client, channel = slow(monkeypatch, rate_bytes)
    with pytest.raises(ClientStalled):
        channel.send(bytes(32 << 20))
    assert 1030.0 <= client.seconds <= 1031.0


def test_a_slow_client_that_goes_on_taking_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    client, channel = slow(monkeypatch, 20_000)
    channel.send(bytes(4 << 20))
    assert client.taken == 4 << 20


def test_sending_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    client, channel = slow(monkeypatch, 20_000)
    with pytest.raises(ClientStalled):
        channel.send(bytes(4 << 20), 1010.0)
    assert client.seconds <= 1011.0


def test_the_deadline_of_receiving_has_passed_though_there_are_bytes(pair: tuple[PlainChannel, socket.socket]) -> None:
    channel, client = pair
    client.sendall(b"more and more")
    with pytest.raises(ClientStalled):
        channel.receive_before(memoryview(bytearray(4)), time.monotonic() - 1)
