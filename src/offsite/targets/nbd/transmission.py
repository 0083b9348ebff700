"""The transmission phase of one connection: requests are carried out and answered.

All requests that one `receive` brought are taken together. Plain reads and writes run one after another
between one `begin` and one `end` of the image, reads straight into the buffer of replies, writes straight out
of the buffer that they were received in; then all replies leave in one `send`. Everything else (flags, long
requests, flushes…) is carried out between such stretches, one request at a time.

The connection never waits for the network between `begin` and `end`, and for the disk only where a write has
to: a read that is not in the page cache, and a flush, run in the background.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from itertools import islice

from offsite.errors import OffsiteError, ProtocolError
from offsite.pools.protocol import OpenImage
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd import requests as codec
from offsite.targets.nbd.background import Background, Done, Workers, error_number
from offsite.targets.nbd.channel import Channel
from offsite.targets.nbd.negotiation import Outcome
from offsite.targets.nbd.requests import Request

PIECE_BYTES = 256 << 10  # longer requests go through in such pieces, which stay in the processor's cache
BUFFER_BYTES = (1 << 20) + (64 << 10)  # of requests, and of replies
PIECE_ALIGNMENT_BYTES = 64 << 10  # at most this much of a long write is carried on to its next piece
DISCARD_PIECE_BYTES = 64 << 20  # between one begin and end
ALLOCATE_PIECE_BYTES = 4 << 20
OUTSTANDING_MAX, OUTSTANDING_BYTES_MAX = 64, 64 << 20  # in the background, for one connection
EXTENTS_MAX = 2048  # in one answer
FINISH_SECONDS = 30  # for what is outstanding when the client has said goodbye

_WHOLE_DATA = codec.DATA_HEAD | codec.DONE
_WRITING = (nbd.CMD_WRITE, nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES)
_FLAGS = {
    nbd.CMD_READ: nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_DF,
    nbd.CMD_WRITE: nbd.CMD_FLAG_FUA,
    nbd.CMD_DISC: nbd.CMD_FLAG_FUA,
    nbd.CMD_FLUSH: nbd.CMD_FLAG_FUA,
    nbd.CMD_TRIM: nbd.CMD_FLAG_FUA,
    nbd.CMD_CACHE: nbd.CMD_FLAG_FUA,
    nbd.CMD_WRITE_ZEROES: nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO,
    nbd.CMD_BLOCK_STATUS: nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_REQ_ONE,
}


class Refused(Exception):
    """A request that is answered with an error; the connection goes on."""

    def __init__(self, error: int, sentence: str) -> None:
        super().__init__(sentence)
        self.error = error


class Transmission:
    def __init__(self, channel: Channel, outcome: Outcome, workers: Workers) -> None:
        self._channel = channel
        self._structured = outcome.structured_replies
        self._allocation_id = outcome.allocation_id
        self._export = export = outcome.export
        self._read_only = export.read_only
        self._image: OpenImage = export.pool.open(export.image.id)
        self._background = Background(workers, lambda: export.pool.open(export.image.id), export.pool.flush)
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._poll.register(self._background.wakeup, select.POLLIN)

        self._in = bytearray(BUFFER_BYTES)
        self._in_view = memoryview(self._in)
        self._out = bytearray(BUFFER_BYTES)
        self._out_view = memoryview(self._out)
        self._filled = 0  # bytes of replies in _out
        self._failed: tuple[int, OffsiteError | OSError] | None = None  # cookie of a plain request, and why
        self._ended = False
        self._header_bytes = codec.DATA_CHUNK_BYTES if self._structured else codec.SIMPLE_REPLY_BYTES
        # Without structured replies the data of a read cannot be sent in pieces, for a later one might fail.
        self._short_read_max = PIECE_BYTES if self._structured else BUFFER_BYTES - self._header_bytes

    def run(self, left_over: bytes) -> None:
        """Returns when the client has disconnected. Raises ProtocolError, ClientGone, VolumeNotFound."""
        buffer, view = self._in, self._in_view
        start, end = 0, len(left_over)
        buffer[:end] = left_over
        while True:
            requests, start = self._scan(start, end)
            if requests:
                self._execute(requests)
                self._send()
                if self._ended:
                    self._finish_outstanding()
                    return
                if start < end:
                    continue  # behind them may be what is no request
            partial = codec.partial_write(buffer, start, end)
            if partial is not None and partial[3] > PIECE_BYTES:
                self._write_long(partial, end)
                self._send()
                start = end = 0
            elif start == end:
                start = end = 0
            elif BUFFER_BYTES - end < PIECE_BYTES + codec.REQUEST_BYTES:
                buffer[: end - start] = view[start:end]
                start, end = 0, end - start
            received = self._receive(view[end:])
            if not received:
                self._finish_outstanding()
                return
            end += received

    def close(self) -> None:
        self._background.close()
        self._image.close()

    # -- in and out ------------------------------------------------------------------------------------------

    def _scan(self, start: int, end: int) -> tuple[list[Request], int]:
        try:
            return codec.scan(self._in, start, end)
        except codec.OversizedRequest as error:
            self._put_error(error.cookie, nbd.EINVAL, str(error))
            self._send()
            raise

    def _receive(self, buffer: memoryview) -> int:
        """As the channel's; meanwhile answers what the background has done."""
        while self._background.outstanding:
            self._answer_done()
            if not self._background.outstanding or self._channel.has_pending():
                break
            if any(descriptor != self._background.wakeup for descriptor, _ in self._poll.poll()):
                break
        return self._channel.receive(buffer)

    def _send(self) -> None:
        if self._filled:
            filled, self._filled = self._filled, 0
            self._channel.send(self._out_view[:filled])

    def _put(self, reply: bytes | bytearray) -> None:
        if len(reply) > BUFFER_BYTES - self._filled:
            self._send()
        if len(reply) > BUFFER_BYTES:
            self._channel.send(reply)
            return
        self._out[self._filled : self._filled + len(reply)] = reply
        self._filled += len(reply)

    def _put_error(self, cookie: int, error: int, sentence: str) -> None:
        if self._structured:
            self._put(codec.error_chunk(cookie, error, sentence))
        else:
            self._put(codec.simple_reply(cookie, error))

    def _put_read_header(self, buffer: bytearray, cookie: int, offset: int, length: int) -> None:
        """In the room before the data."""
        if self._structured:
            codec.DATA_CHUNK.pack_into(buffer, 0, _WHOLE_DATA, cookie, length + 8, offset)
        else:
            codec.SIMPLE_REPLY.pack_into(buffer, 0, codec.SIMPLE_HEAD, cookie)

    # -- the background --------------------------------------------------------------------------------------

    def _answer_done(self) -> None:
        for done in self._background.take_done():
            self._answer(done)
        self._send()

    def _answer(self, done: Done) -> None:
        if done.error:
            self._put_error(done.cookie, done.error, done.sentence)
        elif done.buffer is None:
            self._put(codec.simple_reply(done.cookie))
        else:
            self._put_read_header(done.buffer, done.cookie, done.offset, done.size_bytes)
            self._put(done.buffer)

    def _is_overloaded(self) -> bool:
        background = self._background
        return background.outstanding >= OUTSTANDING_MAX or background.outstanding_bytes >= OUTSTANDING_BYTES_MAX

    def _wait_until_not_overloaded(self) -> None:
        wakeup = select.poll()
        wakeup.register(self._background.wakeup, select.POLLIN)
        while self._is_overloaded():
            wakeup.poll()  # the disk's own time, as with any read
            self._answer_done()

    def _finish_outstanding(self) -> None:
        """The specification wants what is outstanding handled before the connection is closed."""
        wakeup = select.poll()
        wakeup.register(self._background.wakeup, select.POLLIN)
        while self._background.outstanding and wakeup.poll(FINISH_SECONDS * 1000):
            self._answer_done()

    # -- requests --------------------------------------------------------------------------------------------

    def _execute(self, requests: list[Request]) -> None:
        done, count = 0, len(requests)
        while done < count and not self._ended:
            if self._background.outstanding and self._is_overloaded():
                self._wait_until_not_overloaded()
            self._image.begin()
            try:
                done, is_other = self._run_plain(requests, done)
            finally:
                self._image.end()
            if self._failed is not None:
                (cookie, error), self._failed = self._failed, None
                self._put_error(cookie, error_number(error), str(error))
            elif is_other:
                self._run_other(requests[done])
                done += 1
            elif done < count:  # there was no room for its reply
                self._send()

    def _size(self) -> int:
        """Bytes that a request may reach: what the client was told, unless the image has shrunk since."""
        return min(self._image.size_bytes, self._export.size_bytes)

    def _run_plain(self, requests: list[Request], at: int) -> tuple[int, bool]:
        """Runs plain reads and writes from requests[at] on: the hot loop.

        Returns where it stopped and whether that is because requests[at] is of another kind. It also stops
        at the end, for want of room, and behind a request that failed, which it leaves in `_failed`.
        """
        background, image = self._background, self._image
        read_nowait, write = image.read_nowait, image.write
        out, out_view, in_view, filled = self._out, self._out_view, self._in_view, self._filled
        pack_data, pack_simple = codec.DATA_CHUNK.pack_into, codec.SIMPLE_REPLY.pack_into
        structured, header_bytes, short_read_max = self._structured, self._header_bytes, self._short_read_max
        size = self._size()
        write_size = -1 if self._read_only else size
        cookie, is_other = 0, False
        try:
            for at in range(at, len(requests)):  # noqa: B020 - it goes on from there
                head, cookie, offset, length, payload = requests[at]
                if head == codec.PLAIN_READ and 0 < length <= short_read_max and offset + length <= size:
                    data = filled + header_bytes
                    stop = data + length
                    if stop > BUFFER_BYTES or (background.outstanding and self._is_overloaded()):
                        break
                    if not read_nowait(offset, out_view[data:stop]):
                        background.read(cookie, offset, length, header_bytes)
                        continue
                    if structured:
                        pack_data(out, filled, _WHOLE_DATA, cookie, length + 8, offset)
                    else:
                        pack_simple(out, filled, codec.SIMPLE_HEAD, cookie)
                    filled = stop
                elif head == codec.PLAIN_WRITE and offset + length <= write_size:
                    if filled + codec.SIMPLE_REPLY_BYTES > BUFFER_BYTES:
                        break
                    write(offset, in_view[payload : payload + length])
                    pack_simple(out, filled, codec.SIMPLE_HEAD, cookie)
                    filled += codec.SIMPLE_REPLY_BYTES
                else:
                    is_other = True
                    break
            else:
                at += 1
        except (OffsiteError, OSError) as error:
            self._failed = cookie, error
            at += 1
        self._filled = filled
        return at, is_other

    def _run_other(self, request: Request) -> None:
        """Carries out one request of any kind, with all the checks that the specification asks for."""
        head, cookie, offset, length, payload = request
        kind, flags = codec.command(head)
        try:
            self._check(kind, flags, offset, length)
            if kind == nbd.CMD_READ:
                self._read(cookie, offset, length, flags)
            elif kind == nbd.CMD_DISC:
                self._ended = True
            elif kind == nbd.CMD_FLUSH:
                self._background.flush(cookie)
            elif kind == nbd.CMD_CACHE:
                self._background.warm(cookie, offset, length)
            elif kind == nbd.CMD_BLOCK_STATUS:
                self._block_status(cookie, offset, length, flags)
            else:
                if kind == nbd.CMD_WRITE:
                    self._write(offset, self._in_view[payload : payload + length])
                elif kind == nbd.CMD_TRIM:
                    self._discard(offset, length)
                else:
                    self._write_zeroes(offset, length, flags)
                self._acknowledge_written(cookie, flags)
        except Refused as refusal:
            self._put_error(cookie, refusal.error, str(refusal))
        except (OffsiteError, OSError) as error:
            self._put_error(cookie, error_number(error), str(error))

    def _check(self, kind: int, flags: int, offset: int, length: int) -> None:
        """Section "Error values". Raises Refused."""
        allowed = _FLAGS.get(kind)
        if allowed is None:
            raise Refused(nbd.EINVAL, f"command {kind} is not known here")
        if flags & ~allowed or (flags & nbd.CMD_FLAG_DF and not self._structured):
            raise Refused(nbd.EINVAL, f"command {kind} does not take the flags {flags:#x}")
        if kind in _WRITING and self._read_only:
            raise Refused(nbd.EPERM, f"{self._export.name!r} is mapped read-only")
        if kind in (nbd.CMD_FLUSH, nbd.CMD_DISC):
            return
        size = self._size()
        if offset + length > size:
            error = nbd.ENOSPC if kind in (nbd.CMD_WRITE, nbd.CMD_WRITE_ZEROES) else nbd.EINVAL
            raise Refused(error, f"{length} bytes at {offset} go beyond the size of {size} bytes")
        if kind in (nbd.CMD_READ, nbd.CMD_CACHE) and length > nbd.PAYLOAD_BYTES_MAX:
            raise Refused(nbd.EINVAL, f"{length} bytes are more than {nbd.PAYLOAD_BYTES_MAX} in one request")

    # -- reading ---------------------------------------------------------------------------------------------

    def _read(self, cookie: int, offset: int, length: int, flags: int) -> None:
        if length == 0:
            self._put(codec.done_chunk(cookie) if self._structured else codec.simple_reply(cookie))
        elif self._structured and not flags & nbd.CMD_FLAG_DF:
            self._read_in_pieces(cookie, offset, length)
        else:
            self._read_whole(cookie, offset, length)

    def _read_in_pieces(self, cookie: int, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            piece = min(PIECE_BYTES, end - offset)
            data = self._filled + codec.DATA_CHUNK_BYTES
            if data + piece > BUFFER_BYTES:
                self._send()
                data = codec.DATA_CHUNK_BYTES
            if not self._read_nowait(offset, self._out_view[data : data + piece]):
                self._background.read(cookie, offset, end - offset, self._header_bytes)
                return
            head = codec.DATA_HEAD if offset + piece < end else _WHOLE_DATA
            codec.DATA_CHUNK.pack_into(self._out, self._filled, head, cookie, piece + 8, offset)
            self._filled = data + piece
            offset += piece
            self._send()

    def _read_whole(self, cookie: int, offset: int, length: int) -> None:
        buffer = bytearray(self._header_bytes + length)
        if self._read_nowait(offset, memoryview(buffer)[self._header_bytes :]):
            self._put_read_header(buffer, cookie, offset, length)
            self._put(buffer)
        else:
            self._background.read(cookie, offset, length, self._header_bytes)

    def _read_nowait(self, offset: int, buffer: memoryview) -> bool:
        self._image.begin()
        try:
            return self._image.read_nowait(offset, buffer)
        finally:
            self._image.end()

    def _block_status(self, cookie: int, offset: int, length: int, flags: int) -> None:
        if self._allocation_id is None or length == 0:
            why = "of nothing" if length == 0 else f"without the context {nbd.BASE_ALLOCATION}"
            raise Refused(nbd.EINVAL, f"block status {why}")
        most = 1 if flags & nbd.CMD_FLAG_REQ_ONE else EXTENTS_MAX
        self._image.begin()
        try:
            found = list(islice(self._image.extents(offset, length), most))
        finally:
            self._image.end()
        hole = nbd.STATE_HOLE | nbd.STATE_ZERO
        extents = [(piece, 0 if has_data else hole) for piece, has_data in found]
        self._put(codec.block_status_chunk(cookie, self._allocation_id, extents))

    # -- writing ---------------------------------------------------------------------------------------------

    def _acknowledge_written(self, cookie: int, flags: int) -> None:
        if flags & nbd.CMD_FLAG_FUA:
            self._background.flush(cookie)
        else:
            self._put(codec.simple_reply(cookie))

    def _write(self, offset: int, data: memoryview) -> None:
        self._image.begin()
        try:
            self._image.write(offset, data)
        finally:
            self._image.end()

    def _write_long(self, request: Request, end: int) -> None:
        """Takes the payload as it comes, of which the buffer has a part: up to `end`."""
        head, cookie, offset, remaining, start = request
        kind, flags = codec.command(head)
        view, refusal = self._in_view, None
        try:
            self._check(kind, flags, offset, remaining)
        except Refused as error:
            refusal = error.error, str(error)
        while remaining:
            have = end - start
            take = have if have == remaining else have - (offset + have) % PIECE_ALIGNMENT_BYTES
            if take > 0:
                if refusal is None:
                    try:
                        self._write(offset, view[start : start + take])
                    except (OffsiteError, OSError) as error:
                        refusal = error_number(error), str(error)
                offset, start, remaining = offset + take, start + take, remaining - take
            if remaining:
                have = end - start
                self._in[:have] = view[start:end]
                received = self._receive(view[have : min(remaining, PIECE_BYTES)])
                if not received:
                    raise ProtocolError(f"the client disconnected {remaining - have} bytes before a write's end")
                start, end = 0, have + received
        if refusal is None:
            self._acknowledge_written(cookie, flags)
        else:
            self._put_error(cookie, *refusal)

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
            raise Refused(nbd.ENOTSUP, "zeroes are no faster than a write here")
        for at, piece in _pieces(offset, length, ALLOCATE_PIECE_BYTES if allocate else DISCARD_PIECE_BYTES):
            self._image.begin()
            try:
                self._image.write_zeroes(at, piece, allocate=allocate)
            finally:
                self._image.end()

    def _has_whole_page(self, offset: int, length: int) -> bool:
        page_bytes = self._image.page_bytes
        return (offset + page_bytes - 1) // page_bytes < (offset + length) // page_bytes


def _pieces(offset: int, length: int, piece_bytes: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of pieces that end at multiples of `piece_bytes`."""
    end = offset + length
    while offset < end:
        stop = min(end, offset - offset % piece_bytes + piece_bytes)
        yield offset, stop - offset
        offset = stop
