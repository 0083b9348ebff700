"""The grammar of a bandwidth calendar, and which limit holds when."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import BadParameter
from offsite.replication.bandwidth.calendar import (
    DAYS,
    RATE_MAX,
    RATE_MIN,
    WINDOWS_MAX,
    BandwidthCalendar,
    Window,
    format_rate,
    parse_calendar,
    parse_rate,
)

MB = 10**6
MONDAY = datetime(2026, 11, 23)
PLAIN = 5 * MB


def at(text: str, day: str, time: str) -> int | None:
    hour, minute = map(int, time.split(":"))
    local = MONDAY + timedelta(days=DAYS.index(day), hours=hour, minutes=minute)
    return parse_calendar(text).limit_at(local, PLAIN)


@pytest.mark.parametrize(
    ("day", "time", "limit"),
    [
        ("Mon", "07:59", PLAIN),
        ("Mon", "08:00", 10 * MB),
        ("Fri", "17:59", 10 * MB),
        ("Fri", "18:00", PLAIN),
        ("Sat", "00:00", None),
        ("Sat", "23:59", None),
        ("Sun", "00:00", PLAIN),
        ("Sun", "12:00", PLAIN),
    ],
)
def test_windows_hold_from_their_first_minute_to_before_their_last(day: str, time: str, limit: int | None) -> None:
    assert at("Mon-Fri 08:00-18:00 10MB, Sat 00:00-24:00 none", day, time) == limit


@pytest.mark.parametrize(
    ("day", "time", "limit"),
    [
        ("Sun", "21:59", PLAIN),
        ("Sun", "22:00", MB),
        ("Mon", "00:00", MB),
        ("Mon", "05:59", MB),
        ("Mon", "06:00", PLAIN),
        ("Mon", "22:00", PLAIN),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(day: str, time: str, limit: int | None) -> None:
    """Also over the end of the week."""
    assert at("Sun 22:00-06:00 1MB", day, time) == limit


def test_days_may_go_over_the_end_of_the_week() -> None:
    assert [at("sat-MON 00:00-24:00 1MB", day, "12:00") == MB for day in DAYS] == [
        day in ("Sat", "Sun", "Mon") for day in DAYS
    ]


def test_none_and_nothing_are_a_calendar_without_windows() -> None:
    for text in ("none", "None", "", "  "):
        assert parse_calendar(text) == BandwidthCalendar()
    assert str(BandwidthCalendar()) == ""
    assert BandwidthCalendar().limit_at(MONDAY, None) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Mon 08:00-18:00", "is not a window"),
        ("Mon 8:00-18:00 1MB", "is not a window"),
        ("08:00-18:00 1MB", "is not a window"),
        ("Mon 08:00-18:00 1MB and more", "is not a window"),
        ("Mon 08:00-18:00 1 MB", "is not a window"),
        ("Mon 08:00-18:00 1MB,", "is not a window"),
        ("Mon,Tue 08:00-18:00 1MB", "is not a window"),
        ("Mon 08:00-18:00 1MB, , Tue 08:00-18:00 1MB", "is not a window"),
        ("Mo-Fr 08:00-18:00 1MB", "is not a window"),
        ("Day 08:00-18:00 1MB", "'Day'.* is not a day"),
        ("Mon-Foo 08:00-18:00 1MB", "'Foo'.* is not a day"),
        ("Mon 08:60-18:00 1MB", "08:60.* is not a time of day"),
        ("Mon 08:00-24:01 1MB", "24:01.* is not a time of day"),
        ("Mon 08:00-25:00 1MB", "25:00.* is not a time of day"),
        ("Mon 24:00-08:00 1MB", "begins at 24:00; write 00:00 of the next day"),
        ("Mon 08:00-08:00 1MB", "a whole day is 00:00-24:00"),
        ("Mon 08:00-18:00 10", "'10' has no unit"),
        ("Mon 08:00-18:00 99KB", "outside 100KB to 1TB"),
        ("Mon 08:00-18:00 fast", "invalid size 'fast'"),
        ("Mon 08:00-18:00 1MB, Mon 17:59-19:00 2MB", "'Mon 08:00-18:00 1MB' and 'Mon 17:59-19:00 2MB' overlap"),
        ("Mon-Fri 08:00-18:00 1MB, Wed 00:00-24:00 none", "overlap"),
        ("Sun 22:00-06:00 1MB, Mon 05:59-07:00 2MB", "overlap"),
        ("Mon-Sun 22:00-23:00 1MB, Mon-Sun 22:00-23:00 1MB", "overlap"),
        (", ".join(["Mon 08:00-18:00 1MB"] * (WINDOWS_MAX + 1)), f"has {WINDOWS_MAX + 1} windows; at most"),
        ("x" * 2049, "2049 characters; at most 2048"),
    ],
)
def test_what_is_no_calendar_is_refused_with_the_rule(text: str, rule: str) -> None:
    with pytest.raises(BadParameter, match=rule):
        parse_calendar(text)


def test_windows_may_touch() -> None:
    text = "Mon 08:00-12:00 1MB, Mon 12:00-18:00 2MB, Sun 18:00-08:00 3MB"
    assert str(parse_calendar(text)) == text
    assert (at(text, "Mon", "07:59"), at(text, "Mon", "11:59"), at(text, "Mon", "12:00")) == (3 * MB, MB, 2 * MB)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10MB", 10 * MB),
        ("10mb/s", 10 * MB),
        (" 1.5MiB ", 3 << 19),
        ("100KB", RATE_MIN),
        ("1TB", RATE_MAX),
        ("100000B", RATE_MIN),
        ("none", None),
        ("NONE", None),
    ],
)
def test_rates(text: str, rate: int | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("10", "has no unit"),
        ("", "has no unit"),
        ("10000000/s", "has no unit"),
        ("99999B", "outside 100KB to 1TB"),
        ("0MB", "outside 100KB to 1TB"),
        ("1000001MB", "outside 100KB to 1TB"),
        ("-1MB", "invalid size"),
        ("1e6B", "invalid size"),
        ("ten MB", "invalid size"),
        ("1MB/h", "invalid size"),
        ("9" * 500 + "MB", "invalid size"),
    ],
)
def test_what_is_no_rate_is_refused_with_the_rule(text: str, rule: str) -> None:
    with pytest.raises(BadParameter, match=rule):
        parse_rate(text)


rates = st.none() | st.integers(RATE_MIN, RATE_MAX)


@given(rates)
def test_a_rate_reads_back_as_it_was_written(rate: int | None) -> None:
    assert parse_rate(format_rate(rate)) == rate


@st.composite
def windows(draw: st.DrawFn) -> Window:
    begin = draw(st.integers(0, 1439))
    end = draw(st.integers(1, 1440).filter(lambda each: each != begin))
    return Window(draw(st.integers(0, 6)), draw(st.integers(0, 6)), begin, end, draw(rates))


def minutes_of(window: Window) -> list[int]:
    """Each minute of the week in which it holds, counted out; twice if it meets itself."""
    day, found = window.first, []
    while True:
        minute = window.begin_minute
        while minute % 1440 != window.end_minute % 1440 or minute == window.begin_minute:
            found.append((day * 1440 + minute) % 10080)
            minute += 1
        if day == window.last:
            return found
        day = (day + 1) % 7


@given(st.lists(windows(), min_size=1, max_size=4), st.integers(0, 10079))
def test_a_calendar_says_what_its_windows_say(made: list[Window], minute: int) -> None:
    """Counted out minute by minute, parsed from its own text: one limit for each minute, or refused."""
    counted = [minutes_of(window) for window in made]
    taken = [each for one in counted for each in one]
    text = ", ".join(map(str, made))
    if len(taken) != len(set(taken)):
        with pytest.raises(BadParameter, match="overlap"):
            parse_calendar(text)
        return
    calendar = parse_calendar(text)
    assert calendar == BandwidthCalendar(tuple(made))
    expected = next((window.rate for window, one in zip(made, counted, strict=True) if minute in one), PLAIN)
    assert calendar.limit_at(MONDAY + timedelta(minutes=minute, seconds=59), PLAIN) == expected
