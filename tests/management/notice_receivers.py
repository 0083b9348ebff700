"""Real servers that notices are sent to: a web hook, and one for mail."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECONDS = 10


class WebHook:
    """What came, and with which status it is answered."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.status = 200
        self.port = 0


@contextmanager
def web_hook() -> Iterator[WebHook]:
    hook = WebHook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.received.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join(SECONDS)
        server.server_close()


class MailServer:
    """As much of RFC 5321 as a client needs, with AUTH PLAIN (RFC 4954)."""

    def __init__(self) -> None:
        self.received: list[EmailMessage] = []
        self.logins: list[tuple[str, str]] = []
        self.recipients: list[str] = []
        self.port = 0
        self.loop = asyncio.new_event_loop()

    async def serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._over = asyncio.Event()
        started.set()
        async with server:
            await self._over.wait()

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self._over.set)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())

        say("220 mail.example")
        while line := (await reader.readline()).decode().strip():
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    say("250-mail.example")
                    say("250 AUTH PLAIN")
                case "AUTH":
                    _, user, password = base64.b64decode(rest.split()[1]).decode().split("\0")
                    self.logins.append((user, password))
                    say("235 welcome")
                case "RCPT":
                    self.recipients.append(rest.partition("<")[2].partition(">")[0])
                    say("250 ok")
                case "DATA":
                    say("354 go on")
                    content = await reader.readuntil(b"\r\n.\r\n")
                    message = email.message_from_bytes(content[:-3], policy=email.policy.default)
                    assert isinstance(message, EmailMessage)
                    self.received.append(message)
                    say("250 taken")
                case "QUIT":
                    say("221 bye")
                    break
                case _:
                    say("250 ok")
        writer.close()


@contextmanager
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    started = threading.Event()
    thread = threading.Thread(target=lambda: server.loop.run_until_complete(server.serve(started)))
    thread.start()
    assert started.wait(SECONDS)
    try:
        yield server
    finally:
        server.end()
        thread.join(SECONDS)
        server.loop.close()
