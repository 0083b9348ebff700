"""How far the clock of a peer is ahead of this system's, and what an instant of its is worth here. No I/O here.

A peer stamps its Hello at some moment between our last word before it and the Hello's arrival. So what the peer's clock
showed belongs to a moment that is known to lie within that wait: half of it is the uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass

LASTS_SECONDS = 900.0  # a closer measurement is preferred to newer ones for so long
OVER_BELOW = 0.9  # of what is told: so that a skew just there is not told and taken back all the time
TOLERATED_SECONDS = 1.0  # by which an instant may be in the future before nobody knows its age


@dataclass(frozen=True, slots=True)
class PeerClock:
    """What the clock of a peer shows: `ahead_seconds` more than our monotonic clock. So a step of our own clock on the
    wall makes no difference to it."""

    ahead_seconds: float
    uncertainty_seconds: float
    measured_at: float  # monotonic

    def time_at(self, monotonic: float) -> float:
        return monotonic + self.ahead_seconds


@dataclass(frozen=True, slots=True)
class Skew:
    """How far a peer's clock on the wall is ahead of ours; negative: behind."""

    seconds: float
    uncertainty_seconds: float

    def is_beyond(self, limit_seconds: float) -> bool:
        """For certain."""
        return abs(self.seconds) - self.uncertainty_seconds >= limit_seconds

    def is_over(self, limit_seconds: float) -> bool:
        """For certain."""
        return abs(self.seconds) + self.uncertainty_seconds < OVER_BELOW * limit_seconds

    def __str__(self) -> str:
        return f"{abs(self.seconds):.1f} s {'ahead' if self.seconds >= 0 else 'behind'}"


def measure(stamp: float, waited_seconds: float, monotonic: float) -> PeerClock:
    """From a stamp that came at `monotonic`, after it was waited for."""
    half = max(0.0, waited_seconds) / 2
    return PeerClock(stamp - (monotonic - half), half, monotonic)


def better(known: PeerClock | None, new: PeerClock) -> PeerClock:
    """The closer one, as long as it holds good: the newer one, when it is too old or the clock was set meanwhile."""
    if known is None or known.uncertainty_seconds >= new.uncertainty_seconds:
        return new
    apart = abs(known.ahead_seconds - new.ahead_seconds)
    agree = apart <= known.uncertainty_seconds + new.uncertainty_seconds
    return known if agree and new.measured_at - known.measured_at < LASTS_SECONDS else new


def age(instant: float, now: float | None, uncertainty_seconds: float = 0.0) -> float | None:
    """How long ago an instant is by the clock that it was read from. None: nobody can know, for that clock is not
    known, or was set back since."""
    if now is None or now - instant < -(TOLERATED_SECONDS + uncertainty_seconds):
        return None
    return max(0.0, now - instant)
