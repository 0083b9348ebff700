"""How connections begin: deadlines, other users, and defects, on a server in this process."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI

from offsite import admission as admission_module
from offsite.access.certificates import Authority
from offsite.admission import LOCAL, Admission
from offsite.clock import SystemClock
from offsite.errors import NoPlace, OffsiteError, StateDirectoryError
from offsite.events import ignore
from offsite.interfaces import control_socket
from offsite.interfaces.http import protocols
from offsite.interfaces.http.protocols import (
    CONNECTIONS_MAX,
    HttpProtocol,
    control,
    peer_uid,
    places_of_api,
    places_of_control,
    tls,
)
from offsite.interfaces.http.server import HttpServer, Listener

Serve = Callable[..., HttpServer]
NOBODY = 65534


async def hello(scope: Any, _receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers = []

    def start(listener: socket.socket, protocol: Any, application: Any = hello) -> HttpServer:
        server = HttpServer([Listener(listener, protocol, application)])
        servers.append(server)
        server.start(10)
        return server

    yield start
    for server in servers:
        server.stop(10)


def get(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        with control_socket.short(path) as reachable:
            connection.connect(reachable)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        found = b""
        while more := connection.recv(1000):
            found += more
        return found


def test_a_connection_that_asks_nothing_is_closed_in_time(
    serve: Serve, short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "HEADERS_SECONDS", 0.2)
    path = short_directory / "socket"
    with structlog.testing.capture_logs() as lines:
        serve(control_socket.listen(path), HttpProtocol)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(path))
            connection.sendall(b"GET / HT")
            assert connection.recv(10) == b""
        assert get(path).endswith(b"hello")
    assert [line["event"] for line in lines] == ["connection closed: timeout: received no request"]


@pytest.fixture
def tls_context(tmp_path: Path) -> ssl.SSLContext:
    authority = Authority(tmp_path / "keys", "London", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate_path, authority.key_path)
    return context


def places(known_max: int = 32, **bounds: Any) -> Admission:
    return Admission("to the API", lambda: known_max, ignore, SystemClock(), **bounds)


def connected(address: Any) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(address, 10))


def is_ended(connection: socket.socket) -> bool:
    """Whether the server ends it, whatever it says before. Waits for it."""
    try:
        while connection.recv(1000):
            pass
    except OSError as error:
        return not isinstance(error, TimeoutError)
    return True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_handshakes_that_are_never_finished_are_bounded_in_number_and_time(
    serve: Serve, tls_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_module, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(protocols, "HANDSHAKE_SECONDS", 1.0)
    listener = socket.create_server(("127.0.0.1", 0))
    address, admission = listener.getsockname(), places(strangers_of_network_max=2)
    with structlog.testing.capture_logs() as lines, ExitStack() as stalled:
        serve(listener, tls(tls_context, admission))
        connections = [stalled.enter_context(socket.create_connection(address, 10)) for _ in range(3)]
        assert all(is_ended(each) for each in reversed(connections))
        until(lambda: admission.counts() == (0, 0))
        with connected(address) as good:
            good.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert good.recv(1000).startswith(b"HTTP/1.1 200")
    events = [line["event"] for line in lines]
    assert events.count("connection refused") == 1
    assert events.count("connection closed: the TLS handshake failed") == 2


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"])
def test_a_hundred_half_requests_close_nothing(
    serve: Serve, tls_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    """The first request of a connection, or its second; from four addresses, and from that of who means well."""
    monkeypatch.setattr(admission_module, "PATIENCE_SECONDS", 0.0)
    listener = socket.create_server(("127.0.0.1", 0))
    address, admission = listener.getsockname(), places()
    serve(listener, tls(tls_context, admission))
    with ExitStack() as stalled:
        for number in range(101):
            source = (f"127.0.0.{1 + number % 5}", 0)
            raw = stalled.enter_context(socket.create_connection(address, 10, source))
            if begun:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                stalled.enter_context(context.wrap_socket(raw)).sendall(begun)
        for _ in range(3):
            with connected(address) as good:
                good.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert good.recv(1000).startswith(b"HTTP/1.1 200")
        assert admission.counts()[0] <= 5 * 16


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["first", "second"])
@pytest.mark.parametrize("transport", ["unix", "tls"])
def test_a_header_that_drips_in_is_cut_off_at_the_deadline(
    serve: Serve,
    short_directory: Path,
    tls_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    first: bytes,
    transport: str,
) -> None:
    """Of every request of a connection: the deadline began anew with each byte, or there was none."""
    monkeypatch.setattr(protocols, "HEADERS_SECONDS", 1.0)
    if transport == "unix":
        serve(control_socket.listen(short_directory / "socket"), control())
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(short_directory / "socket"))
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        serve(listener, tls(tls_context))
        connection = connected(listener.getsockname())
    with connection:
        connection.settimeout(10)
        if first:
            connection.sendall(first)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        with pytest.raises(OSError):
            for _ in range(200):
                connection.sendall(b"x")
                time.sleep(0.1)


def test_headers_that_are_too_long_are_refused(serve: Serve, short_directory: Path) -> None:
    path = short_directory / "socket"
    serve(control_socket.listen(path), control())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
        assert is_ended(connection)


async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


def test_a_refusal_ends_the_connection(serve: Serve, short_directory: Path) -> None:
    path = short_directory / "socket"
    serve(control_socket.listen(path), control(), refuse)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = connection.recv(1000)
        assert b"connection: close" in answer.lower()
        assert is_ended(connection)


async def talk(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1000):
        await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def test_an_answer_that_nobody_takes_ends_the_connection(
    serve: Serve, short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "SEND_SECONDS", 0.3)
    path, admission = short_directory / "socket", places()
    with structlog.testing.capture_logs() as lines:
        serve(control_socket.listen(path), control(admission), talk)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: admission.counts() == (0, 1))
            until(lambda: admission.counts() == (0, 0))
    assert [line["event"] for line in lines] == [
        "connection closed: timeout: the client did not accept the answer within 0.3 s"
    ]


def test_a_control_socket_that_is_full_says_so(serve: Serve, short_directory: Path) -> None:
    path, admission = short_directory / "socket", places(known_max=2)
    serve(control_socket.listen(path), control(admission))
    with ExitStack() as idle:
        connection = idle.enter_context(socket.socket(socket.AF_UNIX))
        connection.connect(str(path))
        until(lambda: admission.counts() == (0, 1))
        found = get(path)
        assert found.startswith(b"HTTP/1.1 503")
        assert b"Connection: close" in found
    until(lambda: admission.counts() == (0, 0))
    assert get(path).endswith(b"hello")


@pytest.mark.root
def test_a_process_of_another_user_is_refused_even_when_the_file_lets_it(serve: Serve) -> None:
    with tempfile.TemporaryDirectory() as directory, structlog.testing.capture_logs() as lines:
        path = Path(directory) / "socket"
        serve(control_socket.listen(path), control())
        path.chmod(0o666)
        path.parent.chmod(0o711)
        assert get(path).endswith(b"hello")
        child = subprocess.run([sys.executable, "-c", CONNECT, str(path)], capture_output=True, timeout=60, check=False)
        assert child.stdout == b"connected\n", child.stderr
        deadline = time.monotonic() + 10
        while not lines:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert (lines[0]["event"], lines[0]["uid"]) == ("refused a process of another user on the control socket", NOBODY)


CONNECT = """
import os, socket, sys
os.setuid(65534)  # only now: that user need not be able to read this Python
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(10)
    connection.connect(sys.argv[1])
    print("connected", flush=True)
    connection.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    print(connection.recv(1000))
