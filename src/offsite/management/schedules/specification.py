"""When a schedule starts its task: what a specification says. No I/O here; specification_parser.py reads it.

    start yyyy-mm-dd hh:mm [AM|PM]
    [every # minutes|hours|days|weeks|months|years]
    [between hh:mm [AM|PM] and hh:mm [AM|PM]]
    [only any|first|second|third|fourth|fifth|last|#st… weekday|weekendday|Sunday…|day of year|month|January…]
    [count #]
    [expires yyyy-mm-dd hh:mm [AM|PM]]

Dates and times are those of the clock on the wall, in the system's time zone, to the minute. `between` and `only`
are filters: of the instants that `start` and `every` give, those that they let through are the starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

Unit = Literal["minutes", "hours", "days", "weeks", "months", "years"]
MINUTES: Mapping[Unit, int] = {  # the least that a unit may be
    "minutes": 1,
    "hours": 60,
    "days": 24 * 60,
    "weeks": 7 * 24 * 60,
    "months": 28 * 24 * 60,
    "years": 365 * 24 * 60,
}
INTERVAL_YEARS_MAX = 50
ANY, LAST = 0, -1  # ordinals that are no number
ORDINALS: Mapping[str, int] = {"any": ANY, "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "last": LAST}
_DAYS_OF_WEEK = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DAYS: Mapping[str, frozenset[int]] = {  # as date.weekday counts them
    "day": frozenset(range(7)),
    "weekday": frozenset(range(5)),
    "weekendday": frozenset((5, 6)),
    **{name: frozenset((number,)) for number, name in enumerate(_DAYS_OF_WEEK)},
}
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
PERIODS = ("year", "month", *MONTHS)


@dataclass(frozen=True, slots=True)
class Every:
    number: int
    unit: Unit

    @property
    def is_elapsed(self) -> bool:
        """Whether it is a span of time; days and longer keep the time on the wall."""
        return self.unit in ("minutes", "hours")

    @property
    def minutes(self) -> int:
        """The least time between two starts."""
        return self.number * MINUTES[self.unit]

    def __str__(self) -> str:
        return f"every {self.number} {self.unit}"


@dataclass(frozen=True, slots=True)
class Between:
    """Minutes of the day. Both are within it; when the last is before the first it goes over midnight."""

    first: int
    last: int

    def holds_at(self, minute: int) -> bool:
        if self.first <= self.last:
            return self.first <= minute <= self.last
        return minute >= self.first or minute <= self.last

    def __str__(self) -> str:
        return f"between {clock_time(self.first)} and {clock_time(self.last)}"


@dataclass(frozen=True, slots=True)
class Only:
    ordinal: int  # ANY, LAST, or the how manieth
    days: str  # of DAYS
    period: str  # of PERIODS

    def permits(self, day: date) -> bool:
        if day.weekday() not in DAYS[self.days]:
            return False
        if self.period in MONTHS and day.month != MONTHS.index(self.period) + 1:
            return False
        if self.ordinal == ANY:
            return True
        if self.ordinal == LAST:
            return self._is_last(day)
        return self._position(day) == self.ordinal

    def _position(self, day: date) -> int:
        """How many such days there are in its period up to this one."""
        begin = day.replace(day=1) if self.period != "year" else day.replace(month=1, day=1)
        passed = (day - begin).days
        # One kind of day of the week after another: the first is (number - begin) % 7 days after the begin.
        return sum((passed - (number - begin.weekday()) % 7) // 7 + 1 for number in DAYS[self.days])

    def _is_last(self, day: date) -> bool:
        later = (day + timedelta(days=each) for each in range(1, 8))
        following = next(each for each in later if each.weekday() in DAYS[self.days])
        if self.period == "year":
            return following.year != day.year
        return following.month != day.month

    def __str__(self) -> str:
        words = {number: word for word, number in ORDINALS.items()}
        ordinal = words.get(self.ordinal) or numeral(self.ordinal)
        return f"only {ordinal} {self.days} of {self.period}"


@dataclass(frozen=True, slots=True)
class Specification:
    """`str` gives the text that means the same, in a 24-hour clock."""

    start: datetime  # as all of them without a zone: what the clock on the wall shows
    every: Every | None = None  # none: it starts once
    between: Between | None = None
    only: Only | None = None
    count: int | None = None  # how many starts there are at most
    expires: datetime | None = None  # there is no start after it

    def permits(self, local: datetime) -> bool:
        """Whether `between` and `only` let a start at this time through."""
        if self.between is not None and not self.between.holds_at(local.hour * 60 + local.minute):
            return False
        return self.only is None or self.only.permits(local.date())

    def __str__(self) -> str:
        parts = [f"start {self.start:%Y-%m-%d %H:%M}"]
        parts += [str(each) for each in (self.every, self.between, self.only) if each is not None]
        parts += [f"count {self.count}"] if self.count is not None else []
        parts += [f"expires {self.expires:%Y-%m-%d %H:%M}"] if self.expires is not None else []
        return " ".join(parts)


def clock_time(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def numeral(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st…"""
    teens = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
