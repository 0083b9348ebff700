"""The transmission phase of one connection: requests are taken, carried out, answered.

All requests that one `receive` brought are taken together. Plain short reads and writes run one after another
between one `begin` and one `end` of the image, reads straight into the buffer of replies, writes straight out
of the buffer that they were received in; then all replies leave in one `send`. Any other request runs between
such stretches, by itself.

The connection never waits for the network between `begin` and `end`, and for the disk only where a write has
to: a read that is not in the page cache, and a flush, run in the background.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Iterator

from offsite.errors import OffsiteError, ProtocolError
from offsite.pools.protocol import OpenImage
from offsite.targets.common.background import Background, FinishedWork
from offsite.targets.common.buffers import new_buffer
from offsite.targets.common.channel import ClientChannel, ClientGone
from offsite.targets.common.counters import Activity
from offsite.targets.common.workers import Workers
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd import requests as codec
from offsite.targets.nbd.commands import READ_PIECE_BYTES, Commands, RequestRefused
from offsite.targets.nbd.errors import NUMBERS, error_number
from offsite.targets.nbd.negotiation import Negotiated
from offsite.targets.nbd.replies import BUFFER_BYTES as REPLIES_BYTES
from offsite.targets.nbd.replies import Replies
from offsite.targets.nbd.requests import REQUEST_BYTES, SIMPLE_REPLY_BYTES, Request

BUFFER_BYTES = (1 << 20) + (64 << 10)  # of requests
WRITE_PIECE_BYTES = 256 << 10  # longer writes begin before all of their payload is there
PIECE_ALIGNMENT_BYTES = 64 << 10  # at most this much of a long write is carried on to its next piece
FINISH_SECONDS = 30  # for what is outstanding when the client has said goodbye

_PLAIN_REPLY_BYTES_MAX = codec.DATA_CHUNK_BYTES + READ_PIECE_BYTES
_FULL_BYTES = REPLIES_BYTES - _PLAIN_REPLY_BYTES_MAX  # of replies: up to here any plain one fits
_WHOLE_DATA = codec.DATA_HEAD | codec.DONE


class Transmission:
    def __init__(
        self, channel: ClientChannel, outcome: Negotiated, workers: Workers, holder: str, activity: Activity
    ) -> None:
        self._export = export = outcome.export
        self._activity = activity
        self._channel = channel
        self._read_only = export.read_only
        self._image: OpenImage = export.pool.open(export.image.id)
        self._replies = Replies(channel, structured=outcome.structured_replies)
        self._background = Background(workers, holder)
        channel.is_hurried = self._background.is_hurried
        self._commands = Commands(self._image, outcome, self._replies, self._background, activity)
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._poll.register(self._background.wakeup, select.POLLIN)
        self._gone_poll = select.poll()
        self._gone_poll.register(channel.fileno(), select.POLLRDHUP)
        self._wakeup_poll = select.poll()
        self._wakeup_poll.register(self._background.wakeup, select.POLLIN)

        self._buffer = new_buffer(BUFFER_BYTES)
        self._received_at = time.perf_counter()  # the batch that is under way
        self._at = 0  # where in it the requests begin that have not been carried out
        self._paused = False  # plain requests stopped for want of room, or at a failure
        self._failed: tuple[int, OffsiteError | OSError] | None = None  # cookie of a plain request, and why
        self._ended = False

    def run(self, left_over: bytes) -> None:
        """Returns when the client has disconnected. Raises ProtocolError, ClientGone, VolumeNotFound."""
        buffer, end = self._buffer, len(left_over)
        buffer[:end] = left_over
        start = 0
        while True:
            requests, stop = self._scan(start, end)
            if requests:
                self._at = start
                self._execute(iter(requests))
                self._replies.send()
                self._activity.end_batch(time.perf_counter() - self._received_at)
                if self._ended:
                    break
                if stop < end:
                    start = stop
                    continue  # what follows may be no request, or a write whose payload is on its way
            start, end = self._prepare_for_more(stop, end)
            received = self._receive(buffer[end:])
            self._received_at = time.perf_counter()
            if not received:
                break
            end += received
        self._finish_outstanding()

    def _prepare_for_more(self, start: int, end: int) -> tuple[int, int]:
        """Makes room behind what is left in buffer[start:end], an incomplete request; returns where it is then."""
        if start == end:
            return 0, 0
        buffer = self._buffer
        partial = codec.partial_write(buffer, start, end)
        if partial is not None and partial[3] > WRITE_PIECE_BYTES:
            self._write_long(partial, start + REQUEST_BYTES, end)
            self._replies.send()
            self._activity.end_batch(time.perf_counter() - self._received_at)
            return 0, 0
        if BUFFER_BYTES - end < WRITE_PIECE_BYTES + REQUEST_BYTES:
            buffer[: end - start] = buffer[start:end]
            return 0, end - start
        return start, end

    def close(self) -> None:
        self._background.close()
        self._image.close()

    def _scan(self, start: int, end: int) -> tuple[list[Request], int]:
        try:
            return codec.scan(self._buffer, start, end)
        except codec.OversizedRequest as error:
            self._replies.put_error(error.cookie, nbd.EINVAL, str(error))
            self._replies.send()
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

    # -- requests --------------------------------------------------------------------------------------------

    def _execute(self, requests: Iterator[Request]) -> None:
        """Carries out requests that lie in the buffer from `_at` on."""
        more = True
        while more and not self._ended:
            if self._replies.filled > _FULL_BYTES:
                self._replies.send()  # may wait for the client: not within `begin` and `end`
            self._image.begin()
            try:
                other = self._run_plain(requests)
            finally:
                self._image.end()
            more = other is not None or self._paused
            if other is not None:
                self._run_other(other)
            elif self._failed is not None:
                (cookie, error), self._failed = self._failed, None
                self._replies.put_error(cookie, error_number(error), str(error))
            if self._background.outstanding and self._background.is_overloaded():
                self._replies.send()
                self._wait_until_not_overloaded()

    def _run_plain(self, requests: Iterator[Request]) -> Request | None:
        """Runs plain short reads and writes: the hot loop. Returns the first request of another kind.

        No reply can be cut short: before each, also the first, no more than _FULL_BYTES are filled.

        Returns None at the end of `requests`; also, with `_paused` set, for want of room for replies or in the
        background, and behind a request that failed, which is left in `_failed`.
        """
        image, replies, background, buffer = self._image, self._replies, self._background, self._buffer
        export, reads, writes, written_bytes = self._export, 0, 0, 0
        read_nowait, write = image.read_nowait, image.write
        out, filled, at = replies.buffer, replies.filled, self._at
        structured, header_bytes = replies.structured, replies.header_bytes
        pack_data, pack_simple = codec.DATA_CHUNK.pack_into, codec.SIMPLE_REPLY.pack_into
        size = self._commands.size()
        write_size = -1 if self._read_only else size
        self._paused, cookie, other = True, 0, None
        try:
            for request in requests:
                head, cookie, offset, length = request
                at += REQUEST_BYTES
                if head == codec.PLAIN_READ and 0 < length <= READ_PIECE_BYTES and offset + length <= size:
                    data = filled + header_bytes
                    stop = data + length
                    if read_nowait(offset, out[data:stop]):
                        if structured:
                            pack_data(out, filled, _WHOLE_DATA, cookie, length + 8, offset)
                        else:
                            pack_simple(out, filled, codec.SIMPLE_HEAD, cookie)
                        filled = stop
                        reads += 1
                    else:
                        background.read(export, cookie, offset, length, header_bytes)
                        if background.is_overloaded():
                            break
                elif head == codec.PLAIN_WRITE and offset + length <= write_size:
                    payload = at
                    at += length
                    write(offset, buffer[payload:at])
                    pack_simple(out, filled, codec.SIMPLE_HEAD, cookie)
                    filled += SIMPLE_REPLY_BYTES
                    writes += 1
                    written_bytes += length
                else:
                    other = request
                    break
                if filled > _FULL_BYTES:
                    break
            else:
                self._paused = False
        except (OffsiteError, OSError) as error:
            self._failed = cookie, error
        activity = self._activity
        activity.batch_reads += reads
        activity.read_bytes += filled - replies.filled - reads * header_bytes - writes * SIMPLE_REPLY_BYTES
        activity.batch_writes += writes
        activity.written_bytes += written_bytes
        self._at = at
        replies.filled = filled
        return other

    def _run_other(self, request: Request) -> None:
        head, _, _, length = request
        kind, _ = codec.command(head)
        if kind == nbd.CMD_DISC:
            self._ended = True
            return
        payload = self._buffer[self._at : self._at + length] if kind == nbd.CMD_WRITE else self._buffer[:0]
        self._at += len(payload)
        self._commands.run(request, payload)

    def _write_long(self, request: Request, start: int, end: int) -> None:
        """Takes a payload as it comes, of which buffer[start:end] is the beginning."""
        head, cookie, offset, length = request
        remaining = length
        _, flags = codec.command(head)
        buffer, refusal = self._buffer, None
        try:
            self._commands.check(request)
        except RequestRefused as error:
            refusal = error.error, str(error)
        while remaining:
            have = end - start
            take = have if have == remaining else have - (offset + have) % PIECE_ALIGNMENT_BYTES
            if take > 0:
                if refusal is None:
                    try:
                        self._commands.write(offset, buffer[start : start + take])
                    except (OffsiteError, OSError) as error:
                        refusal = error_number(error), str(error)
                offset, start, remaining = offset + take, start + take, remaining - take
            if remaining:
                have = end - start
                buffer[:have] = buffer[start:end]
                received = self._receive(buffer[have : min(remaining, WRITE_PIECE_BYTES)])
                if not received:
                    raise ProtocolError(f"the client disconnected {remaining - have} bytes before a write's end")
                start, end = 0, have + received
        if refusal is None:
            self._commands.acknowledge_written(cookie, flags, length)
        else:
            self._replies.put_error(cookie, *refusal)

    # -- the background --------------------------------------------------------------------------------------

    def _answer_done(self) -> None:
        waiting = deque(self._background.take_done())
        try:
            while waiting:
                self._answer(waiting[0])
                self._background.give_back(waiting.popleft())
        finally:
            for done in waiting:  # the client has gone
                self._background.give_back(done)
        self._replies.send()
        if not self._background.start_waiting(self._is_gone):
            raise ClientGone("the client disconnected while its request waited for memory")

    def _is_gone(self) -> bool:
        return bool(self._gone_poll.poll(0))

    def _answer(self, done: FinishedWork) -> None:
        replies, seconds = self._replies, time.perf_counter() - done.asked_at
        if done.failure is not None:
            replies.put_error(done.cookie, NUMBERS[done.failure], done.sentence)
        elif done.buffer is None:
            replies.put_success(done.cookie)
            if done.written_bytes:
                self._activity.add_write(done.written_bytes, seconds)
        else:
            self._activity.add_read(done.size_bytes, seconds)
            replies.write_read_header(done.buffer, done.cookie, done.offset, done.size_bytes)
            replies.put(done.buffer)

    def _wait_until_not_overloaded(self) -> None:
        self._answer_done()
        while self._background.is_overloaded():
            self._wakeup_poll.poll()  # the disk's own time, as with any read
            self._answer_done()

    def _finish_outstanding(self) -> None:
        """The specification wants what is outstanding handled before the connection is closed."""
        while self._background.outstanding and self._wakeup_poll.poll(FINISH_SECONDS * 1000):
            self._answer_done()
