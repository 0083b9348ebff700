"""The frames of imports and exports: what goes in comes out, and what was cut or is no transfer is noticed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import ProtocolError
from offsite.interfaces.encoding import frames
from offsite.interfaces.encoding.frames import Decoder

SIZE = 100_000

pieces_of_a_transfer = st.lists(
    st.tuples(st.integers(0, 500), st.binary(min_size=1, max_size=300)), max_size=20
)  # (distance to the piece before, data)


def laid_out(pieces: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    found, end = [], 0
    for distance, data in pieces:
        found.append((end + distance, data))
        end += distance + len(data)
    return found


def encoded(pieces: list[tuple[int, bytes]]) -> bytes:
    return b"".join(frames.head(offset, len(data)) + data for offset, data in pieces) + frames.end(SIZE)


@given(pieces_of_a_transfer, st.lists(st.integers(1, 400), min_size=1, max_size=10))
def test_what_goes_in_comes_out_however_it_is_cut_up(pieces: list[tuple[int, bytes]], cuts: list[int]) -> None:
    sent, decoder, found = encoded(laid_out(pieces)), Decoder(SIZE), []
    position, lengths = 0, itertools.cycle(cuts)
    while position < len(sent):
        assert not decoder.complete
        length = next(lengths)
        found += [(offset, bytes(data)) for offset, data in decoder.feed(sent[position : position + length])]
        position += length
    assert decoder.complete
    assert found == laid_out(pieces)


@given(pieces_of_a_transfer, st.integers(1, 10_000))
def test_a_transfer_that_was_cut_is_never_complete(pieces: list[tuple[int, bytes]], missing: int) -> None:
    sent, decoder = encoded(laid_out(pieces)), Decoder(SIZE)
    list(decoder.feed(sent[: max(0, len(sent) - missing)]))
    assert not decoder.complete


@given(st.binary(max_size=2000))
def test_garbage_is_refused_or_waited_for(garbage: bytes) -> None:
    decoder = Decoder(SIZE)
    try:
        for offset, data in decoder.feed(garbage):
            assert 0 <= offset <= SIZE - len(data)
    except ProtocolError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("sent", "rule"),
    [
        (frames.head(0, frames.PIECE_BYTES_MAX + 1), "longer than"),
        (frames.head(SIZE - 1, 2), "is outside"),
        (frames.head(10, 5) + b"12345" + frames.head(14, 1), "is outside 15"),
        (frames.end(SIZE - 1), "the image has 100000"),
        (frames.end(SIZE) + b"x", "after its end"),
        (frames.end(SIZE) + frames.end(SIZE), "after its end"),
    ],
)
def test_what_no_transfer_may_hold_is_refused(sent: bytes, rule: str) -> None:
    with pytest.raises(ProtocolError, match=rule):
        list(Decoder(SIZE).feed(sent))
