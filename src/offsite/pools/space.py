"""How full a pool is, and when to say so."""

from __future__ import annotations

import time
from dataclasses import dataclass

from offsite import events
from offsite.errors import BadParameter
from offsite.events import Report
from offsite.units import format_size

FULL_EVENT_INTERVAL_SECONDS = 60.0
SPACE_BACK_SECONDS, SPACE_BACK_PAGES = 10.0, 64  # without a refusal, and with so much space, until that is told
_SMALL_SHARE = 16  # of a small pool, one page in so many is enough


@dataclass(frozen=True)
class Thresholds:
    """Percent of a pool's pages in use at which an event is told (ME4: 25, 50 and 75 to 99)."""

    low: float = 50.0
    middle: float = 75.0
    high: float = 90.0

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.middle <= self.high <= 100:
            raise BadParameter(
                f"thresholds low {self.low:g} %, middle {self.middle:g} %, high {self.high:g} %: each has to be "
                "above 0 and at most 100, and not below the one before"
            )


class SpaceWatch:
    """Tells events when the pages in use cross a threshold, upwards or back. Cheap to ask on each allocation."""

    def __init__(self, pool_name: str, page_bytes: int, pages: int, thresholds: Thresholds, report: Report) -> None:
        self._pool_name = pool_name
        self._page_bytes = page_bytes
        self._pages = pages
        self._within = pages  # those of them that can be used
        self._report = report
        self._full_told_at = -FULL_EVENT_INTERVAL_SECONDS
        self._refused_at: float | None = None  # the last time, until it is told that there is space again
        self.refusal = ""
        self._level = 0
        self.set_thresholds(thresholds)

    def set_thresholds(self, thresholds: Thresholds) -> None:
        self.thresholds = thresholds
        self._limits = [
            ("low", int(self._within * thresholds.low / 100), events.POOL_THRESHOLD_CROSSED),
            ("middle", int(self._within * thresholds.middle / 100), events.POOL_THRESHOLD_CROSSED),
            ("high", int(self._within * thresholds.high / 100), events.POOL_HIGH_THRESHOLD_CROSSED),
        ]

    def set_available(self, used: int, available: int) -> None:
        """What the file system takes may be less than what the pool has: then percents are of what can be used."""
        within = max(1, min(self._pages, used + available))
        if within != self._within:
            self._within = within
            self.set_thresholds(self.thresholds)
        if self._refused_at is None or available < min(SPACE_BACK_PAGES, max(1, self._pages // _SMALL_SHARE)):
            return
        if time.monotonic() - self._refused_at >= SPACE_BACK_SECONDS:
            self._refused_at, self.refusal = None, ""
            self._full_told_at = -FULL_EVENT_INTERVAL_SECONDS
            message = f"Pool {self._pool_name}: space for writes is available again; {self._use(used)}."
            self._report(events.POOL_SPACE_BACK, message)

    def check(self, used: int) -> None:
        while self._level < len(self._limits) and used >= self._limits[self._level][1]:
            name, _, kind = self._limits[self._level]
            self._level += 1
            self._report(kind, f"Pool {self._pool_name} is over its {name} threshold: {self._use(used)}.")
        while self._level > 0 and used < self._limits[self._level - 1][1]:
            self._level -= 1
            name = self._limits[self._level][0]
            self._report(
                events.POOL_THRESHOLD_CLEARED,
                f"Pool {self._pool_name} is below its {name} threshold again: {self._use(used)}.",
            )

    def tell_full(self, used: int, why: str) -> None:
        """At most once a minute: a host that goes on writing must not flood the log."""
        self._refused_at = now = time.monotonic()
        self.refusal = why
        if now - self._full_told_at >= FULL_EVENT_INTERVAL_SECONDS:
            self._full_told_at = now
            self._report(
                events.POOL_FULL,
                f"Pool {self._pool_name}: a write was refused for lack of space: {why}; {self._use(used)}.",
            )

    def _use(self, used: int) -> str:
        text = (
            f"{format_size(used * self._page_bytes)} of {format_size(self._within * self._page_bytes)} are allocated "
            f"({100 * used / self._within:.1f} %)"
        )
        if self._within < self._pages:
            text += f", and its file system has no space for the rest of {format_size(self._pages * self._page_bytes)}"
        return text
