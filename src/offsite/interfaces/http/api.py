"""The HTTP interface of a system, over TLS for everyone who can log in, and over the control socket.

    POST /offsite/v1/login                        Authorization: Basic …      → {"key": …}
    POST /offsite/v1/logout                       sessionKey: …
    POST /offsite/v1/command                      {"words": […], "secrets": {…}, "asks": …}
                                                  → {"message": …, "objects": […]} or {"question": {…}}
    POST /offsite/v1/import?name=&pool=&size=     the frames of `frames`
    GET  /offsite/v1/export?name=                 → the same
    GET  /metrics                                 → for Prometheus; any user may ask

Errors are {"error": {"text": …, "code": …, "class": …, "usage": …}} with status 400, 401 for who is not
logged in, or 503 for who has too many connections; after an error the connection is closed.
ME4's own API is to stand beside these routes, on the same table of commands.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from offsite.errors import AuthenticationFailed, ErrorClass, NoPlace, OffsiteError, ProtocolError
from offsite.interfaces.encoding.reply_json import encode, encode_question
from offsite.interfaces.http import api_transfer, metrics
from offsite.interfaces.http.kept_logins import KeptLogins
from offsite.interfaces.http.protocols import PLACE
from offsite.management import execution
from offsite.management.accounts.users import LOCAL_USER, WAITING_MAX, User
from offsite.management.command_table.parser import UsageError
from offsite.management.command_table.reply import Question, Reply
from offsite.management.system import System

BODY_BYTES_MAX = 1 << 20
BODY_SECONDS = 30.0
# Threads of their own, more than there can be logins that wait: so logins hold up nothing else.
LOGINS_MAX = 8 + sum(WAITING_MAX.values())

Identify = Callable[[Request], Awaitable[User]]
"""Who asks. Raises AuthenticationFailed."""


class CommandBody(msgspec.Struct, forbid_unknown_fields=True):
    words: list[str]
    secrets: dict[str, str] = {}
    asks: bool = False


def remote_application(system: System) -> FastAPI:
    """For the API port: users log in with name and password, or with the key of a session."""

    async def identify(request: Request) -> User:
        key = request.headers.get("sessionkey")
        if key is not None:
            return await run_in_threadpool(system.sessions.user, key)
        return await _log_in(request, system.users.authenticate)

    async def identify_scraper(request: Request) -> User:
        key = request.headers.get("sessionkey")
        if key is not None:
            return await run_in_threadpool(system.sessions.user, key)
        return await _log_in(request, logins.user)

    log_in = _settled(lambda request: _log_in(request, system.users.authenticate))
    logins = KeptLogins(system.users, system.sessions)
    application = _application(system, _settled(identify))
    _add_metrics(application, system, _settled(identify_scraper))

    @application.post("/offsite/v1/login")
    async def login(request: Request) -> Response:
        user = await log_in(request)
        return JSONResponse({"key": system.sessions.open(user), "user": user.name, "role": user.role.word})

    @application.post("/offsite/v1/logout")
    async def logout(request: Request) -> Response:
        system.sessions.close(request.headers.get("sessionkey", ""))
        return JSONResponse({"message": "Logged out."})

    return application


def _settled(identify: Identify) -> Identify:
    """As `identify`; and the connection is that user's from then on. Raises NoPlace."""

    async def identify_and_settle(request: Request) -> User:
        user = await identify(request)
        place = request.scope.get(PLACE)
        if place is not None:
            place.settle(f"user {user.name}")
        return user

    return identify_and_settle


def local_application(system: System) -> FastAPI:
    """For the control socket: whoever gets here may manage."""

    async def identify(_request: Request) -> User:
        return LOCAL_USER

    application = _application(system, identify)
    _add_metrics(application, system, identify)
    return application


def _application(system: System, identify: Identify) -> FastAPI:
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_error_handlers(application)

    @application.post("/offsite/v1/command")
    async def command(request: Request) -> Response:
        user = await identify(request)
        body = await _body(request)
        asked = execution.Request(body.words, body.secrets, body.asks)
        answer = await run_in_threadpool(execution.execute, system, asked, user)
        return JSONResponse(_answer(answer))

    api_transfer.add_routes(application, system, identify)
    return application


def _add_metrics(application: FastAPI, system: System, identify: Identify) -> None:
    @application.get("/metrics")
    async def metrics_now(request: Request) -> Response:
        await identify(request)
        accept = request.headers.get("accept", "")
        content, content_type = await run_in_threadpool(metrics.exposition, system, accept)
        return Response(content, headers={"Content-Type": content_type})


def add_error_handlers(application: FastAPI) -> None:
    application.add_exception_handler(OffsiteError, _refusal)
    application.add_exception_handler(Exception, _defect)


def _answer(answer: Reply | Question) -> dict[str, Any]:
    if isinstance(answer, Question):
        return {"question": encode_question(answer)}
    return encode(answer)


async def _refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OffsiteError)
    body = {
        "text": str(error),
        "code": error.code,
        "class": error.error_class.value,
        "usage": isinstance(error, UsageError),
    }
    status_code = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
    return JSONResponse({"error": body}, status_code=status_code)


_STATUS = ((AuthenticationFailed, 401), (NoPlace, 503))


async def _defect(_request: Request, error: Exception) -> Response:
    """What nobody foresaw. The log gets all of it, the client only that it happened."""
    body = {
        "text": f"a defect of Offsite ({type(error).__name__}); the log of the system says more",
        "code": OffsiteError.code,
        "class": ErrorClass.OPERATOR.value,
        "usage": False,
    }
    return JSONResponse({"error": body}, status_code=500)


async def _body(request: Request) -> CommandBody:
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > BODY_BYTES_MAX:
                    raise ProtocolError(f"the body is longer than {BODY_BYTES_MAX} bytes")
    except TimeoutError as error:
        raise ProtocolError(f"timeout: the body did not arrive within {BODY_SECONDS:.0f} seconds") from error
    try:
        return msgspec.json.decode(content, type=CommandBody)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the body is not a command: {error}") from error


_login_threads = CapacityLimiter(LOGINS_MAX)


async def _log_in(request: Request, authenticate: Callable[[str, str, str], User]) -> User:
    name, password = _basic(request.headers.get("authorization", ""))
    source = request.client.host if request.client else "unix"
    return await to_thread.run_sync(authenticate, name, password, source, limiter=_login_threads)


def _basic(header: str) -> tuple[str, str]:
    """Name and password of HTTP Basic authentication (RFC 7617)."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        raise AuthenticationFailed("log in first: with HTTP Basic authentication or a sessionKey header")
    try:
        name, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise AuthenticationFailed("the Authorization header is not Basic authentication") from error
    return name, password
