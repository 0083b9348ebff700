"""Clients of the HTTP interface that stall: each costs nobody anything for longer than its deadline."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request

from offsite.admission import Admission, Place
from offsite.clock import SystemClock
from offsite.events import ignore
from offsite.interfaces import control_socket
from offsite.interfaces.encoding import frames
from offsite.interfaces.http import api, api_transfer, protocols
from offsite.interfaces.http.protocols import PLACE, control
from offsite.interfaces.http.server import HttpServer, Listener
from offsite.management.accounts.users import User
from offsite.management.command_table.command import Role
from offsite.units import MIB
from tests.management.management_bench import Bench, bench_in


@pytest.fixture
def served(tmp_path: Path, short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bench, Path]]:
    """A system whose deadlines are short, and its control socket."""
    monkeypatch.setattr(api, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(api_transfer, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(protocols, "SEND_SECONDS", 0.3)
    path = short_directory / "control.sock"
    with bench_in(tmp_path / "London", "London") as bench:
        application = api.local_application(bench.system)
        server = HttpServer([Listener(control_socket.listen(path), control(), application)])
        server.start(10)
        yield bench, path
        server.stop(10)


def connected(path: Path, request: bytes) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(path))
    connection.sendall(request)
    return connection


def answered(connection: socket.socket, text: bytes) -> bool:
    """Whether `text` comes in the answer, which may come in pieces."""
    found = b""
    while text not in found and (more := connection.recv(4096)):
        found += more
    return text in found


def internal(bench: Bench) -> list[str]:
    return [image.name for image in bench.system.pools["A"].images() if image.kind == "internal"]


def test_a_command_that_never_comes_to_its_end_is_given_up(served: tuple[Bench, Path]) -> None:
    request = b"POST /offsite/v1/command HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    with connected(served[1], request) as connection:
        assert answered(connection, b"timeout: ")


def test_an_import_that_falls_silent_is_given_up_and_leaves_nothing(served: tuple[Bench, Path]) -> None:
    bench, path = served
    request = (
        b"POST /offsite/v1/import?name=X&pool=A&size=1048576 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    )
    with connected(path, request + frames.head(0, 4096) + b"x" * 4096) as connection:
        assert answered(connection, b"timeout: the import received no data")
    assert internal(bench) == bench.names("show volumes") == []


def test_an_import_that_drips_in_is_given_up(served: tuple[Bench, Path]) -> None:
    """A byte now and then did put off the deadline, and held one of the few places for imports."""
    bench, path = served
    request = (
        b"POST /offsite/v1/import?name=X&pool=A&size=1048576 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    )
    with connected(path, request + frames.head(0, 4096)) as connection, pytest.raises(OSError):
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.1)
    assert internal(bench) == bench.names("show volumes") == []


def test_an_export_that_nobody_takes_is_given_up_and_leaves_nothing(served: tuple[Bench, Path]) -> None:
    bench, path = served
    bench.do("create volume pool A size 16MiB Sales")
    bench.write("Sales", 0, os.urandom(16 * MIB))
    with connected(path, b"GET /offsite/v1/export?name=Sales HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        deadline = time.monotonic() + 20
        while internal(bench):
            assert time.monotonic() < deadline, "the snapshot that was exported is still there"
            time.sleep(0.05)


def test_only_so_many_are_moved_at_once(
    served: tuple[Bench, Path], monkeypatch: pytest.MonkeyPatch, short_directory: Path
) -> None:
    bench, _ = served
    monkeypatch.setattr(api_transfer, "TRANSFERS_MAX", 1)
    monkeypatch.setattr(api_transfer, "SILENCE_SECONDS", 20.0)
    path = short_directory / "second.sock"
    application = api.local_application(bench.system)
    server = HttpServer([Listener(control_socket.listen(path), control(), application)])
    server.start(10)
    request = (
        b"POST /offsite/v1/import?name=X&pool=A&size=1048576 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    )
    with connected(path, request):
        deadline = time.monotonic() + 20
        while not internal(bench):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with connected(path, b"GET /offsite/v1/export?name=X HTTP/1.1\r\nHost: x\r\n\r\n") as second:
            assert answered(second, b"which is the maximum")
    server.stop(10)
    assert internal(bench) == []


async def knows_nobody(_request: Request) -> User:
    return User("eve", Role.MONITOR)


def test_a_user_with_too_many_connections_is_refused_with_503() -> None:
    """Who has logged in is counted by name; no user takes all places."""
    admission = Admission("to the API", lambda: 1, ignore, SystemClock())
    application = FastAPI()
    api.add_error_handlers(application)

    @application.get("/")
    async def home(request: Request) -> str:
        return (await api._settled(knows_nobody)(request)).name

    async def ask(place: Place) -> int:
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], PLACE: place}
        told = []

        async def send(message: Any) -> None:
            told.append(message)

        await application(scope, None, send)  # type: ignore[arg-type]
        return int(told[0]["status"])

    first, second = (admission.arrive("192.0.2.1", lambda: None) for _ in range(2))
    assert asyncio.run(ask(first)) == 200
    assert asyncio.run(ask(second)) == 503
    first.leave()
    assert asyncio.run(ask(second)) == 200
