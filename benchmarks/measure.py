"""What was measured, what it is held against, and whether that was reached. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Unit(Enum):
    """What a number counts, and so how people read it."""

    PER_SECOND = "operations a second"
    BYTES_PER_SECOND = "bytes a second"
    SECONDS = "seconds"
    BYTES = "bytes"
    OF_A_CORE = "seconds of processor time a second"

    def text(self, value: float) -> str:
        match self:
            case Unit.PER_SECOND:
                return f"{round(value, -2) if value >= 10_000 else value:,.0f}/s"
            case Unit.BYTES_PER_SECOND:
                return f"{value / 1e6:,.0f} MB/s"
            case Unit.BYTES:
                return f"{value / 1e6:,.2f} MB"
            case Unit.OF_A_CORE:
                return f"{value:z.2%}".replace("%", " %")
            case Unit.SECONDS:
                return _duration(value)


def _duration(seconds: float) -> str:
    for factor, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {name}" if seconds < 1000 * factor else f"{seconds / factor:,.0f} {name}"
    return f"{seconds * 1e6:.0f} µs"


@dataclass(frozen=True, slots=True)
class Samples:
    """The values of one thing, measured again and again. At least one."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Samples:
        return cls(tuple(values))

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, unit: Unit) -> str:
        """The median, and in parentheses the lowest and the highest."""
        if len(set(self.values)) == 1:
            return unit.text(self.median)
        return f"{unit.text(self.median)} ({unit.text(min(self.values))} to {unit.text(max(self.values))})"


@dataclass(frozen=True, slots=True)
class Target:
    """The bound for a ratio to a peer, or, without a peer, for the value itself."""

    relation: Literal["≥", "≤", "<"]
    bound: float

    def is_reached_by(self, value: float) -> bool:
        match self.relation:
            case "≥":
                return value >= self.bound
            case "≤":
                return value <= self.bound
            case "<":
                return value < self.bound


def at_least(bound: float) -> Target:
    return Target("≥", bound)


def at_most(bound: float) -> Target:
    return Target("≤", bound)


def below(bound: float) -> Target:
    return Target("<", bound)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: something of Offsite's, beside something else or (`beside` empty) alone.

    Without a target it is there to be read, and nothing is claimed.
    """

    title: str
    unit: Unit
    beside: str = ""
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """`beside` says more of the peer than the line knew beforehand, such as which setting was its best."""

    own: Samples
    other: Samples | None = None
    beside: str = ""

    @property
    def ratio(self) -> float | None:
        """Of the medians, Offsite's over the peer's."""
        return self.own.median / self.other.median if self.other else None


@dataclass(frozen=True, slots=True)
class Unmeasured:
    why: str


Outcome = Measured | Unmeasured
Outcomes = dict[Line, Outcome]


def is_reached(line: Line, outcome: Outcome) -> bool | None:
    """None when nothing was claimed or nothing was measured."""
    if line.target is None or isinstance(outcome, Unmeasured):
        return None
    ratio = outcome.ratio
    return line.target.is_reached_by(outcome.own.median if ratio is None else ratio)
