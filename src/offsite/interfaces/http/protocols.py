"""How connections to the API and the control socket begin: who may, how long they may take, and TLS.

    TCP connection ──TLS handshake (deadline)──► HTTP      API
    Unix connection ──SO_PEERCRED──► HTTP                  control socket

HTTP itself is uvicorn's. What is not TLS, not HTTP, or does not come, ends the connection with one line in the
log. Over TLS whoever has not logged in yet is a stranger (see admission); on the control socket nobody is.

Deadlines of a connection, none of which a byte now and then puts off:

    accepted ──TLS──► headers of a request ──► body, answer (api, api_transfer) ──► headers of the next request
       └── 10 s ──┘          │                           │                                  │
       └───────── 15 s ──────┘      each piece of the answer is taken in 30 s ──────── 15 s ┘
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import MutableMapping
from typing import Any

import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

from offsite.admission import LOCAL, Admission, Place
from offsite.clock import Clock, SystemClock
from offsite.errors import NoPlace
from offsite.events import Report, ignore

HANDSHAKE_SECONDS = 10.0
HEADERS_SECONDS = 15.0  # of each request, from accept or from the answer before
SEND_SECONDS = 30.0
LINGER_SECONDS = 1.0
CONNECTIONS_MAX = 128  # of users, to each listener
PLACE = "offsite.place"  # in the scope of a request: the place of its connection
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)
_REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

_Message = MutableMapping[str, Any]

_log = structlog.get_logger("offsite.http")


class HttpProtocol(H11Protocol):
    """HTTP with a deadline for the headers of every request, and for the answer to be taken.

    After a refusal the connection is closed: who has no business here does not keep a place.
    """

    place: Place | None = None
    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._application: Any = self.app
        self.app = self._serve
        self.began_at = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn's
        super().connection_made(transport)
        self._expect_headers(self.began_at + HEADERS_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        if self.place is not None:
            self.place.leave()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._expect_nothing()

    def on_response_complete(self) -> None:
        self._expect_headers(self.loop.time() + HEADERS_SECONDS)  # also a bound for what is closing
        super().on_response_complete()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_in_time(message: _Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                self._end(f"timeout: the client did not accept the answer within {SEND_SECONDS:g} s")

        scope[PLACE] = self.place
        await self._application(scope, receive, send_in_time)

    def _expect_headers(self, until: float) -> None:
        self._expect_nothing()
        self._deadline = self.loop.call_at(until, self._end, "timeout: received no request")

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self, reason: str) -> None:
        _log.warning("connection closed: " + reason, source=source_of(self.transport))
        self.transport.abort()


class ControlProtocol(HttpProtocol):
    """HTTP for processes of the same user and root alone, as the kernel names them."""

    admission: Admission
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn's
        uid = peer_uid(transport.get_extra_info("socket"))
        if uid not in (0, os.geteuid()):
            self._refused = True
            _log.warning("refused a process of another user on the control socket", uid=uid)
            transport.abort()
            return
        try:
            self.place = self.admission.arrive(LOCAL, transport.abort)
            self.place.settle(LOCAL)
        except NoPlace:
            self._refused = True
            if self.place is not None:
                self.place.leave()
            transport.write(_REFUSED)
            transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, transport.abort)  # what it still sends would reset the answer
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._refused:
            super().connection_lost(exc)


def peer_uid(connection: socket.socket) -> int:
    """The user that made the connection to a Unix socket."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(credentials)[1]
    return uid


class TlsProtocol(asyncio.Protocol):
    """Upgrades the connection to TLS, then hands all that comes to HTTP.

    asyncio could do TLS by itself, but says nothing of a handshake that failed. What comes together with
    the end of the handshake waits until HTTP has been told of the connection.
    """

    context: ssl.SSLContext
    admission: Admission

    def __init__(self, **arguments: Any) -> None:
        self._http = HttpProtocol(**arguments)
        self._early: list[bytes] | None = []
        self._handshake: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None  # the TLS one, once there is one

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._handshake is not None:  # the second time it is the TLS transport's
            return
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        try:
            self._http.place = self.admission.arrive(source_of(transport), self._abort)
        except NoPlace:
            transport.abort()
            return
        self._handshake = asyncio.get_running_loop().create_task(self._upgrade(transport, self._http.place))

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _upgrade(self, transport: asyncio.Transport, place: Place) -> None:
        source = source_of(transport)
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport, self, self.context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
            if secure is None or secure.is_closing():
                raise ConnectionAbortedError("the connection was ended")
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            place.leave()
            _log.warning("connection closed: the TLS handshake failed", source=source, error=str(error))
            transport.abort()
            return
        self._transport = secure
        self._http.connection_made(secure)
        early, self._early = self._early or [], None
        for data in early:
            self._http.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self._early is None:
            self._http.data_received(data)
        else:
            self._early.append(data)

    def eof_received(self) -> None:
        if self._early is None:
            self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._early is None:
            self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._early is None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        if self._early is None:
            self._http.resume_writing()


def tls(context: ssl.SSLContext, admission: Admission | None = None) -> type[asyncio.Protocol]:
    """The protocol class of a port that speaks HTTP over TLS with `context`."""
    places = admission or places_of_api(ignore, SystemClock())
    return type("TlsProtocol", (TlsProtocol,), {"context": context, "admission": places})


def control(admission: Admission | None = None) -> type[asyncio.Protocol]:
    """The protocol class of the control socket."""
    return type(
        "ControlProtocol", (ControlProtocol,), {"admission": admission or places_of_control(ignore, SystemClock())}
    )


def places_of_api(report: Report, clock: Clock) -> Admission:
    return Admission("to the API", lambda: CONNECTIONS_MAX, report, clock, listens="port")


def places_of_control(report: Report, clock: Clock) -> Admission:
    return Admission("to the control socket", lambda: CONNECTIONS_MAX, report, clock, listens="Unix socket")


def source_of(transport: asyncio.BaseTransport) -> str:
    """Where a connection came from, for people: an address, or the Unix socket."""
    name = transport.get_extra_info("peername")
    return name[0] if isinstance(name, tuple) else "unix"
