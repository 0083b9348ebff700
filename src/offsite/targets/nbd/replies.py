"""The replies of one connection, gathered in a buffer until they are sent together."""

from __future__ import annotations

from offsite.targets.nbd import requests as codec
from offsite.targets.nbd.buffers import new_buffer
from offsite.targets.nbd.channel import Channel

BUFFER_BYTES = 2 << 20
_WHOLE_DATA = codec.DATA_HEAD | codec.DONE


class Replies:
    """`buffer` holds `filled` bytes of replies. Whoever fills it by hand sees to it that they fit."""

    def __init__(self, channel: Channel, *, structured: bool) -> None:
        self.structured = structured
        self.buffer = new_buffer(BUFFER_BYTES)
        self.filled = 0
        self.header_bytes = codec.DATA_CHUNK_BYTES if structured else codec.SIMPLE_REPLY_BYTES  # before data read
        self._channel = channel

    def send(self) -> None:
        """Raises ClientGone."""
        filled = self.filled
        if filled:
            self.filled = 0
            self._channel.send(self.buffer[:filled])

    def make_room(self, size_bytes: int) -> None:
        """Sends what there is, if `size_bytes` do not fit behind it."""
        if size_bytes > BUFFER_BYTES - self.filled:
            self.send()

    def put(self, reply: bytes | memoryview) -> None:
        self.make_room(len(reply))
        if len(reply) > BUFFER_BYTES:
            self._channel.send(reply)
            return
        self.buffer[self.filled : self.filled + len(reply)] = reply
        self.filled += len(reply)

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

    def write_read_header(self, buffer: memoryview, at: int, cookie: int, offset: int, length: int) -> None:
        """Of a read, or its last piece: into the `header_bytes` at `at`, before the data."""
        if self.structured:
            codec.DATA_CHUNK.pack_into(buffer, at, _WHOLE_DATA, cookie, length + 8, offset)
        else:
            codec.SIMPLE_REPLY.pack_into(buffer, at, codec.SIMPLE_HEAD, cookie)
