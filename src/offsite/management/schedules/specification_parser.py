"""From the text of a specification to what it says. No I/O here; specification.py has the grammar.

Letters may be of either case, units in the singular, and a comma may stand between clauses, which come in any order
after `start`. A time without AM or PM is of a 24-hour clock.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from offsite.errors import BadParameter
from offsite.escaping import shown
from offsite.management.schedules.specification import (
    DAYS,
    INTERVAL_YEARS_MAX,
    MINUTES,
    MONTHS,
    ORDINALS,
    PERIODS,
    Between,
    Every,
    Only,
    Specification,
    Unit,
    numeral,
)

CHARACTERS_MAX = 256
NUMBER_MAX = 525_600  # of `every`: the minutes of a year
COUNT_MAX = 1_000_000
YEAR_MIN, YEAR_MAX = 2000, 2099
_WORD = re.compile(r"[^\s,]+|,")
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d{1,2}):(\d\d)", re.ASCII)
_NUMERAL = re.compile(r"(\d{1,3})(?:st|nd|rd|th)", re.ASCII | re.IGNORECASE)
_HALVES = ("am", "pm")
_UNITS: dict[str, Unit] = {unit: unit for unit in MINUTES} | {unit[:-1]: unit for unit in MINUTES}
_DAYS = {name.lower(): name for name in DAYS}
_PERIODS = {name.lower(): name for name in PERIODS}


def parse(text: str) -> Specification:
    """Raises BadParameter with the value and the rule that it breaks."""
    if len(text) > CHARACTERS_MAX:
        raise BadParameter(
            f"the schedule specification has {len(text)} characters; at most {CHARACTERS_MAX} are allowed"
        )
    words = _Words(text)
    words.expect("start", "a schedule specification")
    found: dict[str, Any] = {"start": _date_and_time(words, "start")}
    while (clause := words.next_clause()) is not None:
        read = _CLAUSES.get(clause.lower())
        if read is None:
            raise BadParameter(
                f"{shown(clause)} after {words.before()} is not part of a schedule specification; after the start, "
                f"these are allowed: {', '.join(_CLAUSES)}"
            )
        if clause.lower() in found:
            raise BadParameter(f"the schedule specification has {clause.lower()} twice; give it once")
        found[clause.lower()] = read(words)
    specification = Specification(**found)
    _check(specification)
    return specification


def _check(found: Specification) -> None:
    if found.every is None:
        for name in ("between", "only", "count"):
            if getattr(found, name) is not None:
                raise BadParameter(f"{name} requires every: without it the only start is at {found.start}")
    if found.expires is not None and found.expires < found.start:
        raise BadParameter(
            f"expires {found.expires:%Y-%m-%d %H:%M} is before the start {found.start:%Y-%m-%d %H:%M}; it must be at "
            "the start or later"
        )


class _Words:
    """The words of a specification, one after another."""

    def __init__(self, text: str) -> None:
        self._words = _WORD.findall(text)
        self._position = 0

    def take(self, what: str) -> str:
        word = self.peek()
        if word is None:
            raise BadParameter(f"the schedule specification is incomplete: {what} is required after {self.before()}")
        self._position += 1
        return word

    def peek(self) -> str | None:
        return self._words[self._position] if self._position < len(self._words) else None

    def expect(self, keyword: str, of: str) -> None:
        word = self.take(repr(keyword))
        if word.lower() != keyword:
            raise BadParameter(f"{of} requires {keyword!r} after {self.before(1)}, not {shown(word)}")

    def next_clause(self) -> str | None:
        """The word that begins the next clause, after a comma or not."""
        if self.peek() == ",":
            self._position += 1
            return self.take("a clause")
        return None if self.peek() is None else self.take("a clause")

    def before(self, back: int = 0) -> str:
        """The words before the one that was taken last, as far as a reader needs them."""
        taken = self._words[: self._position - back]
        return shown(" ".join(taken[-3:])) if taken else "its beginning"


def _date_and_time(words: _Words, what: str) -> datetime:
    text = words.take(f"the date of {what}, yyyy-mm-dd,")
    match = _DATE.fullmatch(text)
    if match is None:
        raise BadParameter(f"{shown(text)} is not the date of {what}; write it yyyy-mm-dd, as 2027-01-31")
    year, month, day = (int(each) for each in match.groups())
    if not YEAR_MIN <= year <= YEAR_MAX:
        raise BadParameter(f"{what} {text} has the year {year}; {YEAR_MIN} to {YEAR_MAX} are allowed")
    if not 1 <= month <= 12:
        raise BadParameter(f"{what} {text} has the month {month}; 1 to 12 are allowed")
    days = calendar.monthrange(year, month)[1]
    if not 1 <= day <= days:
        raise BadParameter(f"{what} {text} does not exist: {MONTHS[month - 1]} {year} has the days 1 to {days}")
    minute = _time(words, what)
    return datetime(year, month, day, minute // 60, minute % 60)


def _time(words: _Words, what: str) -> int:
    """The minute of the day."""
    text = words.take(f"the time of {what}, hh:mm,")
    match = _TIME.fullmatch(text)
    if match is None:
        raise BadParameter(f"{shown(text)} is not the time of {what}; write hh:mm, or hh:mm AM or hh:mm PM")
    hour, minute = int(match[1]), int(match[2])
    half = (words.peek() or "").lower()
    if half in _HALVES:
        words.take("AM or PM")
        if not 1 <= hour <= 12:
            raise BadParameter(
                f"{what} {text} {half.upper()} has the hour {hour}; with {half.upper()}, 1 to 12 are allowed"
            )
        hour = hour % 12 + (12 if half == "pm" else 0)
    if hour > 23 or minute > 59:
        raise BadParameter(f"{what} {text} is not a time of day; 00:00 to 23:59 are allowed")
    return hour * 60 + minute


def _every(words: _Words) -> Every:
    number = _number(words, "every", NUMBER_MAX)
    word = words.take("a unit")
    unit = _UNITS.get(word.lower())
    if unit is None:
        raise BadParameter(f"every {number} {shown(word)} has an unknown unit; use one of {', '.join(MINUTES)}")
    found = Every(number, unit)
    if found.minutes > INTERVAL_YEARS_MAX * MINUTES["years"]:
        raise BadParameter(f"{found} is longer than {INTERVAL_YEARS_MAX} years, the longest interval allowed")
    return found


def _between(words: _Words) -> Between:
    first = _time(words, "between")
    words.expect("and", "between")
    last = _time(words, "between … and")
    found = Between(first, last)
    if first == last:
        raise BadParameter(f"{found} is empty; give two different times, or leave it out for the whole day")
    return found


def _only(words: _Words) -> Only:
    ordinal = _ordinal(words.take("any, first, second, last or a number"))
    days = _one_of(words, "only", "a kind of day", _DAYS)
    words.expect("of", "only")
    return Only(ordinal, days, _one_of(words, "only", "year, month, or the name of a month", _PERIODS))


def _ordinal(word: str) -> int:
    found = ORDINALS.get(word.lower())
    if found is not None:
        return found
    match = _NUMERAL.fullmatch(word)
    if match is None:
        raise BadParameter(f"only {shown(word)} is neither one of {', '.join(ORDINALS)} nor a number as 1st, 2nd, 21st")
    number = int(match[1])
    if not 1 <= number <= 366:
        raise BadParameter(f"only {shown(word)} is outside 1st to 366th")
    if word.lower() != numeral(number):
        raise BadParameter(f"only {shown(word)} is misspelled; write {numeral(number)}")
    return number


def _one_of(words: _Words, clause: str, what: str, known: dict[str, str]) -> str:
    word = words.take(what)
    found = known.get(word.lower())
    if found is None:
        raise BadParameter(f"{clause} … {shown(word)} is not {what}; use one of {', '.join(known.values())}")
    return found


def _number(words: _Words, clause: str, most: int) -> int:
    text = words.take("a number")
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or not 1 <= int(text) <= most:
        raise BadParameter(f"{clause} {shown(text)} is not a whole number from 1 to {most}")
    return int(text)


_CLAUSES: dict[str, Callable[[_Words], Any]] = {
    "every": _every,
    "between": _between,
    "only": _only,
    "count": lambda words: _number(words, "count", COUNT_MAX),
    "expires": lambda words: _date_and_time(words, "expires"),
}