"""


def test_the_kernel_names_who_connected() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert peer_uid(ours) == os.geteuid()


def test_a_socket_that_a_killed_process_left_is_replaced(short_directory: Path) -> None:
    path = short_directory / "socket"
    control_socket.listen(path).close()
    assert path.exists()
    listener = control_socket.listen(path)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
    listener.close()


def test_a_path_that_is_too_long_for_a_socket_is_reached_all_the_same(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / ("d" * 120) / "control.sock"
    path.parent.mkdir()
    serve(control_socket.listen(path), control())
    assert get(path).endswith(b"hello")


def test_a_socket_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises((StateDirectoryError, OSError), match=r"No such file|cannot be made"):
        control_socket.listen(tmp_path / "absent" / "control.sock")


def test_a_server_that_cannot_start_says_so(short_directory: Path) -> None:
    listener = control_socket.listen(short_directory / "socket")
    listener.close()
    server = HttpServer([Listener(listener, HttpProtocol, hello)])
    with pytest.raises(OffsiteError, match="did not start"):
        server.start(10)


def test_a_defect_is_answered_without_its_details(serve: Serve, short_directory: Path) -> None:
    from offsite.interfaces.http.api import add_error_handlers

    application = FastAPI()
    add_error_handlers(application)

    @application.get("/")
    def broken() -> None:
        raise ZeroDivisionError("a secret detail")

    path = short_directory / "socket"
    serve(control_socket.listen(path), HttpProtocol, application)
    found = get(path)
    assert found.startswith(b"HTTP/1.1 500")
    assert b"ZeroDivisionError" in found
    assert b"a secret detail" not in found


def test_as_many_connections_to_the_api_and_the_control_socket_may_be_as_is_documented() -> None:
    clock = SystemClock()
    per_user = CONNECTIONS_MAX // 16
    for admission, holders in (
        (places_of_control(ignore, clock), [LOCAL] * CONNECTIONS_MAX),
        (places_of_api(ignore, clock), [f"user {number // per_user}" for number in range(CONNECTIONS_MAX)]),
    ):
        for holder in holders:
            admission.arrive(holder, lambda: None).settle(holder)
        with pytest.raises(NoPlace, match="is reached"):
            admission.arrive("late", lambda: None).settle("late")
