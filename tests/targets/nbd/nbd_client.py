"""A bare NBD client, which sends what a test tells it to, also what no decent client would."""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass, field
from pathlib import Path

from offsite.targets.nbd import constants as nbd

SECONDS = 10.0  # every wait's deadline

Address = tuple[str, int] | Path


@dataclass
class Reply:
    """What came back for one request, put together from its chunks."""

    error: int = 0
    sentence: str = ""
    pieces: dict[int, bytes] = field(default_factory=dict)  # data by offset
    extents: list[tuple[int, int]] = field(default_factory=list)  # (length, state)

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces[offset] for offset in sorted(self.pieces))


class RawClient:
    def __init__(self, address: Address, source: str = "") -> None:
        if isinstance(address, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(SECONDS)
            self.socket.connect(str(address))
        else:
            self.socket = socket.create_connection(address, SECONDS, (source, 0) if source else None)
        self.structured = False
        self.size_bytes = 0
        self.flags = 0
        self._cookie = 0
        self._asked: dict[int, int] = {}  # length of the read of a cookie

    def close(self) -> None:
        self.socket.close()

    # -- handshake

    def greet(self, flags: int = 3) -> None:
        assert self.take(18) == b"NBDMAGICIHAVEOPT\0\x03"
        self.socket.sendall(flags.to_bytes(4, "big"))

    def option(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Sends an option; returns kind and data of its replies, up to the last."""
        self.socket.sendall(struct.pack(">QII", nbd.OPTION_MAGIC, number, len(data)) + data)
        replies = []
        while True:
            magic, answered, kind, length = struct.unpack(">QIII", self.take(20))
            assert (magic, answered) == (nbd.OPTION_REPLY_MAGIC, number)
            replies.append((kind, self.take(length)))
            if kind == nbd.REP_ACK or kind >> 31:
                return replies

    def go(self, name: str, *, structured: bool = True, contexts: bool = False) -> None:
        """From the greeting into the transmission phase of export `name`."""
        self.greet()
        self.haggle(name, structured=structured, contexts=contexts)

    def haggle(self, name: str, *, structured: bool = True, contexts: bool = False) -> None:
        encoded = name.encode()
        counted = struct.pack(">I", len(encoded)) + encoded
        if structured:
            assert self.option(nbd.OPT_STRUCTURED_REPLY) == [(nbd.REP_ACK, b"")]
            self.structured = True
        if contexts:
            query = struct.pack(">II", 1, 15) + b"base:allocation"
            assert self.option(nbd.OPT_SET_META_CONTEXT, counted + query)[0][0] == nbd.REP_META_CONTEXT
        *infos, (last, sentence) = self.option(nbd.OPT_GO, counted + b"\0\0")
        if last != nbd.REP_ACK:
            raise ConnectionRefusedError(sentence.decode())
        _, self.size_bytes, self.flags = struct.unpack(">HQH", infos[0][1])

    # -- transmission

    def ask(self, kind: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0) -> int:
        """Sends a request; returns its cookie."""
        self._cookie += 1
        if kind == nbd.CMD_READ:
            self._asked[self._cookie] = length
        length = len(data) if data else length
        self.socket.sendall(struct.pack(">IHHQQI", nbd.REQUEST_MAGIC, flags, kind, self._cookie, offset, length) + data)
        return self._cookie

    def replies(self, *cookies: int) -> dict[int, Reply]:
        """Waits for the whole replies to all of `cookies`; there must be no others."""
        replies = {cookie: Reply() for cookie in cookies}
        waiting = set(cookies)
        while waiting:
            cookie = self._take_chunk(replies)
            if cookie is not None:
                waiting.remove(cookie)
        return replies

    def run(self, kind: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0) -> Reply:
        cookie = self.ask(kind, offset, length, data, flags)
        return self.replies(cookie)[cookie]

    def read(self, offset: int, length: int) -> bytes:
        reply = self.run(nbd.CMD_READ, offset, length)
        assert reply.error == 0, reply.sentence
        return reply.data

    def write(self, offset: int, data: bytes, flags: int = 0) -> None:
        reply = self.run(nbd.CMD_WRITE, offset, data=data, flags=flags)
        assert reply.error == 0, reply.sentence

    def is_closed(self) -> bool:
        """Whether the server closes the connection, sending nothing more. Waits for it."""
        try:
            return self.socket.recv(1) == b""
        except (ConnectionResetError, ssl.SSLError):
            return True

    def take(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            received = self.socket.recv_into(view)
            if not received:
                raise ConnectionResetError(f"the server closed {len(view)} bytes too early")
            view = view[received:]
        return bytes(data)

    def _take_chunk(self, replies: dict[int, Reply]) -> int | None:
        """Reads one message; returns its cookie when that reply is complete."""
        (magic,) = struct.unpack(">I", self.take(4))
        if magic == nbd.SIMPLE_REPLY_MAGIC:
            error, cookie = struct.unpack(">IQ", self.take(12))
            reply = replies[cookie]
            reply.error = error
            if not error and cookie in self._asked:
                assert not self.structured, "a simple reply to a read, with structured replies agreed on"
                reply.pieces[0] = self.take(self._asked[cookie])
            return int(cookie)
        assert magic == nbd.STRUCTURED_REPLY_MAGIC
        assert self.structured
        flags, kind, cookie, length = struct.unpack(">HHQI", self.take(16))
        self._take_payload(replies[cookie], kind, self.take(length))
        return int(cookie) if flags & nbd.REPLY_FLAG_DONE else None

    def _take_payload(self, reply: Reply, kind: int, payload: bytes) -> None:
        if kind == nbd.REPLY_TYPE_OFFSET_DATA:
            (offset,) = struct.unpack_from(">Q", payload)
            assert len(payload) > 8
            reply.pieces[offset] = payload[8:]
        elif kind == nbd.REPLY_TYPE_BLOCK_STATUS:
            reply.extents += list(struct.iter_unpack(">II", payload[4:]))
        elif kind == nbd.REPLY_TYPE_ERROR:
            reply.error, size = struct.unpack_from(">IH", payload)
            assert len(payload) == 6 + size
            reply.sentence = payload[6:].decode()
        else:
            assert kind == nbd.REPLY_TYPE_NONE
            assert not payload
