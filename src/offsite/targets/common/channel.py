"""The socket of one connection, plain or TLS: receiving and sending with deadlines.

A plain socket blocks in the kernel, which costs one system call for each batch. A TLS one does not block,
and waits by `poll`, for OpenSSL may have to read in order to write. Only the connection's own thread uses a
channel, with one exception: `cut` may be called by any.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

from offsite.errors import ProtocolError

KEEPALIVE_IDLE_SECONDS, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_PROBES = 30, 10, 3
UNACKNOWLEDGED_SECONDS = 60  # a peer that has vanished from the network
SOCKET_BUFFER_BYTES = 4 << 20  # a whole reply of 1 MiB goes in at once, where the system allows as much
PROGRESS_BYTES = 256 << 10  # what a client has to take within the send deadline, or all that there is
HURRIED_SECONDS, HURRIED_PROGRESS_BYTES = (
    5.0,
    4 << 20,
)  # instead, while others wait for the memory that its replies hold
_TCP_USER_TIMEOUT = 18  # linux/tcp.h


class ClientGone(Exception):
    """The connection broke. Not an OSError, which would look like one of the disk's."""


class ClientStalled(ClientGone):
    """A deadline has passed: the client is silent, or takes no replies."""


class ClientChannel(Protocol):
    """All methods that wait raise ClientGone when the connection breaks."""

    is_hurried: Callable[[], bool]  # whether replies have to be taken faster than usual

    def receive(self, buffer: memoryview) -> int:
        """Waits for bytes; returns how many came, 0 at the end of the stream."""
        ...

    def receive_before(self, buffer: memoryview, deadline: float) -> int:
        """As `receive`; raises ClientStalled at `deadline`, by time.monotonic()."""
        ...

    def send(self, data: bytes | memoryview, deadline: float | None = None) -> None:
        """Raises ClientStalled when the client takes less than PROGRESS_BYTES within the send deadline, however it
        spreads them; also at `deadline`."""
        ...

    def has_pending(self) -> bool:
        """Whether bytes have been taken off the socket that `receive` has not given out."""
        ...

    def fileno(self) -> int: ...

    def cut(self, how: int) -> None:
        """Shuts down the socket below (socket.SHUT_RD, SHUT_RDWR), from any thread."""
        ...

    def close(self) -> None: ...


class PlainChannel:
    """See ClientChannel."""

    def __init__(self, sock: socket.socket, send_seconds: float) -> None:
        self.socket = sock
        self.send_seconds = send_seconds
        self.is_hurried: Callable[[], bool] = _never
        self._while_seconds = min(1.0, send_seconds / 4)
        self.fileno = sock.fileno
        self._receive_into = sock.recv_into
        self._send = sock.send

    def prepare(self) -> None:
        """Sets the options of a socket that has just been accepted."""
        try:
            _set_options(self.socket, self._while_seconds)
        except OSError as error:
            raise ClientGone(str(error)) from error

    def receive(self, buffer: memoryview) -> int:
        try:
            return self._receive_into(buffer)
        except OSError as error:
            raise ClientGone(str(error)) from error

    def receive_before(self, buffer: memoryview, deadline: float) -> int:
        left = deadline - time.monotonic()
        if left <= 0:  # also when there are bytes: who sends without end would never see the deadline
            raise ClientStalled("the client did not finish before the deadline")
        try:
            self.socket.settimeout(left)
            received = self.socket.recv_into(buffer)
            self.socket.settimeout(None)
        except TimeoutError as error:
            raise ClientStalled(f"the client sent nothing for {left:.1f} s") from error
        except OSError as error:
            raise ClientGone(str(error)) from error
        return received

    def send(self, data: bytes | memoryview, deadline: float | None = None) -> None:
        try:  # as _send_a_while: a call more would be felt in each batch
            sent = self._send(data)
        except (BlockingIOError, TimeoutError):
            sent = 0
        except OSError as error:
            raise ClientGone(str(error)) from error
        if sent < len(data):
            self._send_slowly(memoryview(data)[sent:], deadline)

    def _send_slowly(self, rest: memoryview, deadline: float | None) -> None:
        """A while has passed, and the client has not taken all."""
        mark, marked_at = len(rest), time.monotonic() - self._while_seconds
        while rest:
            now = time.monotonic()
            enough, patience = PROGRESS_BYTES, self.send_seconds
            if self.is_hurried():
                enough, patience = HURRIED_PROGRESS_BYTES, min(patience, HURRIED_SECONDS)
            if mark - len(rest) >= enough:
                mark, marked_at = len(rest), now
            if now >= marked_at + patience or (deadline is not None and now >= deadline):
                raise ClientStalled(f"the client did not accept a reply for {now - marked_at:.1f} s")
            rest = rest[self._send_a_while(rest) :]

    def _send_a_while(self, data: memoryview) -> int:
        """How much the client has taken, in SO_SNDTIMEO: that ends one call, however much of it has gone by then."""
        try:
            return self._send(data)
        except (BlockingIOError, TimeoutError):  # the latter by what receive_before has left set
            return 0
        except OSError as error:
            raise ClientGone(str(error)) from error

    def has_pending(self) -> bool:
        return False

    def cut(self, how: int) -> None:
        _shut_down(self.socket, how)

    def close(self) -> None:
        self.socket.close()


