"""The routes over which the content of volumes is imported and exported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from anyio import CancelScope
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from offsite.errors import BadParameter, Busy, NotAllowed, ProtocolError
from offsite.events import VOLUME_CREATED, Source, acting_for
from offsite.interfaces.encoding import frames
from offsite.interfaces.encoding.reply_json import encode
from offsite.management.accounts.users import User
from offsite.management.command_table.command import Role
from offsite.management.command_table.reply import Reply
from offsite.management.images.import_copy import Import, pieces
from offsite.management.images.point_in_time_reader import Frozen
from offsite.management.system import System, check_size
from offsite.names import check_name
from offsite.units import format_size

SILENCE_SECONDS = 60.0  # an import that was waited for so long is given up,
PROGRESS_BYTES = 64 << 10  # unless so much came meanwhile
RECHECK_SECONDS = 1.0
TRANSFERS_MAX = 8


def add_routes(application: FastAPI, system: System, identify: Callable[[Request], Awaitable[User]]) -> None:
    at_work = asyncio.Semaphore(TRANSFERS_MAX)

    async def check(request: Request) -> User:
        user = await identify(request)
        if user.role < Role.MANAGE:
            raise NotAllowed(f"import and export require the role manage; user {user.name} has {user.role.word}")
        if at_work.locked():
            raise Busy(f"{TRANSFERS_MAX} imports and exports are in progress, which is the maximum; try again later")
        return user

    @application.post("/offsite/v1/import")
    async def import_volume(request: Request) -> Response:
        user = await check(request)
        async with at_work:
            reply = await _receive(system, request, Permission(system, user))
        return JSONResponse(encode(reply))

    @application.get("/offsite/v1/export")
    async def export_volume(request: Request) -> Response:
        user = await check(request)
        return ExportResponse(system, request, at_work, Permission(system, user))


class Permission:
    """What a transfer needs to go on: a system that is not being stopped, and a user who was not changed."""

    def __init__(self, system: System, user: User) -> None:
        self._system = system
        self._user = user
        self._next_at = 0.0

    def check(self) -> None:
        """Of the user at most once a second: this is asked for each piece. Raises OffsiteError."""
        self._system.check_stopping()
        if self._system.clock.monotonic() >= self._next_at:
            self.check_user()

    def check_user(self) -> None:
        self._system.users.current(self._user)
        self._next_at = self._system.clock.monotonic() + RECHECK_SECONDS


class ExportResponse(Response):
    """The content of an image, with its sizes in headers of their own.

    It ends by itself when the client goes away, or is cut off because it does not take the answer in time
    (see protocols), and in any case deletes the snapshot that it reads.
    """

    def __init__(self, system: System, request: Request, at_work: asyncio.Semaphore, permission: Permission) -> None:
        super().__init__()
        self._system = system
        self._request = request
        self._at_work = at_work
        self._permission = permission

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        found = self._system.image(self._request.query_params.get("name", ""))
        async with self._at_work:
            export = await run_in_threadpool(Frozen, found.pool, found.image)
            try:
                await self._send_all(export, send)
            finally:
                with CancelScope(shield=True):
                    await run_in_threadpool(export.close)

    async def _send_all(self, export: Frozen, send: Send) -> None:
        data_bytes = await run_in_threadpool(lambda: sum(length for _, length in export.data_extents()))
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"size-bytes", str(export.size_bytes).encode()),
            (b"data-bytes", str(data_bytes).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        coming = pieces(export)
        while (piece := await run_in_threadpool(next, coming, None)) is not None:
            await run_in_threadpool(self._permission.check)
            if await self._request.is_disconnected():
                return
            offset, data = piece
            body = frames.head(offset, len(data)) + data
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": frames.end(export.size_bytes), "more_body": False})


async def _receive(system: System, request: Request, permission: Permission) -> Reply:
    name = check_name(request.query_params.get("name", ""), "volume name")
    pool = system.pool(request.query_params.get("pool", ""))
    size = request.query_params.get("size", "")
    if not (size.isascii() and size.isdigit() and len(size) <= 18):
        raise BadParameter(f"size {size[:32]!r} is not a number of bytes")
    size_bytes = check_size(int(size), pool)
    system.check_new_name(name)
    volume = await run_in_threadpool(Import, pool, size_bytes)
    try:
        decoder = frames.Decoder(size_bytes)
        chunks = _in_time(request)
        while not decoder.complete:
            chunk = await anext(chunks, b"")
            if not chunk:
                raise ProtocolError("the import was interrupted; nothing was kept")
            await run_in_threadpool(_write, volume, decoder, chunk, permission)
        await run_in_threadpool(permission.check_user)
        await run_in_threadpool(volume.finish, name)
    finally:
        await run_in_threadpool(volume.close)
    with acting_for(Source.OPERATOR):
        system.events.report(
            VOLUME_CREATED, f"Volume {name} of {format_size(size_bytes)} was imported to pool {pool.name}."
        )
    return Reply(f"Volume {name} of {format_size(size_bytes)} was imported to pool {pool.name}.")


async def _in_time(request: Request) -> AsyncIterator[bytes]:
    """The body in chunks. A byte now and then does not put off the deadline. Raises ProtocolError."""
    chunks = aiter(request.stream())
    waited_seconds, came_bytes, clock = 0.0, 0, asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            async with asyncio.timeout(SILENCE_SECONDS - waited_seconds):
                chunk = await anext(chunks, b"")
        except TimeoutError as error:
            raise ProtocolError(f"timeout: the import received no data for {SILENCE_SECONDS:.0f} seconds") from error
        if not chunk:
            return
        waited_seconds += clock() - began
        came_bytes += len(chunk)
        if came_bytes >= PROGRESS_BYTES:
            waited_seconds, came_bytes = 0.0, 0
        yield chunk


def _write(volume: Import, decoder: frames.Decoder, chunk: bytes, permission: Permission) -> None:
    permission.check()
    for offset, data in decoder.feed(chunk):
        volume.write(offset, data)
