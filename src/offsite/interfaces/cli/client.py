"""The command line's end of the HTTP interface: over the control socket, or over TLS to another machine.

Only the standard library's HTTP, because a command should be done before a larger one has been loaded.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode, urlsplit

from offsite.errors import BadParameter, ErrorClass, OffsiteError, ProtocolError
from offsite.interfaces import control_socket
from offsite.interfaces.cli.defaults import API_PORT
from offsite.interfaces.cli.known_systems import Trust
from offsite.interfaces.encoding.reply_json import decode, decode_answer
from offsite.management.command_table.reply import Question, Reply
from offsite.return_codes import ReturnCode

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 3600.0  # a digest of a large volume takes its time
KEEPALIVE_SECONDS = 30  # a system that is gone is noticed after some of these
_ANSWER_BYTES_MAX = 64 << 20

T = TypeVar("T")


class Unreachable(OffsiteError):
    """No system answers at the address."""

    code = ReturnCode.UNREACHABLE
    error_class = ErrorClass.TRANSIENT


class Refused(OffsiteError):
    """The system refused the command, in its own words."""

    def __init__(self, text: str, code: int, *, usage: bool) -> None:
        super().__init__(text)
        self.code = code
        self.usage = usage


class Client:
    """One system, as a command line speaks to it. Each call is a connection of its own."""

    def __init__(self, connection: _Connector, headers: Mapping[str, str]) -> None:
        """`headers` go with each call, until `log_in`."""
        self._connector = connection
        self._credentials = dict(headers)
        self._headers = self._credentials

    def command(self, words: Sequence[str], secrets: Mapping[str, str], *, asks: bool) -> Reply | Question:
        """Raises Refused, Unreachable, or CertificateChanged."""
        body = json.dumps({"words": list(words), "secrets": dict(secrets), "asks": asks}).encode()

        def ask() -> dict[str, Any]:
            return self._exchange("POST", "/offsite/v1/command", body, {"Content-Type": "application/json"})

        return self._decoded(self._logged_in(ask), decode_answer)

    def log_in(self) -> None:
        """From now on the key of a session goes with each call, instead of a password that is slow to check."""
        self._headers = self._credentials
        answer = self._exchange("POST", "/offsite/v1/login", b"", {})
        self._headers = {"sessionKey": str(answer.get("key", ""))}

    def log_out(self) -> None:
        self._exchange("POST", "/offsite/v1/logout", b"", {})

    def send(self, path: str, query: Mapping[str, str], body: Iterable[bytes]) -> Reply:
        """Posts a body of unknown length."""
        return self._decoded(self._exchange("POST", _with_query(path, query), body, {}), decode)

    def receive(self, path: str, query: Mapping[str, str]) -> http.client.HTTPResponse:
        """A response whose body the caller reads."""

        def ask() -> http.client.HTTPResponse:
            response = self._request("GET", _with_query(path, query), None, {})
            if response.status != 200:
                self._raise(response)
            return response

        return self._logged_in(ask)

    def _logged_in(self, ask: Callable[[], T]) -> T:
        """What `ask` returns; after another login when the session has ended, for then nothing was done. Once: what
        is refused again is refused."""
        try:
            return ask()
        except Refused as error:
            if error.code != ReturnCode.SESSION_EXPIRED or self._headers is self._credentials:
                raise
            self.log_in()
            return ask()

    def _decoded(self, answer: dict[str, Any], how: Callable[[Mapping[str, Any]], T]) -> T:
        try:
            return how(answer)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ProtocolError(f"{self._connector.place} sent an answer that is not Offsite's: {error}") from error

    def _exchange(
        self, method: str, path: str, body: bytes | Iterable[bytes], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        response = self._request(method, path, body, headers)
        if response.status != 200:
            self._raise(response)
        return self._json(response)

    def _request(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        connection = self._connector.connect()
        try:
            connection.request(method, path, body, {**self._headers, **headers})
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before the whole body was sent: the answer says why
        except OSError as error:
            raise Unreachable(f"{self._connector.place} closed the connection: {error}") from error
        try:
            return connection.getresponse()
        except OSError as error:
            raise Unreachable(f"{self._connector.place} did not answer: {_reason(error, ANSWER_SECONDS)}") from error
        except http.client.HTTPException as error:
            raise ProtocolError(f"{self._connector.place} does not speak HTTP") from error

    def _json(self, response: http.client.HTTPResponse) -> dict[str, Any]:
        try:
            answer = json.loads(response.read(_ANSWER_BYTES_MAX))
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the connection to {self._connector.place} was interrupted: {error}") from error
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"{self._connector.place} is not an Offsite system") from error
        if not isinstance(answer, dict):
            raise ProtocolError(f"{self._connector.place} is not an Offsite system")
        return answer

    def _raise(self, response: http.client.HTTPResponse) -> None:
        error = self._json(response).get("error")
        if not isinstance(error, dict):
            raise ProtocolError(f"{self._connector.place} is not an Offsite system: HTTP {response.status}")
        code = error.get("code")
        code = code if isinstance(code, int) else ReturnCode.OFFSITE_ERROR
        raise Refused(str(error.get("text", "")), code, usage=error.get("usage") is True)


class _Connector(Protocol):
    """How to reach a system."""

    place: str

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is open. Raises Unreachable."""
        ...


