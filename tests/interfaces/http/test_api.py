"""The API port and the control socket of a real system: who gets in, and what bad clients get."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from offsite.interfaces.encoding import frames
from tests.interfaces.live_system import PASSWORD, LiveSystem

COMMAND, LOGIN, LOGOUT = "/offsite/v1/command", "/offsite/v1/login", "/offsite/v1/logout"


def unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def post(
    live: LiveSystem, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPSConnection(live.host, live.api_port, context=unchecked(), timeout=30)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, content, dict(headers or {}))
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


@pytest.fixture(scope="module")
def key(live: LiveSystem) -> str:
    status, answer = post(live, LOGIN, None, basic("manage", PASSWORD))
    assert (status, answer["role"]) == (200, "manage")
    return str(answer["key"])


def test_a_command_needs_a_login(live: LiveSystem, key: str) -> None:
    words = {"words": ["show", "pools"]}
    for headers in ({}, {"sessionKey": "0" * 32}, {"Authorization": "Bearer x"}, {"Authorization": "Basic !"}):
        status, answer = post(live, COMMAND, words, headers)
        assert status == 401, headers
        assert answer["error"]["text"]
    for headers in ({"sessionKey": key}, basic("manage", PASSWORD)):
        status, answer = post(live, COMMAND, words, headers)
        assert (status, answer["objects"][0]["basetype"]) == (200, "pools")


def test_a_wrong_password_is_refused_and_told_as_an_event_without_it(live: LiveSystem, key: str) -> None:
    status, answer = post(live, LOGIN, None, basic("manage", "a wrong guess"))
    assert (status, answer["error"]["code"]) == (401, 2)
    live.wait_for_log("A login as 'manage' from 127.0.0.1 failed.")
    assert "a wrong guess" not in live.logged()
    assert PASSWORD not in live.logged()
    assert key not in live.logged()


def test_guesses_made_at_the_same_time_do_not_pass_the_limit_together(live: LiveSystem) -> None:
    assert post(live, LOGIN, None, basic("manage", PASSWORD))[0] == 200
    with ThreadPoolExecutor(8) as threads:  # more of them were refused by the port: so many strangers are not let in
        guesses = [threads.submit(post, live, LOGIN, None, basic("nobody", f"guess {n}")) for n in range(18)]
        codes = [each.result()[1]["error"]["code"] for each in guesses]
    assert 1 <= codes.count(2) <= 5, codes
    assert codes.count(2) + codes.count(-20061) == 18
    assert post(live, LOGIN, None, basic("manage", PASSWORD))[0] == 200, "who is known here gets in"


CHANGES = ("set password berta", "set user roles monitor berta", "delete user prompt yes berta")


@pytest.fixture
def berta(live: LiveSystem) -> Iterator[dict[str, str]]:
    """Her headers. Whatever a test does to her, she is gone after it."""
    live.do("create", "user", "roles", "manage", "berta", environment={"OFFSITE_NEW_PASSWORD": "berta's own"})
    _, answer = post(live, LOGIN, None, basic("berta", "berta's own"))
    yield {"sessionKey": str(answer["key"])}
    live.offsite("delete", "user", "berta", "prompt", "yes")


@pytest.mark.parametrize("line", CHANGES)
def test_every_route_is_closed_to_a_session_whose_user_was_changed(
    live: LiveSystem, berta: dict[str, str], line: str
) -> None:
    assert post(live, COMMAND, {"words": ["show", "pools"]}, berta)[0] == 200
    live.do(*line.split(), environment={"OFFSITE_NEW_PASSWORD": "another one"})
    for path in (COMMAND, "/offsite/v1/import?name=x&pool=A&size=4096"):
        status, answer = post(live, path, {"words": ["show", "pools"]}, berta)
        assert (status, answer["error"]["code"]) == (401, -10027), path
    for path in ("/offsite/v1/export?name=x", "/metrics"):
        connection = http.client.HTTPSConnection(live.host, live.api_port, context=unchecked(), timeout=30)
        connection.request("GET", path, headers=berta)
        assert connection.getresponse().status == 401, path
        connection.close()


@pytest.mark.parametrize("line", CHANGES)
def test_an_import_under_way_ends_when_its_user_is_changed(live: LiveSystem, berta: dict[str, str], line: str) -> None:
    size_bytes = 1 << 20
    connection = http.client.HTTPSConnection(live.host, live.api_port, context=unchecked(), timeout=60)
    connection.putrequest("POST", f"/offsite/v1/import?name=taken&pool=A&size={size_bytes}")
    for name, value in {**berta, "Transfer-Encoding": "chunked"}.items():
        connection.putheader(name, value)
    connection.endheaders()

    def send(data: bytes) -> None:
        connection.send(b"%x\r\n%s\r\n" % (len(data), data))

    send(frames.head(0, 4096) + bytes(4096))
    live.do(*line.split(), environment={"OFFSITE_NEW_PASSWORD": "another one"})
    send(frames.end(size_bytes))
    connection.send(b"0\r\n\r\n")
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert (response.status, answer["error"]["code"]) in ((401, -20060), (401, -10027))
    assert "taken" not in live.do("show", "volumes")


def test_after_logout_the_key_is_worth_nothing(live: LiveSystem) -> None:
    _, answer = post(live, LOGIN, None, basic("manage", PASSWORD))
    headers = {"sessionKey": answer["key"]}
    assert post(live, LOGOUT, None, headers)[0] == 200
    status, answer = post(live, COMMAND, {"words": ["show", "pools"]}, headers)
    assert (status, answer["error"]["code"]) == (401, -10027)


def test_who_monitors_is_refused_what_changes_things(live: LiveSystem) -> None:
    live.do("create", "user", "otto", environment={"OFFSITE_NEW_PASSWORD": PASSWORD})
    headers = basic("otto", PASSWORD)
    assert post(live, COMMAND, {"words": ["show", "pools"]}, headers)[0] == 200
    status, answer = post(live, COMMAND, {"words": ["delete", "pools", "A"]}, headers)
    assert (status, answer["error"]["class"]) == (400, "operator must act")
    assert "role manage" in answer["error"]["text"]
    status, answer = post(live, "/offsite/v1/import?name=x&pool=A&size=65536", frames.end(65536), headers)
    assert (status, "role manage" in answer["error"]["text"]) == (400, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"words": "show pools"}',
        b'{"words": [1]}',
        b'{"words": [], "other": 1}',
        b'{"words": ["show", "pools"], "secrets": {"a": 1}}',
        b'{"words": ["' + b"x" * (1 << 20) + b'"]}',
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_command_is_refused(live: LiveSystem, key: str, body: bytes) -> None:
    status, answer = post(live, COMMAND, body, {"sessionKey": key})
    assert (status, answer["error"]["code"]) == (400, -20013)


def test_a_refusal_says_whether_it_is_wrong_usage(live: LiveSystem, key: str) -> None:
    for words, usage in ((["creat"], True), (["delete", "volumes", "Nope"], False)):
        status, answer = post(live, COMMAND, {"words": words}, {"sessionKey": key})
        assert (status, answer["error"]["usage"]) == (400, usage)


def test_who_can_answer_gets_the_question(live: LiveSystem, key: str) -> None:
    live.do("create", "volume", "pool", "A", "size", "1MiB", "Asked")
    words = {"words": ["delete", "volumes", "Asked"], "asks": True}
    status, answer = post(live, COMMAND, words, {"sessionKey": key})
    assert status == 200
    assert answer["question"]["text"].startswith("Delete Asked")
    status, answer = post(live, COMMAND, words | {"asks": False}, {"sessionKey": key})
    assert answer["message"] == "Volume Asked deleted."


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", os.urandom(300), b"\x16\x03\x01" + bytes(50), b"NBDMAGIC"]
)
def test_garbage_in_place_of_tls_ends_that_connection_with_one_line(live: LiveSystem, garbage: bytes) -> None:
    before = len(live.logged())
    with socket.create_connection((live.host, live.api_port), 20) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1000):
            pass
    found = live.wait_for_log("connection closed: the TLS handshake failed", before)
    assert found.count("\n") == 1, found


def test_garbage_in_place_of_http_ends_that_connection_with_one_line(live: LiveSystem) -> None:
    before = len(live.logged())
    with (
        socket.create_connection((live.host, live.api_port), 20) as plain,
        unchecked().wrap_socket(plain) as connection,
    ):
        connection.sendall(b"\0garbage\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    found = live.wait_for_log("Invalid HTTP request", before)
    assert found.count("\n") == 1, found


def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(live: LiveSystem) -> None:
    """A client need not wait for anything after its own Finished (RFC 8446 section 2)."""
    with (
        socket.create_connection((live.host, live.api_port), 20) as plain,
        unchecked().wrap_socket(plain) as connection,
    ):
        connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 404")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_api_speaks_no_tls_older_than_1_2(live: LiveSystem) -> None:
    context = unchecked()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection((live.host, live.api_port), 20) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain)


def test_an_import_that_is_cut_leaves_nothing(live: LiveSystem) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(live.state / "control.sock"))
        body = frames.head(0, 1 << 20) + bytes(1 << 19)
        connection.sendall(
            b"POST /offsite/v1/import?name=Cut&pool=A&size=1048576 HTTP/1.1\r\nHost: x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + f"{len(body):x}\r\n".encode() + body
        )
        time.sleep(0.2)
    deadline = time.monotonic() + 10
    while live.offsite("create", "volume", "pool", "A", "size", "1MiB", "Cut").returncode:
        assert time.monotonic() < deadline
    live.do("delete", "volumes", "Cut")


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("name=x&pool=A&size=lots", "'lots' is not a number of bytes"),
        ("name=x&pool=A&size=1", "1 bytes"),
        ("name=a,b&pool=A&size=65536", "','"),
        ("name=x&pool=Z&size=65536", "'Z'"),
        ("pool=A&size=65536", "volume name ''"),
    ],
)
def test_a_bad_import_is_refused(live: LiveSystem, key: str, query: str, rule: str) -> None:
    status, answer = post(live, f"/offsite/v1/import?{query}", frames.end(65536), {"sessionKey": key})
    assert status == 400
    assert rule in answer["error"]["text"]


@pytest.mark.parametrize("body", [b"", frames.end(1), os.urandom(500), frames.head(0, 100) + b"x"])
def test_an_import_that_is_no_transfer_is_refused_and_leaves_nothing(live: LiveSystem, key: str, body: bytes) -> None:
    status, answer = post(live, "/offsite/v1/import?name=Bad&pool=A&size=65536", body, {"sessionKey": key})
    assert (status, answer["error"]["code"]) == (400, -20013)
    assert live.offsite("show", "volumes", "Bad").returncode == 1


def test_an_export_of_nothing_is_refused(live: LiveSystem, key: str) -> None:
    connection = http.client.HTTPSConnection(live.host, live.api_port, context=unchecked(), timeout=30)
    connection.request("GET", "/offsite/v1/export?name=Nope", headers={"sessionKey": key})
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (400, -10075)


def test_an_export_that_nobody_reads_any_more_ends(live: LiveSystem) -> None:
    live.do("create", "volume", "pool", "A", "size", "64MiB", "access", "rw", "initiator", "nbd:unix", "Gone")
    image = live.directory / "full.raw"
    image.write_bytes(os.urandom(48 << 20))
    live.do("import", "Large", str(image))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(live.state / "control.sock"))
        connection.sendall(b"GET /offsite/v1/export?name=Large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
    live.do("delete", "volumes", "Large,Gone")
    deadline = time.monotonic() + 20
    while int(live.json("show", "pools", "A")["pools"][0]["allocated-size-numeric"]) > 16 << 20:
        assert time.monotonic() < deadline, "the snapshot that was exported still holds its pages"
        time.sleep(0.2)


def test_the_control_socket_is_for_its_owner(live: LiveSystem) -> None:
    assert stat.S_IMODE((live.state / "control.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(live.state.stat().st_mode) == 0o700


def test_the_control_socket_survives_garbage(live: LiveSystem) -> None:
    before = len(live.logged())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(live.state / "control.sock"))
        connection.sendall(os.urandom(200) + b"\r\n\r\n")
        while connection.recv(1000):
            pass
    assert live.wait_for_log("Invalid HTTP request", before).count("\n") == 1
    assert live.offsite("show", "pools").returncode == 0
