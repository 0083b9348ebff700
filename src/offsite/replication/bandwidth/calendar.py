"""When which limit of bandwidth holds: the grammar of a calendar, and what it says about an instant. No I/O here.

    calendar = window { "," window }
    window   = days  hours  rate
    days     = day [ "-" day ]                  Mon  Mon-Fri  Sat-Mon (over the end of the week)
    hours    = HH:MM "-" HH:MM                  08:00-18:00  22:00-06:00 (into the next day)  00:00-24:00
    rate     = number unit [ "/s" ] | "none"    10MB  1.5MiB/s

A window over midnight belongs to the day on which it begins. Windows may touch, not overlap. Outside of all
windows the connection's plain limit holds. Times are those of the clock on the wall, in the system's time zone:
an hour that daylight saving repeats is in its window twice, one that it skips is in none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from offsite.errors import BadParameter
from offsite.units import parse_size

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WINDOWS_MAX = 64
CHARACTERS_MAX = 2048
# A batch of up to 1 MiB goes as a whole: at 100 KB/s one takes 10 s, a third of the 30 s after which a silent
# peer counts as gone, and a twelfth of the 120 s after which the receiver gives up.
RATE_MIN = 100_000
RATE_MAX = 1_000_000_000_000

_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES
_WINDOW = re.compile(r"([a-z]{3})(?:-([a-z]{3}))?\s+(\d\d):(\d\d)-(\d\d):(\d\d)\s+(\S+)", re.ASCII | re.IGNORECASE)
_DAY_NUMBERS = {day.lower(): number for number, day in enumerate(DAYS)}
_SYNTAX = "write windows as 'Mon-Fri 08:00-18:00 10MB' or 'Sat 00:00-24:00 none', with commas between them"


def parse_rate(text: str) -> int | None:
    """Bytes a second of `10MB` or `10MB/s`; None for `none`, no limit. Raises BadParameter.

    A number without a unit is refused: elsewhere it counts blocks of 512 bytes, and nobody would mean that here.
    """
    word = text.strip()
    if word.lower() == "none":
        return None
    size = word.removesuffix("/s")
    if not size[-1:].isalpha():
        raise BadParameter(f"rate {text[:64]!r} has no unit; a unit is required: 10MB or 1.5MiB (per second), or none")
    rate = parse_size(size[:64])
    if not RATE_MIN <= rate <= RATE_MAX:
        raise BadParameter(
            f"rate {text[:64]!r} is outside 100KB to 1TB per second; below that, the pause between two batches of 1 "
            "MiB would be a timeout"
        )
    return rate


def format_rate(rate: int | None) -> str:
    """As parse_rate takes it, exactly, with the largest unit that leaves a whole number."""
    if rate is None:
        return "none"
    for factor, unit in (
        (10**12, "TB"),
        (10**9, "GB"),
        (1 << 20, "MiB"),
        (10**6, "MB"),
        (1 << 10, "KiB"),
        (10**3, "KB"),
    ):
        if rate % factor == 0:
            return f"{rate // factor}{unit}"
    return f"{rate}B"


@dataclass(frozen=True, slots=True)
class Window:
    """`first` and `last` are days of the week from Monday, 0; minutes are those of the day; the rate is in
    bytes a second, None: no limit."""

    first: int
    last: int
    begin_minute: int
    end_minute: int
    rate: int | None

    def __str__(self) -> str:
        days = DAYS[self.first] + (f"-{DAYS[self.last]}" if self.last != self.first else "")
        return f"{days} {_clock(self.begin_minute)}-{_clock(self.end_minute)} {format_rate(self.rate)}"

    def days(self) -> list[int]:
        return [(self.first + each) % 7 for each in range((self.last - self.first) % 7 + 1)]

    def spans(self) -> list[tuple[int, int]]:
        """Begin and length of each of its occurrences, in minutes of the week."""
        length = (self.end_minute - self.begin_minute) % _DAY_MINUTES or _DAY_MINUTES
        return [(day * _DAY_MINUTES + self.begin_minute, length) for day in self.days()]

    def holds_at(self, minute: int) -> bool:
        return any((minute - begin) % _WEEK_MINUTES < length for begin, length in self.spans())


@dataclass(frozen=True, slots=True)
class BandwidthCalendar:
    """Windows that do not overlap. `str` gives the text that makes the same calendar; it is empty for none."""

    windows: tuple[Window, ...] = ()

    def limit_at(self, local: datetime, plain_limit: int | None) -> int | None:
        """Bytes a second at a local time; None: no limit. Outside of all windows, `plain_limit`."""
        minute = local.weekday() * _DAY_MINUTES + local.hour * 60 + local.minute
        for window in self.windows:
            if window.holds_at(minute):
                return window.rate
        return plain_limit

    def __str__(self) -> str:
        return ", ".join(map(str, self.windows))


def parse_calendar(text: str) -> BandwidthCalendar:
    """Of the grammar above; `none`, or nothing, is a calendar without windows. Raises BadParameter."""
    if len(text) > CHARACTERS_MAX:
        raise BadParameter(f"the bandwidth calendar has {len(text)} characters; at most {CHARACTERS_MAX} are allowed")
    if text.strip().lower() in ("", "none"):
        return BandwidthCalendar()
    parts = text.split(",")
    if len(parts) > WINDOWS_MAX:
        raise BadParameter(f"the bandwidth calendar has {len(parts)} windows; at most {WINDOWS_MAX} are allowed")
    windows = tuple(_parse_window(part.strip()) for part in parts)
    _check_overlaps(windows)
    return BandwidthCalendar(windows)


def _parse_window(text: str) -> Window:
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise BadParameter(f"{text[:64]!r} is not a window of a bandwidth calendar; {_SYNTAX}")
    first = _parse_day(match[1], text)
    last = _parse_day(match[2], text) if match[2] else first
    begin, end = _parse_minute(match[3], match[4], text), _parse_minute(match[5], match[6], text)
    if begin == _DAY_MINUTES:
        raise BadParameter(f"{text[:64]!r} begins at 24:00; write 00:00 of the next day")
    if begin == end:
        raise BadParameter(f"{text[:64]!r} is empty; a whole day is 00:00-24:00")
    return Window(first, last, begin, end, parse_rate(match[7]))


def _parse_day(word: str, text: str) -> int:
    day = _DAY_NUMBERS.get(word.lower())
    if day is None:
        raise BadParameter(f"{word!r} in {text[:64]!r} is not a day; use one of {', '.join(DAYS)}")
    return day


def _parse_minute(hour: str, minute: str, text: str) -> int:
    found = int(hour) * 60 + int(minute)
    if int(minute) > 59 or found > _DAY_MINUTES:
        raise BadParameter(f"{hour}:{minute} in {text[:64]!r} is not a time of day; 00:00 to 24:00 are allowed")
    return found


def _check_overlaps(windows: tuple[Window, ...]) -> None:
    for position, window in enumerate(windows):
        for other in windows[:position]:
            if any(_overlap(one, two) for one in window.spans() for two in other.spans()):
                raise BadParameter(f"windows {str(other)!r} and {str(window)!r} overlap; give each time one limit")


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return (other[0] - one[0]) % _WEEK_MINUTES < one[1] or (one[0] - other[0]) % _WEEK_MINUTES < other[1]


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
