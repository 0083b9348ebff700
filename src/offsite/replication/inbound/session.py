"""One connection that another system opened: who is it, what does it ask, what is answered.

    accepted ──TLS──▶ Hello ──▶ anonymous ──Pair──▶ ended
                        │
                        └─ with a pinned certificate ──▶ peer: any number of requests, until it ends

Before it is known who is there: 10 seconds, 64 KiB a message, no payload, and one request at most.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from offsite.admission import Place
from offsite.errors import IncarnationRefused, OffsiteError, PeerRefused, PeerUnreachable, PoolFailed, ProtocolError
from offsite.events import Source, act_for
from offsite.replication.link.channel import ConnectionEnded, PeerChannel
from offsite.replication.link.identity import Introduces, fingerprint_of
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.peer_share import PeerPace
from offsite.replication.transfer.receiver.endpoint import ReceiverEndpoint
from offsite.replication.transfer.receiver.machine import ReceiverMachine
from offsite.replication.transfer.receiver.partial_point import BackgroundWork
from offsite.replication.wire.errors import NotPaired, to_message
from offsite.replication.wire.exchange import ANSWER_SECONDS, WORKING_SECONDS
from offsite.replication.wire.messages import (
    VERSION_OLDEST,
    AnyMessage,
    Ask,
    Batch,
    Begin,
    ChangeSet,
    Commit,
    CreateSet,
    DeleteSet,
    Discard,
    Done,
    Hello,
    Holds,
    Keep,
    ListSets,
    Look,
    Pair,
    Ping,
    SetsHeld,
    ToldStart,
    Unpair,
    Working,
)

STRANGER_SECONDS = 10.0
IDLE_SECONDS = 120.0
LINGER_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Requests(Protocol):
    """What peers may ask, but for runs: see peer_api."""

    @property
    def pace(self) -> PeerPace: ...

    def pinned_certificates(self) -> list[bytes]: ...

    def find_peer(self, certificate: bytes) -> PeerRecord | None: ...

    def check_still_peer(self, certificate: bytes, told: ToldStart | None) -> PeerRecord:
        """Whoever has opened a connection, telling that start of itself, may still ask. Raises NotPaired when it is no
        peer any more, and IncarnationRefused when another start of it is taken by now."""
        ...

    def pair(self, pair: Pair, hello: Hello, host: str) -> None: ...

    def unpair(self, peer: PeerRecord) -> None: ...

    def create_set(self, peer: PeerRecord, request: CreateSet) -> None: ...

    def change_set(self, peer: PeerRecord, request: ChangeSet) -> None: ...

    def delete_set(self, peer: PeerRecord, request: DeleteSet) -> None: ...

    def list_sets(self, peer: PeerRecord) -> SetsHeld: ...

    def look(self, peer: PeerRecord, request: Look) -> Holds: ...

    def open_run(
        self, peer: PeerRecord, ask: Ask, background: BackgroundWork, wire_bytes: Callable[[], int]
    ) -> ReceiverEndpoint: ...


class Session:
    """Runs in a thread of its own, from the accepted socket to its end."""

    def __init__(
        self, raw: socket.socket, context: ssl.SSLContext, introductions: Introduces, requests: Requests
    ) -> None:
        self._raw = raw
        self._context = context
        self._introductions = introductions
        self._requests = requests
        self._host = str(raw.getpeername()[0])
        self._channel: PeerChannel | None = None
        self._worker = ThreadPoolExecutor(1, "peer-worker", initializer=act_for, initargs=(Source.PEER,))
        self._side: ReceiverEndpoint | None = None
        self._run: ReceiverMachine | None = None
        self.place: Place | None = None  # which the server gives it
        self._ended_by = "the connection ended"

    def serve(self) -> None:
        self._began = time.monotonic()  # the other side's Hello is made once the handshake, which follows, is done
        deadline = self._began + STRANGER_SECONDS
        try:
            channel = self._secure()
            channel.deadline = deadline
            self._converse(channel)
        except ConnectionEnded as error:
            self._ended_by = str(error)
            _log.debug("peer connection ended", host=self._host, reason=str(error))
        except PeerUnreachable as error:
            self._ended_by = str(error)
            _log.info("peer connection ended", host=self._host, reason=str(error))
        except OffsiteError as error:
            _log.warning("peer connection refused", host=self._host, reason=str(error))
            self._tell(error)
        except OSError as error:
            _log.warning("peer connection failed", host=self._host, reason=str(error))
            self._tell(PoolFailed(f"its pool failed: {error}"))
        except SQLAlchemyError as error:
            _log.error("peer connection failed", host=self._host, reason=str(error))
            self._tell(PoolFailed(f"its state database failed: {error.__cause__ or error}"))
        finally:
            self._end()

    def cut(self) -> None:
        """Ends it, from another thread."""
        if self._channel is not None:
            self._channel.cut()
        else:
            self._raw.close()

    def _secure(self) -> PeerChannel:
        self._raw.settimeout(STRANGER_SECONDS)
        sock = self._context.wrap_socket(self._raw, server_side=True, do_handshake_on_connect=False)
        channel = self._channel = PeerChannel(sock, self._host)  # so that who cuts us reaches the handshake, too
        try:
            sock.do_handshake()
        except OSError as error:
            channel.linger(1.0)  # so that the alert, which tells the other side why, gets there
            sock.close()
            raise PeerUnreachable(f"the TLS handshake failed: {error}") from error
        self._certificate = sock.getpeercert(binary_form=True)
        return channel

    def _converse(self, channel: PeerChannel) -> None:
        hello = self._receive(channel, STRANGER_SECONDS)[0]
        if not isinstance(hello, Hello):
            raise ProtocolError(f"received a {type(hello).__name__} instead of a Hello")
        channel.remote = hello.system_name
        peer = self._requests.find_peer(self._certificate) if self._certificate else None
        pinned = None if peer is None else peer.certificate
        refusal = _other_identity(peer, hello) or self._meet(pinned, hello)
        channel.send(self._introductions.hello(pinned))  # also when it is refused: by this it knows why
        if hello.version < VERSION_OLDEST:
            raise PeerRefused(f"version {hello.version} is too old; {VERSION_OLDEST} or newer is required")
        if refusal is not None:
            raise refusal
        if peer is None:
            self._serve_stranger(channel, hello)
            return
        if self.place is not None:
            self.place.settle(f"peer {peer.name}")
        channel.deadline = None
        while True:
            message, payload = self._receive(channel, IDLE_SECONDS)
            self._introductions.alive(peer)
            if not isinstance(message, Batch | Ping):
                peer = self._check_still_peer(hello)
            channel.send(self._answer(channel, peer, message, payload))

    def _meet(self, pinned: bytes | None, hello: Hello) -> IncarnationRefused | None:
        try:
            self._introductions.meet(pinned, hello, time.monotonic() - self._began)
        except IncarnationRefused as refusal:
            return refusal
        return None

    def _serve_stranger(self, channel: PeerChannel, hello: Hello) -> None:
        if self._certificate:
            raise NotPaired(f"no peer connection has the certificate {fingerprint_of(self._certificate)}")
        message, _ = self._receive(channel, STRANGER_SECONDS)
        if not isinstance(message, Pair):
            raise PeerRefused(f"a {type(message).__name__} requires a certificate that is pinned here")
        channel.deadline = None
        self._requests.pair(message, hello, self._host)
        channel.send(Done())

    def _check_still_peer(self, hello: Hello) -> PeerRecord:
        assert self._certificate  # or it would be a stranger
        told = None if hello.incarnation is None else hello.incarnation.current
        return self._requests.check_still_peer(self._certificate, told)

    def _receive(self, channel: PeerChannel, timeout_seconds: float) -> tuple[AnyMessage, memoryview]:
        received = channel.receive(timeout_seconds)
        if received is None:
            raise PeerUnreachable(f"timeout: received nothing from {channel.remote} for {timeout_seconds:.0f} s")
        return received

    def _answer(self, channel: PeerChannel, peer: PeerRecord, message: AnyMessage, payload: memoryview) -> AnyMessage:
        if isinstance(message, Batch) and self._run is not None:
            return self._run.answer(message, payload)
        if isinstance(message, Ping):
            return Done()
        # Whatever may take long is done beside, so that the other side can be told that we are alive.
        future = self._worker.submit(copy_context().run, self._work, channel, peer, message)
        while not wait([future], WORKING_SECONDS).done:
            channel.send(Working())
        return future.result()

    def _work(self, channel: PeerChannel, peer: PeerRecord, message: AnyMessage) -> AnyMessage:
        self._requests.pace.take_turn(peer)
        match message:
            case Ask():
                self._close_run()
                self._side = self._requests.open_run(peer, message, self._worker, lambda: channel.wire_bytes)
                self._run = ReceiverMachine(self._side)
                channel.allow_payloads()  # the memory for them only once there is a run
                return self._run.answer(message, memoryview(b""))
            case Begin() | Commit() | Discard() | Keep() if self._run is not None:
                return self._run.answer(message, memoryview(b""))
            case CreateSet():
                self._requests.create_set(peer, message)
            case ChangeSet():
                self._requests.change_set(peer, message)
            case ListSets():
                return self._requests.list_sets(peer)
            case Look():
                return self._requests.look(peer, message)
            case DeleteSet():
                self._requests.delete_set(peer, message)
            case Unpair():
                self._requests.unpair(peer)
            case _:
                raise ProtocolError(f"unexpected {type(message).__name__}")
        return Done()

    def _tell(self, error: OffsiteError) -> None:
        """The other side hears why, if it still listens; then it ends the connection."""
        self._ended_by = str(error)
        if self._channel is None:
            return
        try:
            self._channel.send(to_message(error))
        except PeerUnreachable:
            return
        self._channel.linger(LINGER_SECONDS)

    def _end(self) -> None:
        if self._side is not None:
            leaving = self._worker.submit(self._side.leave, self._ended_by)
            if not wait([leaving], ANSWER_SECONDS).done:
                _log.error("timeout: a flush of the disk has not ended", seconds=ANSWER_SECONDS)
            elif leaving.exception() is not None:
                _log.warning("cannot store the last watermark of a run", reason=str(leaving.exception()))
        self._close_run()
        self._worker.shutdown(wait=False)
        if self._channel is not None:
            self._channel.close()
        self._raw.close()

    def _close_run(self) -> None:
        if self._side is not None:
            self._side.close()
        self._side = self._run = None


def _other_identity(peer: PeerRecord | None, hello: Hello) -> PeerRefused | None:
    """A peer is who its certificate says, whatever it says itself."""
    if peer is None or hello.system_uuid == peer.system_uuid:
        return None
    return PeerRefused(
        f"the system with the certificate of peer connection {peer.name} says that it is {hello.system_name} with the "
        f"serial number {hello.system_uuid}, not {peer.system_uuid}"
    )
