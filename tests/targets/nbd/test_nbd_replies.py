"""Room for replies: never less than was asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.targets.nbd.replies import BUFFER_BYTES, Replies


class Sent:
    """A channel that keeps what is sent."""

    def __init__(self) -> None:
        self.data = bytearray()

    def send(self, data: bytes | memoryview) -> None:
        self.data += data


def replies_to(channel: Any) -> Replies:
    return Replies(channel, structured=True)


SIZES = st.one_of(
    st.integers(0, 100), st.integers(BUFFER_BYTES // 2 - 50, BUFFER_BYTES // 2 + 50), st.just(BUFFER_BYTES)
)


@given(st.lists(st.tuples(SIZES, st.booleans()), max_size=12))
def test_all_that_is_put_is_sent_in_order_and_whole(sizes: list[tuple[int, bool]]) -> None:
    channel = Sent()
    replies, expected = replies_to(channel), bytearray()
    for number, (size, by_hand) in enumerate(sizes):
        reply = bytes([number]) * size
        expected += reply
        if by_hand:
            room = replies.room(size)
            assert len(room) >= size
            room[:size] = reply
            replies.add(size)
        else:
            replies.put(reply)
    replies.send()
    assert channel.data == expected


def test_replies_that_reach_beyond_the_buffer_are_never_sent() -> None:
    """Who fills it by itself, as the loop of plain requests does, must not have the last one cut."""
    channel = Sent()
    replies = replies_to(channel)
    replies.filled = BUFFER_BYTES + 1
    with pytest.raises(ValueError, match="there is room for"):
        replies.send()
    assert channel.data == b""


def test_a_reply_longer_than_the_buffer_goes_behind_what_there_is() -> None:
    channel = Sent()
    replies = replies_to(channel)
    replies.put(b"first")
    replies.put(bytes(BUFFER_BYTES + 1))
    assert channel.data == b"first" + bytes(BUFFER_BYTES + 1)


def test_room_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="of room for replies"):
        replies_to(Sent()).room(BUFFER_BYTES + 1)


def test_what_does_not_lie_in_the_room_is_never_sent() -> None:
    channel = Sent()
    replies = replies_to(channel)
    replies.put(b"first")
    with pytest.raises(ValueError, match="there was room for"):
        replies.add(BUFFER_BYTES - 4)
    replies.send()
    assert channel.data == b"first"
