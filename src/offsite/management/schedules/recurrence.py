"""The instants at which a specification starts its task, in a time zone. Pure: no clock, no I/O.

`every # minutes|hours` are spans of elapsed time from the start: through a change of daylight saving they go on
evenly, and `between` and `only` are asked about what the clock shows at each of them. Days and longer keep the time
on the wall: `between` and `only` are asked about that time, and where daylight saving

    leaves the hour out     the start is at the first instant after it
    has the hour twice      the start is at the first of the two

Months and years count from the day of the start; a month that has no such day has its start on its last day.

Each function costs by what lies between the time asked about and the answer, never by how long ago the start was.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from offsite.management.schedules.specification import INTERVAL_YEARS_MAX, Every, Specification

# How far ahead a start is looked for: a fifth Sunday of February may take 40 years to come.
HORIZON_YEARS = INTERVAL_YEARS_MAX
_HORIZON_SECONDS = HORIZON_YEARS * 366 * 86400
_DAY = timedelta(days=1)
_ZONE_SECONDS = 1.5 * 86400  # more than times on the wall and in UTC may differ, also where a whole day was left out


def next_start(found: Specification, at: float, zone: tzinfo) -> float | None:
    """The first start at or after the instant `at`, in seconds since the epoch. None: there is none any more, or
    not within 50 years. How many starts there may be in all, `count`, is not asked."""
    first = instant_of(found.start, zone)
    last = max(at, first) + _HORIZON_SECONDS
    if found.expires is not None:
        last = min(last, instant_of(found.expires, zone))
    if found.every is None:
        instant: float | None = first if first >= at else None
    elif found.every.is_elapsed:
        instant = _next_elapsed(found, found.every, max(at, first), last, zone)
    else:
        instant = _next_on_the_wall(found, found.every, at, last, zone)
    return instant if instant is not None and instant <= last else None


def count_starts(found: Specification, first: float, last: float, zone: tzinfo, most: int) -> int:
    """How many starts there are from `first` to `last`, both included; no more than `most` are counted."""
    count, at = 0, next_start(found, first, zone)
    while at is not None and at <= last and count < most:
        count += 1
        at = next_start(found, at + 1, zone)
    return count


def instant_of(local: datetime, zone: tzinfo) -> float:
    """When a clock on the wall shows `local` for the first time, or first shows a later time."""
    return _instant(local, zone, fold=0)


def exists(local: datetime, zone: tzinfo) -> bool:
    """Whether a clock on the wall ever shows `local`."""
    return local_time(instant_of(local, zone), zone) == local


def local_time(instant: float, zone: tzinfo) -> datetime:
    """What a clock on the wall shows."""
    return datetime.fromtimestamp(instant, zone).replace(tzinfo=None, fold=0)


def _instant(local: datetime, zone: tzinfo, fold: int) -> float:
    instant = local.replace(tzinfo=zone, fold=fold).timestamp()
    if local_time(instant, zone) == local:
        return instant
    near = local.replace(tzinfo=UTC).timestamp()  # it is in a gap, which is not further from this than any offset
    return _change_of_offset(near - _ZONE_SECONDS, near + _ZONE_SECONDS, zone)


def _change_of_offset(before: float, after: float, zone: tzinfo) -> float:
    """The instant between the two at which the zone changes its offset."""
    old = _offset(before, zone)
    low, high = int(before), int(after)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(middle, zone) == old else (low, middle)
    return float(high)


def _offset(instant: float, zone: tzinfo) -> timedelta:
    return datetime.fromtimestamp(instant, zone).utcoffset() or timedelta()


# -- spans of elapsed time ---------------------------------------------------------------------------------------


def _next_elapsed(found: Specification, every: Every, at: float, last: float, zone: tzinfo) -> float | None:
    first, span = instant_of(found.start, zone), every.minutes * 60
    until = local_time(last, zone)
    while at <= last:
        instant = first - (first - at) // span * span  # the first of the row that is not before `at`
        local = local_time(instant, zone)
        if found.permits(local):
            return instant
        permitted = _first_permitted(found, local, until)
        if permitted is None:
            return None
        at = _later(instant, permitted, zone)
    return None


def _first_permitted(found: Specification, local: datetime, until: datetime) -> datetime | None:
    """The first time on the wall, from `local` on, that `between` and `only` permit."""
    while local <= until:
        midnight = local.replace(hour=0, minute=0)
        if found.only is not None and not found.only.permits(local.date()):
            local = midnight + _DAY
        elif found.permits(local):
            return local
        else:
            begin = midnight + timedelta(minutes=found.between.first if found.between else 0)
            local = begin if begin > local else midnight + _DAY
    return None


def _later(instant: float, local: datetime, zone: tzinfo) -> float:
    """When the clock shows `local` next, after `instant`; if it is put back before that, when it is put back, for
    then it shows again what it has shown."""
    later = instant_of(local, zone)
    if later <= instant:
        later = _instant(local, zone, fold=1)
    if _offset(later, zone) < _offset(instant, zone):
        return _change_of_offset(instant, later, zone)
    return later


# -- times on the wall -------------------------------------------------------------------------------------------


def _next_on_the_wall(found: Specification, every: Every, at: float, last: float, zone: tzinfo) -> float | None:
    begin, until = local_time(at - _ZONE_SECONDS, zone), local_time(last + _ZONE_SECONDS, zone)
    for local in _times_on_the_wall(found.start, every, begin):
        if local > until:
            return None
        if found.permits(local):
            instant = instant_of(local, zone)
            if instant >= at:
                return instant
    return None


def _times_on_the_wall(start: datetime, every: Every, begin: datetime) -> Iterator[datetime]:
    """The row of times from `start` on, without most of those before `begin`."""
    if every.unit in ("days", "weeks"):
        step = timedelta(minutes=every.minutes)
        local = start + max(0, (begin - start) // step) * step
        while True:
            yield local
            local += step
    months = every.number * (12 if every.unit == "years" else 1)
    passed = (begin.year - start.year) * 12 + begin.month - start.month
    number = max(0, passed // months)
    while (year := (start.year * 12 + start.month - 1 + number * months) // 12) <= datetime.max.year:
        month = (start.month - 1 + number * months) % 12 + 1
        yield start.replace(year=year, month=month, day=min(start.day, calendar.monthrange(year, month)[1]))
        number += 1
