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
from contextlib import suppress
from typing import Protocol

from offsite.errors import ProtocolError

KEEPALIVE_IDLE_SECONDS, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_PROBES = 30, 10, 3
UNACKNOWLEDGED_SECONDS = 60  # a peer that has vanished from the network
SOCKET_BUFFER_BYTES = 4 << 20  # a whole reply of 1 MiB goes in at once, where the system allows as much
_TCP_USER_TIMEOUT = 18  # linux/tcp.h


class Channel(Protocol):
    def receive(self, buffer: memoryview) -> int:
        """Waits for bytes; returns how many came, 0 at the end of the stream. Raises OSError."""
        ...

    def receive_before(self, buffer: memoryview, deadline: float) -> int:
        """As `receive`; raises TimeoutError at `deadline`, by time.monotonic()."""
        ...

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Raises TimeoutError when the client has taken nothing for the send deadline, or OSError."""
        ...

    def has_pending(self) -> bool:
        """Whether bytes have been taken off the socket that `receive` has not given out."""
        ...

    def fileno(self) -> int: ...

    def cut(self, how: int) -> None:
        """Shuts down the socket below (socket.SHUT_RD, SHUT_RDWR), from any thread."""
        ...

    def close(self) -> None: ...


def prepare(sock: socket.socket, send_seconds: float) -> None:
    """The options of a socket just accepted."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, UNACKNOWLEDGED_SECONDS * 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    seconds, fraction = divmod(send_seconds, 1)
    limit = struct.pack("ll", int(seconds), int(fraction * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


class PlainChannel:
    """See Channel."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.fileno = sock.fileno
        self._receive_into = sock.recv_into

    def receive(self, buffer: memoryview) -> int:
        return self._receive_into(buffer)

    def receive_before(self, buffer: memoryview, deadline: float) -> int:
        self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            return self.socket.recv_into(buffer)
        finally:
            self.socket.settimeout(None)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            try:
                sent = self.socket.send(rest)
            except BlockingIOError as error:  # SO_SNDTIMEO
                raise TimeoutError("the client takes no replies") from error
            if sent == len(rest):
                return
            rest = rest[sent:]

    def has_pending(self) -> bool:
        return False

    def cut(self, how: int) -> None:
        _shut_down(self.socket, how)

    def close(self) -> None:
        self.socket.close()


class TlsChannel:
    """See Channel. Made of a plain channel by the TLS handshake."""

    def __init__(self, plain: PlainChannel, context: ssl.SSLContext, deadline: float, send_seconds: float) -> None:
        """Shakes hands; raises ProtocolError when that fails, TimeoutError at `deadline`."""
        self._send_seconds = send_seconds
        self._socket = context.wrap_socket(plain.socket, server_side=True, do_handshake_on_connect=False)
        self._poll = select.poll()
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            self._socket.do_handshake()
        except ssl.SSLError as error:
            self._socket.close()
            raise ProtocolError(f"TLS handshake failed: {error.reason}") from error
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def certificate_der(self) -> bytes | None:
        """The client's certificate, verified; None if it showed none."""
        return self._socket.getpeercert(binary_form=True)

    def receive(self, buffer: memoryview) -> int:
        return self.receive_before(buffer, None)

    def receive_before(self, buffer: memoryview, deadline: float | None) -> int:
        while True:
            try:
                return self._socket.recv_into(buffer)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, time.monotonic() + self._send_seconds)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, time.monotonic() + self._send_seconds)

    def _wait(self, events: int, deadline: float | None) -> None:
        self._poll.register(self._socket.fileno(), events)
        seconds = None if deadline is None else max(deadline - time.monotonic(), 0)
        if not self._poll.poll(None if seconds is None else seconds * 1000):
            raise TimeoutError("the client is silent, or takes no replies")

    def has_pending(self) -> bool:
        return self._socket.pending() > 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def cut(self, how: int) -> None:
        _shut_down(self._socket, how)

    def close(self) -> None:
        """Tells the client that the stream ends here, if that can be told at once."""
        with suppress(OSError):  # it went first, or does not listen: closing is all there is to do
            self._socket.unwrap()
        self._socket.close()


def _shut_down(sock: socket.socket, how: int) -> None:
    with suppress(OSError):  # not connected any more: what was wanted
        socket.socket.shutdown(sock, how)  # not SSLSocket's own, which drops the TLS state under its user
