"""What the tests of schedules share: a clock that they own, a real system, and its scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from offsite.management.schedules.scheduler import Scheduler
from offsite.management.task_runner.task_work import scheduler_of
from offsite.store.settings import TIME_ZONE
from tests.management.management_bench import Bench


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


@dataclass
class OwnedClock:
    """Both its times are the same, and stand still until told otherwise."""

    at: float

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Office:
    """A bench in UTC whose clock stands at 2027-01-04 (a Monday) 10:00, with its scheduler, whose starts are done at
    once, unless a test holds them up."""

    def __init__(self, bench: Bench, clock: OwnedClock) -> None:
        self.bench = bench
        self.clock = clock
        bench.system.settings.set(TIME_ZONE, "UTC")
        self.holds_starts_up = False
        self.held_up: dict[str, Callable[[], None]] = {}
        self.scheduler = self.restarted()

    def restarted(self) -> Scheduler:
        """A scheduler that knows only what is on record, as after a crash."""
        self.scheduler = scheduler_of(self.bench.system, self._begin)
        return self.scheduler

    def _begin(self, name: str, work: Callable[[], None]) -> None:
        if self.holds_starts_up:
            self.held_up[name] = work
        else:
            work()

    def run_until(self, at: float) -> None:
        """As a ticker would, with the time passing between steps."""
        while (due := self.scheduler.step()) <= at:
            self.clock.at = max(self.clock.at, due)
        self.clock.at = at

    def starts(self) -> list[str]:
        """The times of the starts so far, from the events, in their order."""
        return [self.shown(at) for at, message in self.told(637) if message]

    def told(self, code: int) -> list[tuple[float, str]]:
        """When and what, of the events of this code, oldest first."""
        found = self.bench.system.events.newest(10_000)
        return [(each.at, each.message) for each in reversed(found) if each.code == code]

    @staticmethod
    def shown(at: float) -> str:
        return datetime.fromtimestamp(at, UTC).strftime("%d %H:%M")


@dataclass
class WallOf:
    """The time on the wall of another clock, with a monotonic time that passes."""

    clock: OwnedClock

    def now(self) -> float:
        return self.clock.at

    def monotonic(self) -> float:
        return time.monotonic()
