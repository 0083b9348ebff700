"""How long to wait before trying again. No I/O here."""

from __future__ import annotations

from random import Random

FIRST_SECONDS = 1.0
LAST_SECONDS = 60.0


class Backoff:
    """1 s, doubling to 60 s, each shortened by up to a quarter so that many sets do not all come at once."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._next = FIRST_SECONDS

    def next_seconds(self) -> float:
        seconds = self._next * (1 - self._random.random() / 4)
        self._next = min(LAST_SECONDS, self._next * 2)
        return seconds

    def reset(self) -> None:
        self._next = FIRST_SECONDS
