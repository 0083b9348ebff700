"""Batches of requests, and a model of the reply stream that checks each byte and length of it."""

from __future__ import annotations

import random
import select
import ssl
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from offsite.targets.nbd import constants as nbd
from tests.targets.nbd.nbd_client import SECONDS, RawClient

FUA, DF = nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_DF


@dataclass
class Asked:
    """A request, and what has come back for it."""

    kind: int
    offset: int = 0
    length: int = 0
    flags: int = 0
    payload: bytes = b""
    error: int = 0  # that it has to be answered with
    pieces: list[tuple[int, bytes]] = field(default_factory=list)

    def encode(self, cookie: int) -> bytes:
        head = (nbd.REQUEST_MAGIC, self.flags, self.kind, cookie, self.offset, self.length)
        return struct.pack(">IHHQQI", *head) + self.payload


class ReplyStream:
    """What may come back for requests on `content`. Raises AssertionError for the first byte that may not."""

    def __init__(self, asked: Sequence[Asked], content: bytes, *, structured: bool) -> None:
        self.outstanding = dict(enumerate(asked, 1))
        self._content = content
        self._structured = structured
        self._received = bytearray()
        self._answered: list[Asked] = []

    def feed(self, data: bytes) -> None:
        self._received += data
        while self.outstanding and (size := self._take()):
            del self._received[:size]
        assert self.outstanding or not self._received, f"{len(self._received)} bytes too many"

    def _take(self) -> int:
        """Takes one message off the stream; returns its length, 0 while it is not all there."""
        received = self._received
        if len(received) < 20 and not (len(received) >= 16 and received[:4] == b"\x67\x44\x66\x98"):
            return 0
        (magic,) = struct.unpack_from(">I", received)
        if magic == nbd.SIMPLE_REPLY_MAGIC:
            error, cookie = struct.unpack_from(">IQ", received, 4)
            return self._simple(error, cookie)
        assert magic == nbd.STRUCTURED_REPLY_MAGIC, f"{magic:#x} where a reply has to begin"
        assert self._structured
        flags, kind, cookie, length = struct.unpack_from(">HHQI", received, 4)
        assert length <= nbd.PAYLOAD_BYTES_MAX + 8
        if len(received) < 20 + length:
            return 0
        self._chunk(cookie, flags, kind, bytes(received[20 : 20 + length]))
        return 20 + int(length)

    def _simple(self, error: int, cookie: int) -> int:
        asked = self.outstanding[cookie]
        assert error == asked.error, asked
        size = 16
        if self._structured:
            assert asked.kind not in (nbd.CMD_READ, nbd.CMD_BLOCK_STATUS)
        elif asked.kind == nbd.CMD_READ and not error:
            size += asked.length
            if len(self._received) < size:
                return 0
            self._compare(asked, asked.offset, bytes(self._received[16:size]))
        del self.outstanding[cookie]
        return size

    def _chunk(self, cookie: int, flags: int, kind: int, payload: bytes) -> None:
        asked = self.outstanding[cookie]
        done = flags == nbd.REPLY_FLAG_DONE
        assert done or flags == 0
        if kind == nbd.REPLY_TYPE_OFFSET_DATA:
            assert asked.kind == nbd.CMD_READ
            (offset,) = struct.unpack_from(">Q", payload)
            self._compare(asked, offset, payload[8:])
        elif kind == nbd.REPLY_TYPE_BLOCK_STATUS:
            assert asked.kind == nbd.CMD_BLOCK_STATUS
            assert done
            lengths = [length for length, _ in struct.iter_unpack(">II", payload[4:])]
            assert lengths
            assert all(lengths)
            assert sum(lengths) <= asked.length
        elif kind == nbd.REPLY_TYPE_ERROR:
            error, size = struct.unpack_from(">IH", payload)
            assert (error, 6 + size) == (asked.error, len(payload)), asked
        else:
            assert (kind, payload, done, asked.length) == (nbd.REPLY_TYPE_NONE, b"", True, 0)
        if done:
            del self.outstanding[cookie]
            if asked.kind == nbd.CMD_READ and not asked.error:
                self._check_pieces(asked)

    def _check_pieces(self, asked: Asked) -> None:
        at = asked.offset
        for offset, data in sorted(asked.pieces):
            assert offset == at, "pieces that leave a gap, or overlap"
            at += len(data)
        assert at == asked.offset + asked.length
        assert not asked.flags & DF or len(asked.pieces) == bool(asked.length)

    def _compare(self, asked: Asked, offset: int, data: bytes) -> None:
        assert data or not self._structured
        assert data == self._content[offset : offset + len(data)], f"other bytes than there are at {offset}"
        asked.pieces.append((offset, data))


