"""Points in time as ME4's `show events` takes them, in the time zone of the system. No I/O here.

MMDDhhmmss            without a year: the last such time
MMDDYYhhmmss          of the years 2000 to 2099
YYYY-MM-DD hh:mm:ss   also with T in place of the space
"""

from __future__ import annotations

import calendar
import re
from datetime import datetime, timedelta, tzinfo

from dateutil.tz import datetime_exists

from offsite.errors import BadParameter
from offsite.escaping import shown

_PATTERNS = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"(?P<month>\d\d)(?P<day>\d\d)(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)",
        r"(?P<month>\d\d)(?P<day>\d\d)(?P<short_year>\d\d)(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)",
        r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[ T](?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)",
    )
)
_YEAR_MIN, _YEAR_MAX = 1970, 2099
_LEAP_YEARS_APART_MAX = 8  # from 1896 to 1904, from 2096 to 2104


def first_instant(text: str, zone: tzinfo, now: float) -> float:
    """When the second that `text` names begins: seconds since the epoch. Of an hour that daylight saving
    repeats it is the first. Raises BadParameter."""
    return _local(text, zone, now).replace(fold=0).timestamp()


def instant_after(text: str, zone: tzinfo, now: float) -> float:
    """When the second that `text` names is over; of an hour that is repeated, the last. Raises BadParameter."""
    return _local(text, zone, now).replace(fold=1).timestamp() + 1


def _local(text: str, zone: tzinfo, now: float) -> datetime:
    match = next((found for each in _PATTERNS if (found := each.fullmatch(text))), None)
    if match is None:
        raise BadParameter(
            f"timestamp {shown(text)} is not of the form MMDDhhmmss, MMDDYYhhmmss or 'YYYY-MM-DD hh:mm:ss'"
        )
    part = {name: int(digits) for name, digits in match.groupdict().items()}
    _check("month", part["month"], 1, 12, text)
    _check("hour", part["hour"], 0, 23, text)
    _check("minute", part["minute"], 0, 59, text)
    _check("second", part["second"], 0, 59, text)
    if "short_year" in part:
        part["year"] = 2000 + part.pop("short_year")
    if "year" in part:
        _check("year", part["year"], _YEAR_MIN, _YEAR_MAX, text)
        named = _in_year(part, part["year"], text, zone)
    else:
        named = _last(part, text, zone, now)
    if not datetime_exists(named):
        raise BadParameter(
            f"timestamp {shown(text)} does not exist: daylight saving skipped that hour on {named:%Y-%m-%d}; give a "
            "time before or after it"
        )
    return named


def _in_year(part: dict[str, int], year: int, text: str, zone: tzinfo) -> datetime:
    month = f"{year:04}-{part['month']:02}"
    _check(f"day of {month}", part["day"], 1, calendar.monthrange(year, part["month"])[1], text)
    return datetime(year, part["month"], part["day"], part["hour"], part["minute"], part["second"], tzinfo=zone)


def _last(part: dict[str, int], text: str, zone: tzinfo, now: float) -> datetime:
    """The newest of such times that has been. A clock that is a little ahead of ours may have told it."""
    latest = datetime.fromtimestamp(now, zone) + timedelta(minutes=1)
    _check("day", part["day"], 1, calendar.monthrange(2000, part["month"])[1], text)  # a leap year
    for year in range(latest.year, latest.year - _LEAP_YEARS_APART_MAX - 1, -1):
        if part["day"] <= calendar.monthrange(year, part["month"])[1]:
            found = _in_year(part, year, text, zone)
            if found <= latest:
                return found
    raise AssertionError("every day of the year has been in the last nine years")


def _check(what: str, value: int, least: int, most: int, text: str) -> None:
    if not least <= value <= most:
        raise BadParameter(f"timestamp {shown(text)} has {value} as the {what}; {least} to {most} are allowed")
