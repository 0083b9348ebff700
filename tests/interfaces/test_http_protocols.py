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

from offsite.access.certificates import Authority
from offsite.errors import OffsiteError, StateDirectoryError
from offsite.interfaces import control_socket, http_protocols
from offsite.interfaces.http_protocols import ControlProtocol, HttpProtocol, peer_uid, tls
from offsite.interfaces.http_server import HttpServer, Listener

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
    monkeypatch.setattr(http_protocols, "FIRST_REQUEST_SECONDS", 0.2)
    path = short_directory / "socket"
    with structlog.testing.capture_logs() as lines:
        serve(control_socket.listen(path), HttpProtocol)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(path))
            connection.sendall(b"GET / HT")
            assert connection.recv(10) == b""
        assert get(path).endswith(b"hello")
    assert [line["event"] for line in lines] == ["connection closed: no request came"]


def test_handshakes_that_are_never_finished_are_bounded_in_number_and_time(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocols, "HANDSHAKES_MAX", 2)
    monkeypatch.setattr(http_protocols, "HANDSHAKE_SECONDS", 1.0)
    authority = Authority(tmp_path / "keys", "London", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate_path, authority.key_path)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    with structlog.testing.capture_logs() as lines, ExitStack() as stalled:
        serve(listener, tls(context))
        connections = [stalled.enter_context(socket.create_connection(address, 10)) for _ in range(3)]
        for connection in reversed(connections):
            try:
                assert connection.recv(10) == b""
            except ConnectionResetError:
                continue
        with (
            socket.create_connection(address, 10) as plain,
            ssl.create_default_context(cafile=authority.ca_path).wrap_socket(
                plain, server_hostname="127.0.0.1"
            ) as good,
        ):
            good.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert good.recv(1000).startswith(b"HTTP/1.1 200")
    events = [line["event"] for line in lines]
    assert events.count("connection closed: too many TLS handshakes at once") == 1
    assert events.count("connection closed: no TLS") == 2


@pytest.mark.root
def test_a_process_of_another_user_is_refused_even_when_the_file_lets_it(serve: Serve) -> None:
    with tempfile.TemporaryDirectory() as directory, structlog.testing.capture_logs() as lines:
        path = Path(directory) / "socket"
        serve(control_socket.listen(path), ControlProtocol)
        path.chmod(0o666)
        path.parent.chmod(0o711)
        assert get(path).endswith(b"hello")
        child = subprocess.run([sys.executable, "-c", CONNECT, str(path)], capture_output=True, timeout=60, check=False)
        assert child.stdout == b"connected\n", child.stderr
        deadline = time.monotonic() + 10
        while not lines:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert (lines[0]["event"], lines[0]["uid"]) == ("control socket: a process of another user was refused", NOBODY)


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
    serve(control_socket.listen(path), ControlProtocol)
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
    from offsite.interfaces.api import add_error_handlers

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
