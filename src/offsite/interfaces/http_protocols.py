"""How connections to the API and the control socket begin: who may, how long they may take, and TLS.

    TCP connection ──TLS handshake (deadline)──► HTTP      API
    Unix connection ──SO_PEERCRED──► HTTP                  control socket

HTTP itself is uvicorn's. What is not TLS, not HTTP, or does not come, ends the connection with one line in the
log.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from typing import Any

import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

HANDSHAKE_SECONDS = 10.0
HANDSHAKES_MAX = 64  # at once
FIRST_REQUEST_SECONDS = 15.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)

_log = structlog.get_logger("offsite.http")


class HttpProtocol(H11Protocol):
    """HTTP whose first request has to come within a time, so that idle connections cannot pile up."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn's
        super().connection_made(transport)
        self._deadline = self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_without_request)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _close_without_request(self) -> None:
        if self.cycle is None:
            _log.warning("connection closed: no request came", source=source_of(self.transport))
            self.transport.abort()


class ControlProtocol(HttpProtocol):
    """HTTP for processes of the same user and root alone, as the kernel names them."""

    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn's
        uid = peer_uid(transport.get_extra_info("socket"))
        if uid in (0, os.geteuid()):
            super().connection_made(transport)
            return
        self._refused = True
        _log.warning("control socket: a process of another user was refused", uid=uid)
        transport.abort()

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
    places: asyncio.Semaphore  # for handshakes

    def __init__(self, **arguments: Any) -> None:
        self._http = HttpProtocol(**arguments)
        self._early: list[bytes] | None = []
        self._handshake: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._handshake is None:  # the second time it is the TLS transport's
            assert isinstance(transport, asyncio.Transport)
            self._handshake = asyncio.get_running_loop().create_task(self._upgrade(transport))

    async def _upgrade(self, transport: asyncio.Transport) -> None:
        source = source_of(transport)
        if self.places.locked():
            _log.warning("connection closed: too many TLS handshakes at once", source=source)
            transport.abort()
            return
        try:
            async with self.places:
                secure = await asyncio.get_running_loop().start_tls(
                    transport, self, self.context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
                )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            _log.warning("connection closed: no TLS", source=source, error=str(error))
            transport.abort()
            return
        assert secure is not None
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


def tls(context: ssl.SSLContext) -> type[asyncio.Protocol]:
    """The protocol class of a port that speaks HTTP over TLS with `context`."""
    places = asyncio.Semaphore(HANDSHAKES_MAX)
    return type("TlsProtocol", (TlsProtocol,), {"context": context, "places": places})


def source_of(transport: asyncio.BaseTransport) -> str:
    """Where a connection came from, for people: an address, or the Unix socket."""
    name = transport.get_extra_info("peername")
    return name[0] if isinstance(name, tuple) else "unix"
