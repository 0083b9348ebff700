"""The replies of one connection, gathered in a buffer until they are sent together."""

from __future__ import annotations

from offsite.targets.common.buffers import new_buffer
from offsite.targets.common.channel import ClientChannel
from offsite.targets.nbd import requests as codec

BUFFER_BYTES = 2 << 20
_WHOLE_DATA = codec.DATA_HEAD | codec.DONE


class Replies:
    """Whoever has replies to write asks for `room`, fills it from its beginning, and says with `add` how far.

    A slice of a memoryview that reaches beyond its end is shorter than asked for, and says nothing. So room is handed
    out here alone, never less than was asked for, and what does not lie in it is not added: a reply that was cut short
    is never sent. The loop of plain requests, for which these calls would take too long, writes to `buffer` from
    `filled` on: see transmission.
    """

    def __init__(self, channel: ClientChannel, *, structured: bool) -> None:
        self.structured = structured
        self.header_bytes = codec.DATA_CHUNK_BYTES if structured else codec.SIMPLE_REPLY_BYTES  # before data read
        self.buffer = new_buffer(BUFFER_BYTES)
        self.filled = 0
        self._channel = channel

    def send(self) -> None:
        """Raises ClientGone."""
        filled = self.filled
        if filled:
            if filled > BUFFER_BYTES:
                raise ValueError(f"{filled} bytes of replies; there is room for {BUFFER_BYTES}")
            self.filled = 0
            self._channel.send(self.buffer[:filled])

    def room(self, size_bytes: int) -> memoryview:
        """At least `size_bytes` (of at most BUFFER_BYTES), good until any other method but `add` is called.

        Sends what there is if they do not fit behind it. Raises ClientGone.
        """
        if size_bytes > BUFFER_BYTES - self.filled:
            if size_bytes > BUFFER_BYTES:
                raise ValueError(f"{size_bytes} bytes of room for replies; there are {BUFFER_BYTES}")
            self.send()
        return self.buffer[self.filled :]

    def add(self, size_bytes: int) -> None:
        """The first `size_bytes` of the room hold replies now."""
        filled = self.filled + size_bytes
        if filled > BUFFER_BYTES:
            raise ValueError(f"replies of {size_bytes} bytes; there was room for {BUFFER_BYTES - self.filled}")
        self.filled = filled

    def put(self, reply: bytes | memoryview) -> None:
        size_bytes = len(reply)
        if size_bytes > BUFFER_BYTES:
            self.send()
            self._channel.send(reply)
            return
        self.room(size_bytes)[:size_bytes] = reply
        self.add(size_bytes)

    def put_success(self, cookie: int) -> None:
        """Of a request that brings no data."""
        self.put(codec.simple_reply(cookie))

    def put_error(self, cookie: int, error: int, sentence: str) -> None:
        if self.structured:
            self.put(codec.error_chunk(cookie, error, sentence))
        else:
            self.put(codec.simple_reply(cookie, error))

    def put_nothing_read(self, cookie: int) -> None:
        self.put(codec.done_chunk(cookie) if self.structured else codec.simple_reply(cookie))

    def write_read_header(self, buffer: memoryview, cookie: int, offset: int, length: int) -> None:
        """Of a read, or its last piece: into the first `header_bytes` of `buffer`, before the data."""
        if self.structured:
            codec.DATA_CHUNK.pack_into(buffer, 0, _WHOLE_DATA, cookie, length + 8, offset)
        else:
            codec.SIMPLE_REPLY.pack_into(buffer, 0, codec.SIMPLE_HEAD, cookie)
