"""The command line's end of HTTP, against a server in this process: what it makes of what a system does."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from offsite.access.certificates import Authority
from offsite.admission import Admission
from offsite.clock import SystemClock
from offsite.errors import BadParameter, ProtocolError
from offsite.events import ignore
from offsite.interfaces.cli import client as clients
from offsite.interfaces.cli import image_files
from offsite.interfaces.cli.known_systems import TrustKnown
from offsite.interfaces.cli.options import CommandLine
from offsite.interfaces.http import protocols
from offsite.interfaces.http.protocols import tls
from offsite.interfaces.http.server import HttpServer, Listener
from offsite.management.accounts.sessions import SessionExpired
from offsite.management.command_table.reply import Reply
from tests.interfaces.live_system import quickly

DONE = {"message": "Done.", "objects": []}


class Server:
    """Answers commands and logins; `answers` are used up first, each with its status."""

    def __init__(self, directory: Path) -> None:
        authority = Authority(directory / "keys", "London", ["127.0.0.1"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.certificate_path, authority.key_path)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self.admission = Admission("to the API", lambda: 32, ignore, SystemClock())
        self.known_systems = directory / "known_systems"
        self.asked: list[tuple[str, str]] = []  # path, and how it was logged in
        self.answers: list[tuple[int, Any]] = []
        self.headers: list[tuple[bytes, bytes]] = []

        async def application(scope: Any, _receive: Any, send: Any) -> None:
            await self._answer(scope, send)

        self._http = HttpServer([Listener(listener, tls(context, self.admission), application)])
        self._http.start(10)

    def client(self, asks: Callable[[str], bool] = lambda _: True) -> clients.Client:
        return clients.remote("127.0.0.1", self.port, "manage", "secret", TrustKnown(self.known_systems, asks=asks))

    def stop(self) -> None:
        self._http.stop(10)

    async def _answer(self, scope: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        self.asked.append((scope["path"].rpartition("/")[2], "key" if b"sessionkey" in headers else "password"))
        default = {"key": "key"} if scope["path"].endswith("login") else DONE
        status, answer = self.answers.pop(0) if self.answers else (200, default)
        await send({"type": "http.response.start", "status": status, "headers": self.headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.stop()


def test_who_takes_long_to_compare_the_fingerprint_gets_in_all_the_same(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system closes a connection on which nothing comes."""
    monkeypatch.setattr(protocols, "HEADERS_SECONDS", 0.1)
    questions: list[str] = []

    def asks(question: str) -> bool:
        questions.append(question)
        deadline = time.monotonic() + 20
        while server.admission.counts() != (0, 0):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        monkeypatch.undo()
        return True

    client = server.client(asks)
    client.log_in()
    assert client.command(["show", "pools"], {}, asks=False) == Reply("Done.")
    assert len(questions) == 1


ENDED = (401, {"error": {"text": "Invalid sessionkey", "code": SessionExpired.code}})


def test_a_session_that_has_ended_is_followed_by_another(server: Server) -> None:
    """As in a `replicate --wait` of more than twelve hours."""
    client = server.client()
    client.log_in()
    server.answers = [ENDED]
    assert client.command(["show", "pools"], {}, asks=False) == Reply("Done.")
    assert client.command(["show", "pools"], {}, asks=False) == Reply("Done.")
    server.answers = [ENDED]
    assert client.receive("/offsite/v1/export", {"name": "x"}).read()
    first, again = ("command", "key"), ("login", "password")
    export = ("export", "key")
    assert server.asked == [again, first, again, first, first, export, again, export]


@pytest.mark.parametrize(
    ("answers", "code", "asked"),
    [
        ([ENDED, (200, {"key": "k"}), ENDED], SessionExpired.code, ["login", "command", "login", "command"]),
        ([ENDED, (401, {"error": {"text": "wrong", "code": 2}})], 2, ["login", "command", "login"]),
        ([(400, {"error": {"text": "no", "code": -1}})], -1, ["login", "command"]),
    ],
)
def test_it_logs_in_once_more_and_not_again_and_again(
    server: Server, answers: list[tuple[int, Any]], code: int, asked: list[str]
) -> None:
    client = server.client()
    client.log_in()
    server.answers = answers
    with pytest.raises(clients.Refused) as refusal:
        client.command(["show", "pools"], {}, asks=False)
    assert refusal.value.code == code
    assert [path for path, _ in server.asked] == asked


@pytest.mark.parametrize("command", ["replicate Sales", "create initiator-certificate web1"])
def test_an_answer_without_what_is_needed_is_no_defect_of_the_command_line(
    server: Server, tmp_path: Path, command: str
) -> None:
    type = {"basetype": command.split()[-2], "name": "x", "record": False, "joined": False}
    objects = [type | {"properties": [["id", "", "text", False]], "rows": [[["tls:web1"], []]]}]
    server.client().log_in()
    server.answers = [(200, {"key": "k"}), (200, {"message": "Done.", "objects": objects})]
    variables = {"OFFSITE_PASSWORD": "secret", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    (tmp_path / "config" / "offsite").mkdir(parents=True)
    server.known_systems.rename(tmp_path / "config" / "offsite" / "known_systems")
    system = f"https://127.0.0.1:{server.port}"
    done = quickly("--system", system, *command.split(), environment=variables, cwd=tmp_path)
    if command.startswith("replicate"):
        assert done.returncode == 0, done.stderr
    else:
        assert (done.returncode, "did not send all of it" in done.stderr) == (1, True), done.stderr
        assert not (tmp_path / "web1").exists()


def test_a_password_or_a_name_that_is_not_utf_8_is_refused_in_words(server: Server) -> None:
    with pytest.raises(BadParameter, match="the password is not valid UTF-8"):
        clients.remote("127.0.0.1", server.port, "manage", "p\udcff", TrustKnown(server.known_systems))
    with pytest.raises(BadParameter, match="is not valid UTF-8"):
        server.client().receive("/offsite/v1/export", {"name": "x\udcff"})
    assert server.asked == []


@pytest.mark.parametrize("size", ["9999999999999999999", "9223372036854775808", "-1", "", "x"])
def test_an_image_of_an_impossible_size_is_refused_in_words(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    monkeypatch.setattr(server, "headers", [(b"size-bytes", size.encode()), (b"data-bytes", b"0")])
    with pytest.raises(ProtocolError, match="sent an invalid size of the image"):
        image_files.export_image(server.client(), CommandLine(("export", "x", str(tmp_path / "x.img")), {}))
    assert not (tmp_path / "x.img").exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [(TimeoutError("timed out"), "timeout after 10 s"), (OSError(113, "No route to host"), "No route to host")],
)
def test_a_time_out_says_how_long_it_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:
    def fail(*_: object) -> socket.socket:
        raise error

    monkeypatch.setattr("socket.create_connection", fail)
    client = clients.remote("london", 8443, "manage", "secret", TrustKnown(tmp_path / "known_systems"))
    with pytest.raises(clients.Unreachable, match=f"no system answers at london:8443: {told}"):
        client.command(["show", "pools"], {}, asks=False)
