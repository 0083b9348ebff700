"""The codec of the transmission phase: bytes to requests, and the replies to them. It does no I/O.

Sections "Request message", "Simple reply message" and "Structured reply chunk message" of the NBD protocol.
All this is in the innermost loop of the server. So a request is a bare tuple; and magic, flags and type, which
lie side by side, are taken as one number, whose value for a plain read and a plain write is known beforehand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache

from offsite.errors import ProtocolError
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd import sentences

Request = tuple[int, int, int, int]
"""Head, cookie, offset, length. `Head` is magic (32 bits), flags (16) and type (16). The cookie is the client's,
and comes back in the reply. The payload of a write lies between its header and the next request."""

_REQUEST = struct.Struct(">QQQI")
REQUEST_BYTES = _REQUEST.size
PLAIN_READ = nbd.REQUEST_MAGIC << 32 | nbd.CMD_READ
PLAIN_WRITE = nbd.REQUEST_MAGIC << 32 | nbd.CMD_WRITE
_TYPE_AND_MAGIC = 0xFFFFFFFF_0000FFFF

SIMPLE_REPLY = struct.Struct(">QQ")
"""Takes SIMPLE_HEAD or'ed with the error, and the cookie. The data of a read follow."""
SIMPLE_REPLY_BYTES = SIMPLE_REPLY.size
SIMPLE_HEAD = nbd.SIMPLE_REPLY_MAGIC << 32

DATA_CHUNK = struct.Struct(">QQIQ")
"""Takes DATA_HEAD, perhaps or'ed with DONE, the cookie, the length of the data + 8, the offset."""
DATA_CHUNK_BYTES = DATA_CHUNK.size
DATA_HEAD = nbd.STRUCTURED_REPLY_MAGIC << 32 | nbd.REPLY_TYPE_OFFSET_DATA
DONE = nbd.REPLY_FLAG_DONE << 16

_CHUNK = struct.Struct(">IHHQI")


class OversizedRequest(ProtocolError):
    """A write with more payload than is taken: it is refused, and then the connection closed."""

    def __init__(self, cookie: int, length: int) -> None:
        super().__init__(f"a write of {length} bytes; at most {nbd.PAYLOAD_BYTES_MAX} are taken")
        self.cookie = cookie


def scan(buffer: memoryview, start: int, end: int) -> tuple[list[Request], int]:
    """All complete requests in buffer[start:end], and where the first incomplete one begins.

    Raises ProtocolError for bytes that are no request, once all requests before them have been returned.
    """
    requests: list[Request] = []
    while end - start >= REQUEST_BYTES:
        request: Request = _REQUEST.unpack_from(buffer, start)
        head, cookie, _, length = request
        stride = REQUEST_BYTES
        if head & _TYPE_AND_MAGIC == PLAIN_WRITE:
            stride += length
            if length > nbd.PAYLOAD_BYTES_MAX:
                if requests:
                    break
                raise OversizedRequest(cookie, length)
            if stride > end - start:
                break
        elif head >> 32 != nbd.REQUEST_MAGIC:
            if requests:
                break
            raise ProtocolError(f"a request begins with {head >> 32:#010x}, not with the magic number")
        requests.append(request)
        start += stride
        if start < end and (end - start) % stride == 0:
            start = _take_alike(buffer, start, end, request, stride, requests)
    return requests, start


def _take_alike(buffer: memoryview, start: int, end: int, first: Request, stride: int, requests: list[Request]) -> int:
    """Requests mostly come in rows of a kind and length: a whole row is unpacked in half the time of its
    members. Appends those that are like `first`; returns where the first other one begins."""
    head, _, _, length = first
    is_write = head & _TYPE_AND_MAGIC == PLAIN_WRITE  # whose length tells where the next request begins
    row = _request_with_payload(stride - REQUEST_BYTES).iter_unpack(buffer[start:end])
    for request in row:
        if request[0] != head or (is_write and request[3] != length):
            break
        requests.append(request)
        start += stride
    return start


@lru_cache(64)
def _request_with_payload(payload_bytes: int) -> struct.Struct:
    return struct.Struct(f"{_REQUEST.format}{payload_bytes}x")


def partial_write(buffer: memoryview, start: int, end: int) -> Request | None:
    """The write whose header is complete at `start` and whose payload is not; None if there is none."""
    return None if end - start < REQUEST_BYTES else _REQUEST.unpack_from(buffer, start)


def command(head: int) -> tuple[int, int]:
    """Type and flags of a request."""
    return head & 0xFFFF, head >> 16 & 0xFFFF


def simple_reply(cookie: int, error: int = 0) -> bytes:
    return SIMPLE_REPLY.pack(SIMPLE_HEAD | error, cookie)


def done_chunk(cookie: int) -> bytes:
    """NBD_REPLY_TYPE_NONE: the end of a structured reply."""
    return _CHUNK.pack(nbd.STRUCTURED_REPLY_MAGIC, nbd.REPLY_FLAG_DONE, nbd.REPLY_TYPE_NONE, cookie, 0)


def error_chunk(cookie: int, error: int, sentence: str) -> bytes:
    """NBD_REPLY_TYPE_ERROR as the last chunk of a structured reply."""
    message = sentences.encode(sentence)
    payload = struct.pack(">IH", error, len(message)) + message
    return _final_chunk(nbd.REPLY_TYPE_ERROR, cookie, payload)


def block_status_chunk(cookie: int, context_id: int, extents: Iterable[tuple[int, int]]) -> bytes:
    """NBD_REPLY_TYPE_BLOCK_STATUS as the last chunk. `extents` are pairs of length in bytes and state flags."""
    descriptors = b"".join(struct.pack(">II", length, state) for length, state in extents)
    return _final_chunk(nbd.REPLY_TYPE_BLOCK_STATUS, cookie, struct.pack(">I", context_id) + descriptors)


def _final_chunk(kind: int, cookie: int, payload: bytes) -> bytes:
    magic, flags = nbd.STRUCTURED_REPLY_MAGIC, nbd.REPLY_FLAG_DONE
    return _CHUNK.pack(magic, flags, kind, cookie, len(payload)) + payload
