"""The grammar of schedule specifications: what is read, what is refused, and with which words."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import BadParameter
from offsite.management.schedules.specification import (
    ANY,
    DAYS,
    LAST,
    MINUTES,
    PERIODS,
    Between,
    Every,
    Only,
    Specification,
)
from offsite.management.schedules.specification_parser import parse

START = "start 2027-01-04 10:00"
AT = datetime(2027, 1, 4, 10, 0)
HOURLY = Every(1, "hours")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (START, Specification(AT)),
        ("START 2027-01-04 10:00 am", Specification(AT)),
        ("start 2027-01-04 10:00 PM", Specification(datetime(2027, 1, 4, 22, 0))),
        ("start 2027-01-04 12:00 AM", Specification(datetime(2027, 1, 4, 0, 0))),
        ("start 2027-01-04 12:30 PM", Specification(datetime(2027, 1, 4, 12, 30))),
        ("start 2027-01-04 9:05", Specification(datetime(2027, 1, 4, 9, 5))),
        ("start 2028-02-29 00:00", Specification(datetime(2028, 2, 29, 0, 0))),
        (f"{START} every 1 hour", Specification(AT, HOURLY)),
        (f"{START}, every 90 minutes, count 3", Specification(AT, Every(90, "minutes"), count=3)),
        (
            f"{START} every 1 hours between 9:00 AM and 5:00 PM",
            Specification(AT, HOURLY, Between(9 * 60, 17 * 60)),
        ),
        (
            f"{START} every 1 hours between 22:00 and 06:00",
            Specification(AT, HOURLY, Between(22 * 60, 6 * 60)),
        ),
        (
            f"{START} every 1 days only first Monday of month",
            Specification(AT, Every(1, "days"), only=Only(1, "Monday", "month")),
        ),
        (
            f"{START} every 2 weeks only last WEEKDAY of january",
            Specification(AT, Every(2, "weeks"), only=Only(LAST, "weekday", "January")),
        ),
        (
            f"{START} every 1 days only any weekendday of year",
            Specification(AT, Every(1, "days"), only=Only(ANY, "weekendday", "year")),
        ),
        (
            f"{START} every 1 days only 21st day of month",
            Specification(AT, Every(1, "days"), only=Only(21, "day", "month")),
        ),
        (
            f"{START} expires 2027-12-31 11:59 PM every 3 months",
            Specification(AT, Every(3, "months"), expires=datetime(2027, 12, 31, 23, 59)),
        ),
        (f"{START} expires 2027-01-04 10:00", Specification(AT, expires=AT)),
    ],
)
def test_a_specification_is_read(text: str, expected: Specification) -> None:
    assert parse(text) == expected


REFUSED = [
    ("", ["is incomplete: 'start' is required"]),
    ("every 1 hours", ["'every'", "'start'"]),
    ("start", ["is incomplete: the date of start"]),
    ("start 2027-01-04", ["is incomplete: the time of start", "'start 2027-01-04'"]),
    ("start tomorrow 10:00", ["'tomorrow'", "yyyy-mm-dd"]),
    ("start 27-01-04 10:00", ["'27-01-04'", "yyyy-mm-dd"]),
    ("start 2027-02-29 10:00", ["2027-02-29", "February 2027", "1 to 28"]),
    ("start 2027-13-01 10:00", ["2027-13-01", "the month 13", "1 to 12"]),
    ("start 2027-00-01 10:00", ["the month 0"]),
    ("start 2027-04-31 10:00", ["April 2027 has the days 1 to 30"]),
    ("start 2027-01-00 10:00", ["2027-01-00", "1 to 31"]),
    ("start 1999-01-01 10:00", ["1999", "2000 to 2099"]),
    ("start 2100-01-01 10:00", ["2100", "2000 to 2099"]),
    ("start ٢٠٢٧-01-04 10:00", ["yyyy-mm-dd"]),
    ("start 2027-01-04 24:00", ["24:00", "00:00 to 23:59"]),
    ("start 2027-01-04 10:60", ["10:60", "00:00 to 23:59"]),
    ("start 2027-01-04 10.00", ["'10.00'", "hh:mm"]),
    ("start 2027-01-04 10:00PM", ["'10:00PM'", "hh:mm PM"]),
    ("start 2027-01-04 13:00 PM", ["13:00 PM", "hour 13", "1 to 12"]),
    ("start 2027-01-04 0:30 AM", ["0:30 AM", "hour 0", "1 to 12"]),
    ("start 2027-01-04 12:60 PM", ["12:60", "00:00 to 23:59"]),
    (f"{START} PM PM", ["'PM'", "not part of"]),
    (f"{START} please", ["'please'", "every, between, only, count, expires"]),
    (f"{START} every 1 hours and so on", ["'and'", "not part of"]),
    (f"{START},", ["is incomplete: a clause"]),
    (f"{START},, every 1 hours", ["','", "not part of"]),
    (f"{START} every 0 hours", ["every '0'", "1 to 525600"]),
    (f"{START} every -1 hours", ["every '-1'", "whole number"]),
    (f"{START} every 1.5 hours", ["every '1.5'", "whole number"]),
    (f"{START} every 525601 minutes", ["525601", "1 to 525600"]),
    (f"{START} every 1 fortnights", ["'fortnights'", "minutes, hours, days, weeks, months, years"]),
    (f"{START} every 1 seconds", ["'seconds'"]),
    (f"{START} every 51 years", ["every 51 years", "longer than 50 years"]),
    (f"{START} every 525600 weeks", ["longer than 50 years"]),
    (f"{START} every 1", ["is incomplete: a unit"]),
    (f"{START} every 1 hours every 2 hours", ["every twice"]),
    (f"{START} every 1 hours count 3 COUNT 4", ["count twice"]),
    (f"{START} every 1 hours count 0", ["count '0'", "1 to 1000000"]),
    (f"{START} every 1 hours count 1000001", ["1 to 1000000"]),
    (f"{START} every 1 hours count many", ["count 'many'", "whole number"]),
    (f"{START} every 1 hours between 09:00 and 09:00", ["between 09:00 and 09:00 is empty"]),
    (f"{START} every 1 hours between 09:00 AM and 9:00", ["is empty"]),
    (f"{START} every 1 hours between 09:00 to 17:00", ["'to'", "'and'"]),
    (f"{START} every 1 hours between 09:00 and", ["is incomplete: the time of between … and"]),
    (f"{START} every 1 hours between 25:00 and 09:00", ["between 25:00", "00:00 to 23:59"]),
    (f"{START} every 1 days only sixth Monday of month", ["'sixth'", "fifth", "21st"]),
    (f"{START} every 1 days only 0th day of month", ["'0th'", "1st to 366th"]),
    (f"{START} every 1 days only 367th day of year", ["'367th'", "1st to 366th"]),
    (f"{START} every 1 days only 21th day of month", ["'21th'", "21st"]),
    (f"{START} every 1 days only first holiday of month", ["'holiday'", "weekday", "Sunday"]),
    (f"{START} every 1 days only first Monday in month", ["'in'", "'of'"]),
    (f"{START} every 1 days only first Monday of week", ["'week'", "year, month", "December"]),
    (f"{START} every 1 days only first Monday of", ["is incomplete"]),
    (f"{START} only first Monday of month", ["only requires every"]),
    (f"{START} between 09:00 and 17:00", ["between requires every"]),
    (f"{START} count 2", ["count requires every"]),
    (f"{START} every 1 hours expires 2027-01-04 09:59", ["expires 2027-01-04 09:59", "before the start"]),
    (f"{START} expires 2027-02-30 10:00", ["expires 2027-02-30", "1 to 28"]),
    (f"{START} start 2027-01-05 10:00", ["'start'", "not part of"]),
    ("start " + "x" * 300, ["306 characters", "at most 256"]),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[text[-40:] or "nothing" for text, _ in REFUSED])
def test_a_specification_is_refused_with_the_value_and_the_rule(text: str, words: list[str]) -> None:
    with pytest.raises(BadParameter) as refusal:
        parse(text)
    for word in words:
        assert word in str(refusal.value)


MINUTE = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)).map(lambda at: at.replace(second=0, microsecond=0))
EVERY = st.builds(Every, st.integers(1, 50), st.sampled_from(list(MINUTES)))
BETWEEN = st.builds(Between, st.integers(0, 1439), st.integers(0, 1439)).filter(lambda it: it.first != it.last)
ONLY = st.builds(Only, st.integers(-1, 366), st.sampled_from(list(DAYS)), st.sampled_from(PERIODS))


@given(MINUTE, EVERY, st.none() | BETWEEN, st.none() | ONLY, st.none() | st.integers(1, 10**6), st.none() | MINUTE)
def test_what_is_kept_is_read_as_the_same(
    start: datetime, every: Every, between: Between | None, only: Only | None, count: int | None, end: datetime | None
) -> None:
    """A schedule is kept as text: what is read back after a restart means the same."""
    found = Specification(start, every, between, only, count, None if end is None else max(start, end))
    assert parse(str(found)) == found


WORDS = st.sampled_from(
    [
        *("start", "2027-01-04", "10:00", "AM", "every", "1", "hours", "between", "and", "only", "last", "day"),
        *("of", "month", "count", "expires", ",", "2027-02-29", "", "9" * 30, "\ud800", "\uff11"),
    ]
)


@given(st.lists(WORDS, max_size=20) | st.lists(WORDS).map(lambda rest: ["start", "2027-01-04", "10:00", *rest]))
def test_whatever_comes_is_read_or_refused(words: list[str]) -> None:
    try:
        found = parse(" ".join(words))
    except BadParameter:
        return
    assert parse(str(found)) == found
