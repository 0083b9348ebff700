"""How far a run is, as anyone may ask at any time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from offsite.clock import Clock
from offsite.errors import ErrorClass

Phase = Literal[
    "waiting for its turn",
    "connecting",
    "sending",
    "comparing",
    "committing",
    "waiting",
    "success",
    "failed",
    "stopped",
]
_RATE_SECONDS = 3.0  # the rate is that of about the last so many seconds


@dataclass(frozen=True)
class RunProgress:
    """`bytes_total` is what the difference says may have changed; what did not is passed over unsent."""

    run: str
    state: Phase
    percent: float
    bytes_total: int
    bytes_left: int
    changed_bytes: int  # data sent, before compression
    wire_bytes: int
    rate_bytes_per_second: float  # of bytes_total
    started_at: float
    ended_at: float | None
    expected_end_at: float | None
    error: str | None  # why it failed, or what it waits for to be over
    trouble: ErrorClass | None  # it failed, and has not got any further since: who can do something about it

    @property
    def in_trouble(self) -> bool:
        return self.trouble is not None


class Progress:
    """Written by the thread of the run, read by others."""

    def __init__(self, run: str, started_at: float, clock: Clock, *, may_be_committed: bool = False) -> None:
        self.run = run
        self.state: Phase = "waiting for its turn"
        self.error: str | None = None
        self.error_class = ErrorClass.TRANSIENT  # of `error`
        self.changed_bytes = 0
        self.wire_bytes = 0
        self.may_be_committed = may_be_committed  # whether the secondary may have the run's point as its base
        self.got_somewhere = False  # since it began, or failed last
        self.ended_at: float | None = None
        self._started_at = started_at
        self._clock = clock
        self._total = 0
        self._scanned = 0
        self._rate = 0.0
        self._marked_at = clock.monotonic()
        self._marked_scanned = 0

    def begin(self, total_bytes: int, left_bytes: int) -> None:
        """A difference is about to be sent, or what is left of it."""
        self.state = "sending"
        self._total, self._scanned = total_bytes, total_bytes - left_bytes
        self._rate = 0.0
        self._marked_at, self._marked_scanned = self._clock.monotonic(), self._scanned

    def compare(self) -> None:
        """All is sent; what was sent before the connection was cut is read again."""
        self.state = "comparing"
        self.got_somewhere = True

    def scanned(self, scanned_bytes: int) -> None:
        self.got_somewhere = True
        self._scanned += scanned_bytes
        now = self._clock.monotonic()
        elapsed = now - self._marked_at
        if elapsed >= _RATE_SECONDS or (elapsed > 0 and self._rate == 0.0):
            self._rate = (self._scanned - self._marked_scanned) / elapsed
            self._marked_at, self._marked_scanned = now, self._scanned

    def wait(self, reason: str, error_class: ErrorClass) -> None:
        """It failed, and will be tried again."""
        self.error, self.error_class = reason, error_class
        self.got_somewhere = False
        self.state = "waiting"

    def end(self, state: Phase, error: str | None = None) -> None:
        self.error = error
        self.ended_at = self._clock.now()
        self.state = state

    def go_on(self) -> None:
        """It was stopped, and may go on from now on."""
        if self.state == "stopped":
            self.state, self.ended_at = "waiting for its turn", None

    def snapshot(self) -> RunProgress:
        left = max(0, self._total - self._scanned)
        done = self.state == "success"
        percent = 100.0 if done else 100.0 * (1 - left / self._total) if self._total else 0.0
        in_trouble = not done and self.error is not None and not self.got_somewhere
        expected = self._clock.now() + left / self._rate if self.state == "sending" and self._rate else None
        return RunProgress(
            run=self.run,
            state=self.state,
            percent=percent,
            bytes_total=self._total,
            bytes_left=0 if done else left,
            changed_bytes=self.changed_bytes,
            wire_bytes=self.wire_bytes,
            rate_bytes_per_second=self._rate,
            started_at=self._started_at,
            ended_at=self.ended_at,
            expected_end_at=expected,
            error=self.error,
            trouble=self.error_class if in_trouble else None,
        )