class TlsChannel:
    """See ClientChannel. Takes the socket of a plain channel over; `shake_hands` comes before all else but `cut`."""

    def __init__(self, plain: PlainChannel, context: ssl.SSLContext) -> None:
        """Waits for nothing. Raises ClientGone."""
        self.is_hurried: Callable[[], bool] = _never
        self._send_seconds = plain.send_seconds
        self._poll = select.poll()
        self._has_shaken_hands = False
        try:
            self._socket = context.wrap_socket(plain.socket, server_side=True, do_handshake_on_connect=False)
        except OSError as error:
            raise ClientGone(str(error)) from error

    def shake_hands(self, deadline: float) -> None:
        """Raises ProtocolError when that fails, ClientStalled at `deadline`, ClientGone."""
        try:
            seconds = max(deadline - time.monotonic(), 0.001)
            self._socket.settimeout(seconds)
            self._socket.do_handshake()
            self._socket.setblocking(False)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise ClientStalled(f"the client did not finish the TLS handshake within {seconds:.1f} s") from error
            if isinstance(error, ssl.SSLError):
                raise ProtocolError(f"TLS handshake failed: {error.reason or error}") from error
            raise ClientGone(str(error)) from error
        self._has_shaken_hands = True

    def certificate_der(self) -> bytes | None:
        """The client's certificate, verified; None if it showed none."""
        return self._socket.getpeercert(binary_form=True)

    def receive(self, buffer: memoryview) -> int:
        return self.receive_before(buffer, None)

    def receive_before(self, buffer: memoryview, deadline: float | None) -> int:
        return self._retry(partial(self._socket.recv_into, buffer), lambda: deadline, "the client sent nothing")

    def send(self, data: bytes | memoryview, deadline: float | None = None) -> None:
        rest = memoryview(data)
        while rest:  # OpenSSL takes a piece as a whole, so a piece is what a client must take in time
            piece = partial(self._socket.send, rest[:PROGRESS_BYTES])
            sent = self._retry(
                piece, partial(self._until, time.monotonic(), deadline), "the client did not accept a reply"
            )
            rest = rest[sent:]

    def _until(self, began: float, deadline: float | None) -> float:
        seconds = min(self._send_seconds, HURRIED_SECONDS) if self.is_hurried() else self._send_seconds
        return began + seconds if deadline is None else min(began + seconds, deadline)

    def _retry(self, attempt: Callable[[], int], deadline: Callable[[], float | None], stalled: str) -> int:
        """Attempts until it need not wait any more, which may be for either direction whatever it does."""
        began = 0.0  # of a wait: where there is none, the clock is not read
        while True:
            until = deadline()
            if until is not None and (now := time.monotonic()) >= until:
                raise ClientStalled(f"{stalled} for {now - (began or now):.1f} s")
            try:
                return attempt()
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            except OSError as error:
                raise ClientGone(str(error)) from error
            began = began or time.monotonic()
            self._poll.register(self._socket.fileno(), events)
            if until is None:
                self._poll.poll()
            else:  # it may become shorter meanwhile
                self._poll.poll(min(max(until - time.monotonic(), 0.0), 1.0) * 1000)

    def has_pending(self) -> bool:
        return self._socket.pending() > 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def cut(self, how: int) -> None:
        _shut_down(self._socket, how)

    def close(self) -> None:
        """Tells the client that the stream ends here, if that can be told at once."""
        if self._has_shaken_hands:
            with suppress(OSError):  # it went first, or does not listen: closing is all there is to do
                self._socket.unwrap()
        self._socket.close()


def _never() -> bool:
    return False


def _set_options(sock: socket.socket, while_seconds: float) -> None:
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, UNACKNOWLEDGED_SECONDS * 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    seconds, fraction = divmod(while_seconds, 1)
    limit = struct.pack("ll", int(seconds), int(fraction * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _shut_down(sock: socket.socket, how: int) -> None:
    with suppress(OSError):  # not connected any more: what was wanted
        socket.socket.shutdown(sock, how)  # not SSLSocket's own, which drops the TLS state under its user
