"""The thread in which the API and the control socket are served."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import uvicorn

from offsite.errors import OffsiteError

GRACE_SECONDS = 5
HEADERS_BYTES_MAX = 16 << 10  # of one request; the number of connections is bounded where they begin: protocols

_log = structlog.get_logger("offsite.http")


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens, the protocol class of its connections, and the ASGI application behind it."""

    socket: socket.socket
    protocol: type[asyncio.Protocol]
    application: Any


class HttpServer:
    """Serves listeners until it is stopped: one event loop in a thread of its own."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self._servers = [uvicorn.Server(_config(each)) for each in listeners]
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._failure: OSError | None = None

    def start(self, timeout_seconds: float) -> None:
        """Returns when connections are being taken."""
        self._thread.start()
        deadline = threading.Event()
        for _ in range(int(timeout_seconds / 0.01)):
            if all(server.started for server in self._servers) or not self._thread.is_alive():
                break
            deadline.wait(0.01)
        if not all(server.started for server in self._servers):
            raise OffsiteError(f"the API did not start within {timeout_seconds:.0f} s: {self._failure}")

    def stop(self, timeout_seconds: float) -> None:
        """Takes no more connections, gives those that are at work a moment, and ends."""
        for server in self._servers:
            server.should_exit = True
        self._thread.join(timeout_seconds)
        for listener in self._listeners:
            listener.socket.close()

    def _serve(self) -> None:
        try:
            asyncio.run(self._serve_all())
        except OSError as error:
            self._failure = error
            _log.error("HTTP has stopped", error=str(error))

    async def _serve_all(self) -> None:
        pairs = zip(self._servers, self._listeners, strict=True)
        await asyncio.gather(*(server.serve(sockets=[each.socket]) for server, each in pairs))


def _config(listener: Listener) -> uvicorn.Config:
    return uvicorn.Config(
        listener.application,
        http=listener.protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # who asks is who connects
        server_header=False,
        h11_max_incomplete_event_size=HEADERS_BYTES_MAX,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
