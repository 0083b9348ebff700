"""The instants of a specification: by an oracle that walks every candidate, and by hand through daylight saving."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from dateutil import tz
from hypothesis import example, given, settings
from hypothesis import strategies as st

from offsite.management.schedules.recurrence import count_starts, exists, instant_of, next_start
from offsite.management.schedules.specification import (
    DAYS,
    LAST,
    MINUTES,
    PERIODS,
    Between,
    Every,
    Only,
    Specification,
    numeral,
)
from offsite.management.schedules.specification_parser import parse
from offsite.store.system_zone import zone_of
from tests.management.schedules.scheduling import utc

LONDON, NEW_YORK, LORD_HOWE, KATHMANDU = (
    "Europe/London",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
)
ZONES = (LONDON, NEW_YORK, LORD_HOWE, KATHMANDU, "Pacific/Apia", "America/Havana", "UTC")


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


@pytest.mark.slow
@settings(max_examples=150)
@given(STARTS, EVERY, BETWEEN, ONLY, st.integers(-100, 60 * 24 * 12), st.sampled_from(ZONES))
@example(datetime(2027, 10, 30, 0, 50), Every(5, "minutes"), Between(80, 85), None, 1440 + 40, LONDON)
@example(datetime(2027, 10, 30, 0, 50), Every(5, "minutes"), Between(80, 85), None, 1440 + 70, LONDON)
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


# -- by hand -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone_name", "text", "expected"),
    [
        # 2027-03-28 01:00 UTC: 01:00 becomes 02:00.
        (LONDON, "start 2027-03-27 01:30 every 1 days", ["2027-03-27 01:30", "2027-03-28 01:00", "2027-03-29 00:30"]),
        (LONDON, "start 2027-03-28 00:30 every 1 hours", ["2027-03-28 00:30", "2027-03-28 01:30", "2027-03-28 02:30"]),
        # 2027-10-31 01:00 UTC: 02:00 becomes 01:00, so that 01:30 is twice.
        (LONDON, "start 2027-10-30 01:30 every 1 days", ["2027-10-30 00:30", "2027-10-31 00:30", "2027-11-01 01:30"]),
        (LONDON, "start 2027-10-31 00:30 every 1 hours", ["2027-10-30 23:30", "2027-10-31 00:30", "2027-10-31 01:30"]),
        # A window of the hour that is twice is there twice, for what goes by elapsed time.
        (
            LONDON,
            "start 2027-10-31 00:50 every 5 minutes between 01:20 and 01:25",
            ["2027-10-31 00:20", "2027-10-31 00:25", "2027-10-31 01:20", "2027-10-31 01:25", "2027-11-01 01:20"],
        ),
        # 2027-03-14 07:00 UTC: 02:00 becomes 03:00; 2027-11-07 06:00 UTC: 02:00 becomes 01:00.
        (
            NEW_YORK,
            "start 2027-03-07 02:15 every 1 weeks",
            ["2027-03-07 07:15", "2027-03-14 07:00", "2027-03-21 06:15"],
        ),
        (NEW_YORK, "start 2027-11-06 01:15 every 1 days", ["2027-11-06 05:15", "2027-11-07 05:15", "2027-11-08 06:15"]),
        # Half an hour: 2027-04-03 15:00 UTC, 02:00 becomes 01:30; 2027-10-02 15:30 UTC, 02:00 becomes 02:30.
        (
            LORD_HOWE,
            "start 2027-10-02 02:15 every 1 days",
            ["2027-10-01 15:45", "2027-10-02 15:30", "2027-10-03 15:15"],
        ),
        (
            LORD_HOWE,
            "start 2027-04-03 01:45 every 1 days",
            ["2027-04-02 14:45", "2027-04-03 14:45", "2027-04-04 15:15"],
        ),
        # Never any, and a quarter of an hour off.
        (KATHMANDU, "start 2027-03-28 02:30 every 1 days", ["2027-03-27 20:45", "2027-03-28 20:45"]),
        # A month that has no 31st has its start on its last day; the next one is on the 31st again.
        (
            LONDON,
            "start 2027-01-31 12:00 every 1 months",
            ["2027-01-31 12:00", "2027-02-28 12:00", "2027-03-31 11:00", "2027-04-30 11:00", "2027-05-31 11:00"],
        ),
        (
            "UTC",
            "start 2028-02-29 12:00 every 1 years",
            ["2028-02-29 12:00", "2029-02-28 12:00", "2030-02-28 12:00", "2031-02-28 12:00", "2032-02-29 12:00"],
        ),
        # Both ends of a window are within it; over midnight it goes by the clock alone.
        (
            "UTC",
            "start 2027-01-04 08:00 every 1 hours between 9:00 AM and 11:00 AM",
            ["2027-01-04 09:00", "2027-01-04 10:00", "2027-01-04 11:00", "2027-01-05 09:00"],
        ),
        (
            "UTC",
            "start 2027-01-04 20:00 every 2 hours between 22:00 and 02:00",
            ["2027-01-04 22:00", "2027-01-05 00:00", "2027-01-05 02:00", "2027-01-05 22:00"],
        ),
        (
            "UTC",
            "start 2027-01-04 10:00 every 12 hours only any Monday of year",
            ["2027-01-04 10:00", "2027-01-04 22:00", "2027-01-11 10:00"],
        ),
        (
            "UTC",
            "start 2027-01-04 10:00 every 1 days only last weekday of month",
            ["2027-01-29 10:00", "2027-02-26 10:00", "2027-03-31 10:00"],
        ),
        (
            "UTC",
            "start 2027-01-04 10:00 every 1 days only first weekendday of January",
            ["2028-01-01 10:00", "2029-01-06 10:00"],
        ),
        (
            "UTC",
            "start 2027-01-04 10:00 every 1 days only fifth Sunday of February",
            ["2032-02-29 10:00", "2060-02-29 10:00"],
        ),
        ("UTC", "start 2027-01-04 10:00", ["2027-01-04 10:00"]),
        (
            "UTC",
            "start 2027-01-04 10:00 every 1 hours expires 2027-01-04 11:00",
            ["2027-01-04 10:00", "2027-01-04 11:00"],
        ),
        # Long after what dateutil knows of: 2040-03-25 01:00 UTC.
        (LONDON, "start 2040-03-24 12:00 every 1 days", ["2040-03-24 12:00", "2040-03-25 11:00"]),
    ],
)
def test_starts_by_hand(zone_name: str, text: str, expected: list[str]) -> None:
    assert starts(text, zone_name, len(expected) + 1)[: len(expected)] == expected
    if "every" not in text or "expires" in text:
        assert starts(text, zone_name, len(expected) + 1) == expected


@pytest.mark.parametrize("zone_name", [LONDON, NEW_YORK, LORD_HOWE])
def test_zones_of_dateutil_give_the_same_starts(zone_name: str) -> None:
    """A machine without zones has those that dateutil brings along."""
    other = tz.gettz(zone_name)
    assert other is not None
    for text in (
        "start 2027-03-01 02:15 every 1 days",
        "start 2027-03-01 01:45 every 25 minutes between 1:00 and 3:00",
    ):
        found, at = parse(text), utc(2027, 3, 1)
        while at < utc(2027, 12, 1):
            got = next_start(found, at, ZoneInfo(zone_name))
            assert got == next_start(found, at, other)
            assert got is not None
            at = got + 1


def test_a_time_that_daylight_saving_leaves_out_does_not_exist() -> None:
    for zone_name, left_out, there in (
        (LONDON, datetime(2027, 3, 28, 1, 30), datetime(2027, 10, 31, 1, 30)),
        (NEW_YORK, datetime(2027, 3, 14, 2, 0), datetime(2027, 3, 14, 3, 0)),
        (LORD_HOWE, datetime(2027, 10, 3, 2, 29), datetime(2027, 10, 3, 2, 30)),
    ):
        assert not exists(left_out, zone_of(zone_name))
        assert exists(there, zone_of(zone_name))
        assert exists(left_out, zone_of(KATHMANDU))


def test_the_next_start_costs_no_more_when_the_start_was_long_ago_or_never_comes() -> None:
    zone = ZoneInfo(LONDON)
    texts = (
        "start 2022-01-01 00:00 every 1 minutes",
        "start 2000-01-01 00:00 every 1 days",
        "start 2000-01-31 00:00 every 1 months",
        "start 2022-01-01 00:00 every 1 minutes only first Sunday of January",
    )
    for text in texts:
        found = parse(text)
        begun = time.process_time()
        for later in range(20):
            assert next_start(found, utc(2027, 1, 1) + later, zone) is not None
        assert time.process_time() - begun < 1.0, text  # by walking, each would take minutes
    for text in (
        "start 2022-01-01 00:00 every 1 minutes only 30th day of February",
        "start 2022-01-01 10:00 every 24 hours between 11:30 and 11:40",
        "start 2027-01-05 10:00 every 7 days only any Monday of year",
    ):
        begun = time.process_time()
        assert next_start(parse(text), utc(2027, 1, 1), zone) is None
        assert time.process_time() - begun < 10.0, text


def test_starts_are_counted_up_to_a_limit() -> None:
    found = parse("start 2027-01-04 10:00 every 1 hours")
    zone = zone_of("UTC")
    assert count_starts(found, utc(2027, 1, 4, 10), utc(2027, 1, 4, 12), zone, 100) == 3
    assert count_starts(found, utc(2027, 1, 4, 10), utc(2027, 1, 4, 9), zone, 100) == 0
    assert count_starts(found, utc(2027, 1, 4, 10), utc(2037, 1, 4, 12), zone, 100) == 100
    assert count_starts(parse("start 2027-01-04 10:00"), utc(2027, 1, 1), utc(2030, 1, 1), zone, 100) == 1


def test_each_ordinal_numeral_is_what_people_write() -> None:
    assert [numeral(each) for each in (1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111, 366)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "101st", "111th", "366th"]
    )


def test_minutes_of_units_are_the_least_they_may_be() -> None:
    assert Every(2, "months").minutes == 2 * 28 * 1440
    assert MINUTES["weeks"] == 7 * 1440
