"""The codec of requests: any split of the bytes gives the same requests, and garbage only ProtocolError."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import ProtocolError
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd import requests as codec

_HEADER = struct.Struct(">IHHQQI")

Sent = tuple[int, int, int, int, int, bytes]  # flags, type, cookie, offset, length, payload

_numbers = st.integers(0, 2**64 - 1)


def _encode(sent: Sent) -> bytes:
    flags, kind, cookie, offset, length, payload = sent
    return _HEADER.pack(nbd.REQUEST_MAGIC, flags, kind, cookie, offset, length) + payload


@st.composite
def _requests(draw: st.DrawFn) -> Sent:
    kind = draw(st.one_of(st.sampled_from([0, 1, 1, 1, 2, 3, 4, 5, 6, 7]), st.integers(0, 0xFFFF)))
    flags = draw(st.one_of(st.just(0), st.integers(0, 0xFFFF)))
    payload = draw(st.binary(max_size=70)) if kind == nbd.CMD_WRITE else b""
    length = len(payload) if kind == nbd.CMD_WRITE else draw(st.integers(0, 2**32 - 1))
    return flags, kind, draw(_numbers), draw(_numbers), length, payload


def _decode(buffer: memoryview, at: int, requests: list[codec.Request]) -> list[Sent]:
    """The requests that lie in the buffer from `at` on, with their payloads."""
    found = []
    for head, cookie, offset, length in requests:
        kind, flags = codec.command(head)
        at += codec.REQUEST_BYTES
        payload = bytes(buffer[at : at + length]) if kind == nbd.CMD_WRITE else b""
        at += len(payload)
        found.append((flags, kind, cookie, offset, length, payload))
    return found


_rows = st.tuples(_requests(), st.integers(1, 6)).map(lambda row: [row[0]] * row[1])  # as they mostly come


@given(st.lists(_rows, max_size=8).map(lambda rows: [sent for row in rows for sent in row]), st.data())
def test_any_split_of_the_stream_gives_the_same_requests(sent: list[Sent], data: st.DataObject) -> None:
    """As a connection does it: bytes arrive in pieces, complete requests are taken, the rest waits."""
    stream = b"".join(map(_encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    buffer, start, got = memoryview(stream), 0, []
    for end in [*cuts, len(stream)]:
        found, stop = codec.scan(buffer, start, end)
        got += _decode(buffer, start, found)
        start = stop
    assert got == sent
    assert start == len(stream)


def test_every_single_byte_may_be_a_cut() -> None:
    sent: list[Sent] = [(0, 1, 7, 512, 3, b"abc"), (0, 0, 8, 0, 4096, b""), (1, 1, 9, 5, 0, b""), (0, 2, 0, 0, 0, b"")]
    buffer = memoryview(b"".join(map(_encode, sent)))
    for cut in range(len(buffer) + 1):
        first, start = codec.scan(buffer, 0, cut)
        second, end = codec.scan(buffer, start, len(buffer))
        assert _decode(buffer, 0, first) + _decode(buffer, start, second) == sent
        assert end == len(buffer)


@given(st.binary(max_size=300))
def test_garbage_raises_nothing_but_protocol_error(garbage: bytes) -> None:
    buffer = memoryview(garbage)
    try:
        _, start = codec.scan(buffer, 0, len(buffer))
        codec.partial_write(buffer, start, len(buffer))
    except ProtocolError:
        return
    assert 0 <= start <= len(buffer)


def test_requests_before_garbage_are_returned_first() -> None:
    """What was asked in good order is answered, before the connection is closed for what follows."""
    good = _encode((0, 0, 1, 0, 512, b""))
    buffer = memoryview(good + b"\xff" * codec.REQUEST_BYTES)
    requests, start = codec.scan(buffer, 0, len(buffer))
    assert len(requests) == 1
    assert start == len(good)
    with pytest.raises(ProtocolError, match="0xffffffff"):
        codec.scan(buffer, start, len(buffer))


@pytest.mark.parametrize("flags", [0, nbd.CMD_FLAG_FUA])
def test_a_write_over_the_maximum_is_refused_by_its_cookie(flags: int) -> None:
    good = _encode((0, 0, 1, 0, 512, b""))
    length = nbd.PAYLOAD_BYTES_MAX + 1
    buffer = memoryview(good + _HEADER.pack(nbd.REQUEST_MAGIC, flags, nbd.CMD_WRITE, 77, 0, length))
    requests, start = codec.scan(buffer, 0, len(buffer))
    assert len(requests) == 1
    with pytest.raises(codec.OversizedRequest, match=str(length)) as raised:
        codec.scan(buffer, start, len(buffer))
    assert raised.value.cookie == 77


def test_a_partial_write_shows_its_header() -> None:
    stream = memoryview(_encode((1, 1, 5, 4096, 10, b"0123456789")))
    assert codec.partial_write(stream, 0, codec.REQUEST_BYTES - 1) is None
    partial = codec.partial_write(stream, 0, codec.REQUEST_BYTES + 4)
    assert partial is not None
    head, cookie, offset, length = partial
    assert (codec.command(head), cookie, offset, length) == ((1, 1), 5, 4096, 10)


@given(_numbers, st.integers(1, 2**32 - 1), st.one_of(st.text(), st.text().map(lambda text: text + "€" * 4000)))
def test_an_error_chunk_keeps_the_specifications_bounds(cookie: int, error: int, sentence: str) -> None:
    chunk = codec.error_chunk(cookie, error, sentence)
    magic, flags, kind, its_cookie, length = struct.unpack_from(">IHHQI", chunk)
    assert (magic, flags, kind, its_cookie) == (nbd.STRUCTURED_REPLY_MAGIC, 1, nbd.REPLY_TYPE_ERROR, cookie)
    its_error, message_length = struct.unpack_from(">IH", chunk, 20)
    assert its_error == error
    assert len(chunk) == 20 + length == 26 + message_length
    assert message_length <= nbd.STRING_BYTES_MAX
    assert sentence.startswith(chunk[26:].decode())


def test_a_write_of_nothing_does_not_begin_a_row_of_longer_ones() -> None:
    """Or the payload of the next write would be taken for a request."""
    sent: list[Sent] = [(0, nbd.CMD_WRITE, 1, 0, 0, b""), (0, nbd.CMD_WRITE, 2, 0, 28, b"x" * 28)]
    stream = memoryview(b"".join(map(_encode, sent)))
    found, stop = codec.scan(stream, 0, len(stream))
    assert _decode(stream, 0, found) == sent
    assert stop == len(stream)
