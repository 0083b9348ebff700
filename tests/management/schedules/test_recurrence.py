"""The instants of a specification: by an oracle that walks every candidate, and by hand through daylight saving."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from hypothesis import example, given, settings
from hypothesis import strategies as st

from offsite.management.schedules.recurrence import exists, instant_of, next_start
from offsite.management.schedules.specification import (
    DAYS,
    LAST,
    PERIODS,
    Between,
    Every,
    Only,
    Specification,
)
from offsite.management.schedules.specification_parser import parse
from offsite.management.system_zone import zone_of

LONDON, NEW_YORK, LORD_HOWE, KATHMANDU = (
    "Europe/London",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
)
ZONES = (LONDON, NEW_YORK, LORD_HOWE, KATHMANDU, "Pacific/Apia", "America/Havana", "UTC")


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


def starts(text: str, zone_name: str, count: int) -> list[str]:
    """The first instants of a specification, in UTC."""
    found, zone = parse(text), zone_of(zone_name)
    at: float | None = instant_of(found.start, zone)
    told: list[str] = []
    while len(told) < count and at is not None and (at := next_start(found, at, zone)) is not None:
        told.append(datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M"))
        at += 1
    return told


# -- an oracle: slow, and written another way ------------------------------------------------------------------


def oracle_of_local(local: datetime, zone: tzinfo) -> float:
    """The first minute, walking from long before, at which the clock shows `local` or jumps over it."""
    instant = local.replace(tzinfo=UTC).timestamp() - 40 * 3600
    before = datetime.fromtimestamp(instant, zone).replace(tzinfo=None, fold=0)
    while True:
        instant += 60
        shown = datetime.fromtimestamp(instant, zone).replace(tzinfo=None, fold=0)
        if shown == local or before < local < shown:
            return instant
        before = shown


def oracle_permits_date(only: Only, day: datetime) -> bool:
    if only.period == "year":
        first, last = datetime(day.year, 1, 1), datetime(day.year, 12, 31)
    elif only.period == "month":
        first, last = day.replace(day=1), day.replace(day=calendar.monthrange(day.year, day.month)[1])
    else:
        month = list(calendar.month_name).index(only.period)
        first = datetime(day.year, month, 1)
        last = datetime(day.year, month, calendar.monthrange(day.year, month)[1])
    days = [first + timedelta(days=each) for each in range((last - first).days + 1)]
    kinds = {"day": range(7), "weekday": range(5), "weekendday": range(5, 7)}
    wanted = kinds.get(only.days, [list(calendar.day_name).index(only.days)] if only.days not in kinds else [])
    such = [each.date() for each in days if each.weekday() in wanted]
    if only.ordinal == 0:
        return day.date() in such
    if only.ordinal == LAST:
        return bool(such) and such[-1] == day.date()
    return len(such) >= only.ordinal and such[only.ordinal - 1] == day.date()


def oracle_permits(found: Specification, local: datetime) -> bool:
    if found.between is not None:
        minute, first, last = local.hour * 60 + local.minute, found.between.first, found.between.last
        window = set(range(first, last + 1)) if first <= last else set(range(first, 1440)) | set(range(last + 1))
        if minute not in window:
            return False
    return found.only is None or oracle_permits_date(found.only, local)


def oracle_candidates(found: Specification, zone: tzinfo) -> Iterator[tuple[float, datetime]]:
    every, number = found.every, 0
    begin = oracle_of_local(found.start, zone)
    assert every is not None
    while True:
        if every.unit in ("minutes", "hours"):
            instant = begin + number * every.number * {"minutes": 60, "hours": 3600}[every.unit]
            yield instant, datetime.fromtimestamp(instant, zone).replace(tzinfo=None, fold=0)
        else:
            if every.unit in ("days", "weeks"):
                local = found.start + timedelta(days=number * every.number * {"days": 1, "weeks": 7}[every.unit])
            else:
                month = found.start.month - 1 + number * every.number * {"months": 1, "years": 12}[every.unit]
                year, month = found.start.year + month // 12, month % 12 + 1
                day = min(found.start.day, calendar.monthrange(year, month)[1])
                local = found.start.replace(year=year, month=month, day=day)
            yield oracle_of_local(local, zone), local
        number += 1


def oracle(found: Specification, at: float, zone: tzinfo, until: float) -> float | None:
    for instant, local in oracle_candidates(found, zone):
        if instant > until:
            return None
        if instant >= at and oracle_permits(found, local):
            return instant
    raise AssertionError("candidates never end")


# Around changes of daylight saving, for that is where it is hard.
STARTS = st.sampled_from(
    [
        datetime(2027, 3, 27, 1, 30),
        datetime(2027, 3, 13, 2, 15),
        datetime(2027, 10, 29, 1, 30),
        datetime(2027, 11, 6, 0, 30),
        datetime(2027, 4, 2, 1, 45),
        datetime(2027, 10, 1, 2, 15),
        datetime(2028, 1, 31, 23, 59),
        datetime(2028, 2, 29, 0, 0),
    ]
)
EVERY = st.one_of(
    st.builds(Every, st.integers(7, 200), st.just("minutes")),
    st.builds(Every, st.integers(1, 50), st.just("hours")),
    st.builds(Every, st.integers(1, 10), st.sampled_from(["days", "weeks", "months"])),
    st.builds(Every, st.integers(1, 2), st.just("years")),
)
MINUTE = st.integers(0, 1439) | st.sampled_from([0, 60, 90, 120, 135, 1439])
BETWEEN = st.none() | st.builds(Between, MINUTE, MINUTE)
ONLY = st.none() | st.builds(
    Only, st.sampled_from([0, 0, 1, 2, 4, 5, LAST, 17]), st.sampled_from(list(DAYS)), st.sampled_from(list(PERIODS))
)


@settings(max_examples=400, deadline=None)
@given(STARTS, EVERY, BETWEEN, ONLY, st.integers(-100, 60 * 24 * 12), st.sampled_from(ZONES))
@example(datetime(2027, 10, 30, 0, 20), Every(60, "minutes"), Between(80, 90), None, 1440, LONDON)
def test_the_next_start_is_what_an_oracle_finds_that_walks_every_candidate(
    start: datetime, every: Every, between: Between | None, only: Only | None, later_minutes: int, zone_name: str
) -> None:
    zone = ZoneInfo(zone_name)
    found = Specification(start, every, between, only)
    at = instant_of(start, zone) + later_minutes * 60 + 7
    until = at + (40 if every.is_elapsed else 400) * 86400
    expected, got = oracle(found, at, zone, until), next_start(found, at, zone)
    assert (got if got is not None and got <= until else None) == expected


@settings(max_examples=200)
@given(st.integers(0, 40 * 366 * 24 * 60), st.sampled_from(ZONES))
def test_each_minute_that_a_clock_shows_is_found_again(minutes: int, zone_name: str) -> None:
    zone, instant = ZoneInfo(zone_name), utc(2026, 1, 1) + minutes * 60
    shown = datetime.fromtimestamp(instant, zone)
    assert exists(shown.replace(tzinfo=None, fold=0), zone)
    first = instant_of(shown.replace(tzinfo=None, fold=0), zone)
    assert first == (instant if shown.fold == 0 else first) <= instant