def _reason(error: OSError, waited_seconds: float) -> str:
    """Why a connection failed; of a time-out of ours also how long it was."""
    if isinstance(error, TimeoutError) and not error.strerror:
        return f"timeout after {waited_seconds:g} s"
    return error.strerror or str(error)


class _Local:
    def __init__(self, state_directory: Path) -> None:
        self.place = f"the system of {state_directory}"
        self._path = state_directory / control_socket.NAME

    def connect(self) -> http.client.HTTPConnection:
        channel = socket.socket(socket.AF_UNIX)
        channel.settimeout(CONNECT_SECONDS)
        try:
            with control_socket.short(self._path) as path:
                channel.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            channel.close()
            raise Unreachable(
                f"no system is running in {self._path.parent}; start it with `offsite serve {self._path.parent}`"
            ) from error
        except OSError as error:
            channel.close()
            raise Unreachable(f"{self._path} cannot be reached: {_reason(error, CONNECT_SECONDS)}") from error
        channel.settimeout(ANSWER_SECONDS)
        connection = http.client.HTTPConnection("localhost")
        connection.sock = channel
        return connection


class _Remote:
    def __init__(self, host: str, port: int, trust: Trust) -> None:
        self.place = f"{host}:{port}"
        self._address = (host, port)
        self._trust = trust

    def connect(self) -> http.client.HTTPConnection:
        secure, was_asked = self._trusted()
        if was_asked:  # meanwhile the system has given up waiting; what was said yes to is written down now
            secure.close()
            secure, _ = self._trusted()
        secure.settimeout(ANSWER_SECONDS)
        connection = http.client.HTTPConnection(*self._address)
        connection.sock = secure
        return connection

    def _trusted(self) -> tuple[ssl.SSLSocket, bool]:
        """A connection to the system that is meant, and whether somebody was asked about it."""
        secure = self._shake_hands()
        try:
            was_asked = self._trust.check(self.place, secure.getpeercert(binary_form=True) or b"")
        except BaseException:
            secure.close()
            raise
        return secure, was_asked

    def _shake_hands(self) -> ssl.SSLSocket:
        try:
            channel = socket.create_connection(self._address, CONNECT_SECONDS)
        except OSError as error:
            raise Unreachable(f"no system answers at {self.place}: {_reason(error, CONNECT_SECONDS)}") from error
        except UnicodeError as error:  # of a name that DNS cannot have, as one with a part of 64 letters
            raise Unreachable(f"invalid host name {self.place}: {error}") from error
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
        try:
            return self._trust.context().wrap_socket(channel, server_hostname=self._address[0])
        except ssl.SSLCertVerificationError as error:
            channel.close()
            raise self._trust.refusal(self.place, error) from error
        except OSError as error:
            channel.close()
            raise Unreachable(f"{self.place} does not speak TLS: {error}") from error


def local(state_directory: Path) -> Client:
    """The system whose state directory this is, running on this machine."""
    return Client(_Local(state_directory), {})


def remote(host: str, port: int, user: str, password: str, trust: Trust) -> Client:
    try:
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    except UnicodeEncodeError as error:
        raise BadParameter("the user name or the password is not valid UTF-8") from error
    return Client(_Remote(host, port, trust), {"Authorization": f"Basic {credentials}"})


def _with_query(path: str, query: Mapping[str, str]) -> str:
    try:
        return f"{path}?{urlencode(query)}"
    except UnicodeEncodeError as error:
        raise BadParameter(f"{error.object!r} is not valid UTF-8") from error


def parse_system(url: str) -> tuple[str, str, int]:
    """User, host and port of https://USER@HOST[:PORT]."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # as with a bracket that is not closed
        raise BadParameter(f"invalid URL {url!r}: {error}") from error
    try:
        port = parts.port or API_PORT
    except ValueError as error:
        raise BadParameter(f"invalid URL {url!r}: the port must be 1 to 65535") from error
    if parts.password is not None:
        raise BadParameter(
            "--system must not contain a password, which other users of this machine could see; leave it out to be "
            "asked for it, or set OFFSITE_PASSWORD"
        )
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise BadParameter(f"{url!r} is not of the form https://USER@HOST or https://USER@HOST:PORT")
    return parts.username or "manage", parts.hostname, port
