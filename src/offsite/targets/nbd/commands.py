"""Requests other than plain short reads and writes: each is checked as the specification asks, and carried out.

Long ones go through in pieces, with a `begin` and an `end` of the image for each, so that a snapshot has to
wait for one piece at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from offsite.errors import OffsiteError
from offsite.pools.protocol import OpenImage
from offsite.targets.common.background import Background
from offsite.targets.common.counters import Activity
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd import requests as codec
from offsite.targets.nbd.errors import error_number
from offsite.targets.nbd.negotiation import Negotiated
from offsite.targets.nbd.replies import BUFFER_BYTES, Replies
from offsite.targets.nbd.requests import Request

READ_PIECE_BYTES = 1 << 20
DISCARD_PIECE_BYTES = 64 << 20
ALLOCATE_PIECE_BYTES = 4 << 20
EXTENTS_MAX = 2048  # in one answer; the client asks on from where it ends

_WRITING = (nbd.CMD_WRITE, nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES)
_FLAGS = {
    nbd.CMD_READ: nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_DF,
    nbd.CMD_WRITE: nbd.CMD_FLAG_FUA,
    nbd.CMD_FLUSH: nbd.CMD_FLAG_FUA,
    nbd.CMD_TRIM: nbd.CMD_FLAG_FUA,
    nbd.CMD_CACHE: nbd.CMD_FLAG_FUA,
    nbd.CMD_WRITE_ZEROES: nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO,
    nbd.CMD_BLOCK_STATUS: nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_REQ_ONE,
}


class RequestRefused(Exception):
    """A request that is answered with an error of NBD; the connection goes on."""

    def __init__(self, error: int, sentence: str) -> None:
        super().__init__(sentence)
        self.error = error


class Commands:
    """What one connection's requests do. Only for its thread."""

    def __init__(
        self, image: OpenImage, outcome: Negotiated, replies: Replies, background: Background, activity: Activity
    ) -> None:
        self._image = image
        self._export = outcome.export
        self._allocation_id = outcome.allocation_id
        self._replies = replies
        self._background = background
        self._activity = activity

    def size(self) -> int:
        """Bytes that a request may reach: what the client was told, unless the image has shrunk since."""
        return min(self._image.size_bytes, self._export.size_bytes)

    def run(self, request: Request, payload: memoryview) -> None:
        """Carries out any request but NBD_CMD_DISC, and puts its reply or leaves that to the background."""
        head, cookie, offset, length = request
        kind, flags = codec.command(head)
        try:
            self.check(request)
            if kind == nbd.CMD_READ:
                self._read(cookie, offset, length, flags)
            elif kind == nbd.CMD_FLUSH:
                self._background.flush(self._export, cookie)
            elif kind == nbd.CMD_CACHE:
                self._background.warm(self._export, cookie, offset, length)
            elif kind == nbd.CMD_BLOCK_STATUS:
                self._block_status(cookie, offset, length, flags)
            else:
                if kind == nbd.CMD_WRITE:
                    self.write(offset, payload)
                    self.acknowledge_written(cookie, flags, length)
                    return
                if kind == nbd.CMD_TRIM:
                    self._discard(offset, length)
                else:
                    self._write_zeroes(offset, length, flags)
                self.acknowledge_written(cookie, flags)
        except RequestRefused as refusal:
            self._replies.put_error(cookie, refusal.error, str(refusal))
        except (OffsiteError, OSError) as error:
            self._replies.put_error(cookie, error_number(error), str(error))

    def check(self, request: Request) -> None:
        """Section "Error values". Raises Refused."""
        head, _, offset, length = request
        kind, flags = codec.command(head)
        allowed = _FLAGS.get(kind)
        if allowed is None:
            raise RequestRefused(nbd.EINVAL, f"unknown command {kind}")
        if flags & ~allowed or (flags & nbd.CMD_FLAG_DF and not self._replies.structured):
            raise RequestRefused(nbd.EINVAL, f"command {kind} does not allow the flags {flags:#x}")
        if kind in _WRITING and self._export.read_only:
            raise RequestRefused(nbd.EPERM, f"{self._export.name!r} is mapped read-only")
        if kind == nbd.CMD_FLUSH:
            return
        size = self.size()
        if offset + length > size:
            error = nbd.ENOSPC if kind in (nbd.CMD_WRITE, nbd.CMD_WRITE_ZEROES) else nbd.EINVAL
            raise RequestRefused(error, f"{length} bytes at {offset} exceed the size of {size} bytes")
        if kind in (nbd.CMD_READ, nbd.CMD_CACHE) and length > nbd.PAYLOAD_BYTES_MAX:
            raise RequestRefused(
                nbd.EINVAL, f"{length} bytes exceed the maximum of {nbd.PAYLOAD_BYTES_MAX} in one request"
            )

    # -- reading ---------------------------------------------------------------------------------------------

    def _read(self, cookie: int, offset: int, length: int, flags: int) -> None:
        if length == 0:
            self._replies.put_nothing_read(cookie)
        elif self._replies.structured and not flags & nbd.CMD_FLAG_DF:
            self._read_in_pieces(cookie, offset, length)
        else:
            self._read_whole(cookie, offset, length)

    def _read_in_pieces(self, cookie: int, offset: int, length: int) -> None:
        """Each piece is a chunk of the structured reply, and leaves as soon as it is there."""
        replies, end, header_bytes, activity = self._replies, offset + length, codec.DATA_CHUNK_BYTES, self._activity
        while offset < end:
            piece = min(READ_PIECE_BYTES, end - offset)
            room = replies.room(header_bytes + piece)
            if not self._read_nowait(offset, room[header_bytes : header_bytes + piece]):
                self._background.read(self._export, cookie, offset, end - offset, header_bytes)
                return
            head = codec.DATA_HEAD | (codec.DONE if offset + piece == end else 0)
            codec.DATA_CHUNK.pack_into(room, 0, head, cookie, piece + 8, offset)
            replies.add(header_bytes + piece)
            replies.send()
            offset += piece
            activity.read_bytes += piece
        activity.batch_reads += 1

    def _read_whole(self, cookie: int, offset: int, length: int) -> None:
        """Without structured replies, or when they must not be fragmented, nothing may be sent before all of
        the data are there: a later part might fail."""
        replies = self._replies
        header_bytes = replies.header_bytes
        size = header_bytes + length
        if size > BUFFER_BYTES:
            # Also when it need not wait: it needs memory.
            self._background.read(self._export, cookie, offset, length, header_bytes)
            return
        room = replies.room(size)
        if not self._read_nowait(offset, room[header_bytes:size]):
            self._background.read(self._export, cookie, offset, length, header_bytes)
            return
        replies.write_read_header(room, cookie, offset, length)
        replies.add(size)
        self._activity.batch_reads += 1
        self._activity.read_bytes += length

    def _read_nowait(self, offset: int, buffer: memoryview) -> bool:
        self._image.begin()
        try:
            return self._image.read_nowait(offset, buffer)
        finally:
            self._image.end()

    def _block_status(self, cookie: int, offset: int, length: int, flags: int) -> None:
        if self._allocation_id is None or length == 0:
            why = "of nothing" if length == 0 else f"without the context {nbd.BASE_ALLOCATION}"
            raise RequestRefused(nbd.EINVAL, f"block status {why}")
        most = 1 if flags & nbd.CMD_FLAG_REQ_ONE else EXTENTS_MAX
        self._image.begin()
        try:
            found = list(islice(self._image.extents(offset, length), most))
        finally:
            self._image.end()
        hole = nbd.STATE_HOLE | nbd.STATE_ZERO
        extents = [(piece, 0 if has_data else hole) for piece, has_data in found]
        self._replies.put(codec.block_status_chunk(cookie, self._allocation_id, extents))

    # -- writing ---------------------------------------------------------------------------------------------

    def write(self, offset: int, data: memoryview) -> None:
        self._image.begin()
        try:
            self._image.write(offset, data)
        finally:
            self._image.end()

    def acknowledge_written(self, cookie: int, flags: int, written_bytes: int = 0) -> None:
        """`written_bytes` are those of a write: discards and zeroes count as none."""
        if flags & nbd.CMD_FLAG_FUA:
            self._background.flush(self._export, cookie, written_bytes)
            return
        self._replies.put_success(cookie)
        if written_bytes:
            self._activity.batch_writes += 1
            self._activity.written_bytes += written_bytes

    def _discard(self, offset: int, length: int) -> None:
        for at, piece in _pieces(offset, length, DISCARD_PIECE_BYTES):
            self._image.begin()
            try:
                self._image.discard(at, piece)
            finally:
                self._image.end()

    def _write_zeroes(self, offset: int, length: int, flags: int) -> None:
        allocate = bool(flags & nbd.CMD_FLAG_NO_HOLE)
        if flags & nbd.CMD_FLAG_FAST_ZERO and (allocate or not self._has_whole_page(offset, length)):
            raise RequestRefused(nbd.ENOTSUP, "zeroes are no faster than a write here")
        for at, piece in _pieces(offset, length, ALLOCATE_PIECE_BYTES if allocate else DISCARD_PIECE_BYTES):
            self._image.begin()
            try:
                self._image.write_zeroes(at, piece, allocate=allocate)
            finally:
                self._image.end()

    def _has_whole_page(self, offset: int, length: int) -> bool:
        unit_bytes = self._image.allocation_bytes
        return (offset + unit_bytes - 1) // unit_bytes < (offset + length) // unit_bytes


def _pieces(offset: int, length: int, piece_bytes: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of pieces that end at multiples of `piece_bytes`."""
    end = offset + length
    while offset < end:
        stop = min(end, offset - offset % piece_bytes + piece_bytes)
        yield offset, stop - offset
        offset = stop
