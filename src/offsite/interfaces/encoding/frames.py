"""How the content of an image travels when it is imported or exported: pieces, each with its offset. No I/O.

    piece:  offset u64 ‖ length u32 ‖ data        little endian; length 1 to 1 MiB; offsets rise
    end:    size of the image u64 ‖ 0 u32         without it, the transfer was cut

What no piece covers is zero.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from offsite.errors import ProtocolError

PIECE_BYTES_MAX = 1 << 20
_HEAD = struct.Struct("<QI")


def head(offset: int, length: int) -> bytes:
    return _HEAD.pack(offset, length)


def end(size_bytes: int) -> bytes:
    return _HEAD.pack(size_bytes, 0)


class Decoder:
    """Bytes in, pieces out. Never holds more than one piece and what came in with it."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._waiting = bytearray()
        self._next_offset = 0
        self.complete = False

    def feed(self, data: bytes) -> Iterator[tuple[int, memoryview]]:
        """(offset, data) of the pieces that `data` completes; each is good until the next is asked for.

        Raises ProtocolError for what is not such a stream.
        """
        self._waiting += data
        taken = 0
        try:
            while len(self._waiting) - taken >= _HEAD.size:
                if self.complete:
                    raise ProtocolError("the transfer continues after its end")
                offset, length = _HEAD.unpack_from(self._waiting, taken)
                self._check(offset, length)
                start = taken + _HEAD.size
                if len(self._waiting) < start + length:
                    break
                if length:
                    with memoryview(self._waiting) as view, view[start : start + length] as piece:
                        yield offset, piece
                taken = start + length
                self._next_offset = offset + length
                self.complete = length == 0
        finally:
            del self._waiting[:taken]
        if self.complete and self._waiting:
            raise ProtocolError("the transfer continues after its end")

    def _check(self, offset: int, length: int) -> None:
        if length > PIECE_BYTES_MAX:
            raise ProtocolError(f"a piece of {length} bytes is longer than {PIECE_BYTES_MAX}")
        if length and not self._next_offset <= offset <= self._size_bytes - length:
            raise ProtocolError(
                f"a piece of {length} bytes at {offset} is outside {self._next_offset} to {self._size_bytes}"
            )
        if not length and offset != self._size_bytes:
            raise ProtocolError(f"the transfer ends at {offset}, but the image has {self._size_bytes} bytes")