def exchange(client: RawClient, asked: Sequence[Asked], content: bytes, cuts: Iterable[int] = ()) -> None:
    """Sends all requests, in one piece or cut at the offsets `cuts`, and checks all that comes back."""
    stream = ReplyStream(asked, content, structured=client.structured)
    data = memoryview(b"".join(each.encode(cookie) for cookie, each in stream.outstanding.items()))
    bounds = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    pieces = [data[start:stop] for start, stop in pairwise(bounds) if start < stop]
    waits = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
    connection = client.socket
    connection.setblocking(False)
    while pieces or stream.outstanding:
        moved = False
        try:
            received = connection.recv(1 << 20)
            assert received, f"the server closed with {len(stream.outstanding)} requests unanswered"
            stream.feed(received)
            moved = True
        except waits:
            pass
        try:
            if pieces:
                sent = connection.send(pieces[0])
                pieces[:1] = [pieces[0][sent:]] if sent < len(pieces[0]) else []
                moved = True
        except waits:
            pass
        if not moved:
            ready = select.select([connection], [connection] if pieces else [], [], SECONDS)
            assert any(ready), f"{len(stream.outstanding)} requests are not answered"
    connection.settimeout(SECONDS)


def random_batch(
    choice: random.Random, read_bytes: int, size_bytes: int, sizes: Sequence[int], *, structured: bool
) -> list[Asked]:
    """Requests of every command. Reads stay below `read_bytes`, what changes the volume above, where no two overlap:
    their order would not be known. `sizes` are lengths worth trying."""
    batch: list[Asked] = []
    free_from = read_bytes
    for _ in range(choice.randrange(1, 24)):
        length = max(0, choice.choice(sizes) + choice.randrange(-64, 65) * choice.choice([0, 0, 1]))
        offset = choice.randrange(max(1, read_bytes - length))
        fua = FUA if choice.random() < 0.1 else 0
        kind = choice.choices(range(10), weights=[12, 6, 1, 0, 2, 1, 2, 2, 1, 1])[0]
        if kind == nbd.CMD_READ:
            flags = DF if structured and choice.random() < 0.3 else 0
            batch.append(Asked(kind, offset, min(length, read_bytes - offset), flags | fua))
        elif kind in (nbd.CMD_WRITE, nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES):
            length = min(length, 3 << 20, size_bytes - free_from)
            payload = choice.randbytes(length) if kind == nbd.CMD_WRITE else b""
            batch.append(Asked(kind, free_from, length, fua, payload))
            free_from += length
        elif kind == nbd.CMD_FLUSH:
            batch.append(Asked(kind, flags=fua))
        elif kind == nbd.CMD_CACHE:
            batch.append(Asked(kind, offset, min(length, read_bytes - offset), fua))
        elif kind == nbd.CMD_BLOCK_STATUS:
            length = min(length, read_bytes - offset)
            batch.append(Asked(kind, offset, length, error=0 if length and structured else nbd.EINVAL))
        elif kind == 8:  # beyond the end
            batch.append(Asked(nbd.CMD_READ, size_bytes - 1, max(2, length), error=nbd.EINVAL))
        else:
            batch.append(Asked(choice.randrange(8, 1 << 16), offset, length, error=nbd.EINVAL))
    return batch


def after(content: bytes, batch: Sequence[Asked]) -> bytes:
    """What a volume holds once `batch` was carried out."""
    changed = bytearray(content)
    for each in batch:
        if each.kind in (nbd.CMD_WRITE, nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES) and not each.error:
            changed[each.offset : each.offset + each.length] = each.payload or bytes(each.length)
    return bytes(changed)
