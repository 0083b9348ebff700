"""A connection between two systems: frames over a TLS socket. One thread alone uses it.

(Python's TLS objects must not be read and written at the same time.) Only `cut` may come from elsewhere.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Generator
from typing import TypeVar

from offsite.errors import OffsiteError, PeerUnreachable
from offsite.replication.wire import frames
from offsite.replication.wire.errors import NotPaired
from offsite.replication.wire.exchange import Asking, M, Receive, Transmit
from offsite.replication.wire.messages import AnyMessage

SEND_SECONDS = 30.0
FRAME_SECONDS = 60.0  # for the rest of a frame that has begun
_NOTHING = memoryview(b"")

R = TypeVar("R")


class ConnectionEnded(PeerUnreachable):
    """The other side closed the connection."""


class PeerChannel:
    """`remote` names the other end in sentences; whoever learns a better name sets it."""

    def __init__(self, sock: ssl.SSLSocket, remote: str) -> None:
        self.remote = remote
        self.deadline: float | None = None  # for all that is received, by time.monotonic()
        self.wire_bytes = 0  # of frames, in both directions
        self._socket = sock
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._head = memoryview(bytearray(frames.HEAD_BYTES))
        self._body = memoryview(bytearray(0))
        self._payload = memoryview(bytearray(0))

    def end_within(self, seconds: float) -> None:
        """All that is received from now on has to come within that time: a peer that sends each byte just in time
        would hold up whoever waits for it."""
        self.deadline = time.monotonic() + seconds

    def allow_payloads(self) -> None:
        """From now on batches may come. Nobody gets so much memory before we know who it is."""
        if not len(self._payload):
            self._payload = memoryview(bytearray(frames.PAYLOAD_BYTES_MAX))

    def send(self, message: AnyMessage, table: bytes = b"", data: memoryview = _NOTHING) -> None:
        """A frame; its payload is `table` and then `data`. Raises PeerUnreachable."""
        frame = frames.encode(message, len(table) + len(data)) + table
        self._socket.settimeout(SEND_SECONDS)
        try:
            self._socket.sendall(frame)
            if len(data):
                self._socket.sendall(data)
        except OSError as error:
            raise self._failed(error) from error
        self.wire_bytes += len(frame) + len(data)

    def readable(self) -> bool:
        return self._socket.pending() > 0 or bool(self._readable.poll(0))

    def receive(self, timeout_seconds: float) -> tuple[AnyMessage, memoryview] | None:
        """A message with its payload, which the next call overwrites. None: nothing came in that time.

        Raises PeerUnreachable when the connection ends or stalls within a frame, and ProtocolError.
        """
        if self.deadline is not None and time.monotonic() >= self.deadline:  # also when there are bytes
            raise PeerUnreachable(f"timeout: {self.remote} did not finish in time")
        try:
            until = self._until(timeout_seconds)
            if not self._fill(self._head[:1], until):
                return None
            until = self._until(FRAME_SECONDS)
            self._fill_all(self._head[1:], until)
            head = frames.decode_head(self._head, payload_allowed=len(self._payload) > 0)
            if len(self._body) < head.message_bytes:
                self._body = memoryview(bytearray(head.message_bytes))
            self._fill_all(self._body[: head.message_bytes], until)
            payload = self._payload[: head.payload_bytes]
            self._fill_all(payload, until)
        except OSError as error:
            raise self._failed(error) from error
        self.wire_bytes += frames.HEAD_BYTES + head.message_bytes + head.payload_bytes
        return frames.decode_message(self._body[: head.message_bytes], head.payload_bytes), payload

    def ask(self, asking: Asking, message: AnyMessage, expected: type[M]) -> M:
        """The answer to a request: see Asking.request."""
        return self._drive(asking.request(message, expected))

    def _drive(self, machine: Generator[Transmit | Receive, object, R]) -> R:
        answer: object = None
        while True:
            try:
                action = machine.send(answer)
            except StopIteration as stop:
                result: R = stop.value
                return result
            answer = None
            if isinstance(action, Transmit):
                self.send(action.message)
            else:
                received = self.receive(action.timeout_seconds)
                answer = received and received[0]

    def linger(self, seconds: float) -> None:
        """Takes in and forgets what the other side still sends, until it has seen our last message and ends.

        If we closed while it is sending, it would see a reset instead of that message.
        """
        until = time.monotonic() + seconds
        scratch = bytearray(1 << 16)
        try:
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not socket.socket.recv_into(self._socket, scratch):  # as it is on the wire: nobody reads it
                    return
        except OSError:
            return  # it ended in another way, which is as good

    def cut(self) -> None:
        """Ends the connection under whoever is using it, in another thread. The socket's own shutdown would
        take the TLS object away from under that thread: hence the plain one."""
        try:
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return  # it had ended before

    def close(self) -> None:
        self._socket.close()

    def _until(self, seconds: float) -> float:
        until = time.monotonic() + seconds
        return until if self.deadline is None else min(until, self.deadline)

    def _fill_all(self, buffer: memoryview, until: float) -> None:
        if len(buffer) and not self._fill(buffer, until):
            raise PeerUnreachable(f"timeout: {self.remote} stopped in the middle of a message")

    def _fill(self, buffer: memoryview, until: float) -> bool:
        """Reads until `buffer` is full; False if the time was over before that."""
        at = 0
        self._socket.settimeout(max(0.001, until - time.monotonic()))
        while at < len(buffer):
            try:
                got = self._socket.recv_into(buffer[at:])
            except TimeoutError:
                return False
            if not got:
                raise ConnectionEnded(f"{self.remote} closed the connection")
            at += got
            if at < len(buffer):
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._socket.settimeout(left)
        return True

    def _failed(self, error: OSError) -> OffsiteError:
        if isinstance(error, ssl.SSLError) and "UNKNOWN_CA" in (error.reason or ""):
            return NotPaired(
                f"{self.remote} does not know this system's certificate. If one of the two systems lost its "
                "certificate, log in again: `set peer-connection remote-username USER NAME`. If the peer connection "
                "was deleted there on purpose, delete what is left here: `delete replication-set local-only SET`, "
                "then `delete peer-connection local-only NAME`"
            )
        if isinstance(error, ssl.SSLError) and "CERTIFICATE_EXPIRED" in (error.reason or ""):  # a version that looks
            return PeerUnreachable(
                f"{self.remote} refuses this system's certificate as expired or not yet valid: one of the two clocks "
                "is wrong; compare them"
            )
        if isinstance(error, TimeoutError):
            return PeerUnreachable(f"timeout: {self.remote} has accepted no data for {SEND_SECONDS:.0f} s")
        return PeerUnreachable(f"the connection to {self.remote} failed: {error}")
