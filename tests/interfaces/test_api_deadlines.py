"""Clients of the HTTP interface that stall: each costs nobody anything for longer than its deadline."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.interfaces import api, api_transfer, control_socket, frames
from offsite.interfaces.http_protocols import ControlProtocol
from offsite.interfaces.http_server import HttpServer, Listener
from offsite.units import MIB
from tests.management.management_bench import Bench, bench_in


@pytest.fixture
def served(tmp_path: Path, short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bench, Path]]:
    """A system whose deadlines are short, and its control socket."""
    monkeypatch.setattr(api, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(api_transfer, "SILENCE_SECONDS", 0.3)
    path = short_directory / "control.sock"
    with bench_in(tmp_path / "London", "London") as bench:
        application = api.local_application(bench.system)
        server = HttpServer([Listener(control_socket.listen(path), ControlProtocol, application)])
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
        assert answered(connection, b"did not come within")


def test_an_import_that_falls_silent_is_given_up_and_leaves_nothing(served: tuple[Bench, Path]) -> None:
    bench, path = served
    request = (
        b"POST /offsite/v1/import?name=X&pool=A&size=1048576 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    )
    with connected(path, request + frames.head(0, 4096) + b"x" * 4096) as connection:
        assert answered(connection, b"silent")
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
    server = HttpServer([Listener(control_socket.listen(path), ControlProtocol, application)])
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
            assert answered(second, b"no more may")
    server.stop(10)
    assert internal(bench) == []
