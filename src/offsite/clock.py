"""Time as a parameter, so that tests and the simulator can own it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch (UTC): for people and for records. It may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow: for deadlines and rates."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
