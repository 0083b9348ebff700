"""Numbers of a snapshot history. They go round: after 99999 comes 0. No I/O here.

So one is ahead of another when it comes less than half a round after it, and behind it otherwise.
"""

from __future__ import annotations

SNAPSHOT_NUMBERS = 100_000


def number_after(number: int) -> int:
    return (number + 1) % SNAPSHOT_NUMBERS


def is_behind(number: int, other: int) -> bool:
    return (number - other) % SNAPSHOT_NUMBERS >= SNAPSHOT_NUMBERS // 2


def later_number(number: int, other: int) -> int:
    return other if is_behind(number, other) else number
