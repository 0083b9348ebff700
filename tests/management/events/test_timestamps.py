"""Timestamps are taken in ME4's forms, in the zone of the system, and refused with the rule that they break."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import cast

import pytest
from dateutil.tz import gettz
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import BadParameter
from offsite.management.events.timestamps import first_instant, instant_after

BERLIN = cast(tzinfo, gettz("Europe/Berlin"))
NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=BERLIN).timestamp()


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1122100000", at(2026, 11, 22, 9, 0, 0)),
        ("112226100000", at(2026, 11, 22, 9, 0, 0)),
        ("2026-11-22 10:00:00", at(2026, 11, 22, 9, 0, 0)),
        ("2026-11-22T10:00:00", at(2026, 11, 22, 9, 0, 0)),
        ("070125000000", at(2025, 6, 30, 22, 0, 0)),  # summer time
        ("1122120030", at(2026, 11, 22, 11, 0, 30)),  # the clock of who asks may be a little ahead
        ("1122120200", at(2025, 11, 22, 11, 2, 0)),  # has not been this year
        ("1231235959", at(2025, 12, 31, 22, 59, 59)),
        ("0229120000", at(2024, 2, 29, 11, 0, 0)),  # the last leap year
        ("010100000000", at(1999, 12, 31, 23, 0, 0)),
    ],
)
def test_a_timestamp_is_the_second_that_it_names(text: str, instant: float) -> None:
    assert first_instant(text, BERLIN, NOW) == instant
    assert instant_after(text, BERLIN, NOW) == instant + 1


def test_of_an_hour_that_daylight_saving_repeats_nothing_is_left_out() -> None:
    first, last = (each("2026-10-25 02:30:00", BERLIN, NOW) for each in (first_instant, instant_after))
    assert first == at(2026, 10, 25, 0, 30)
    assert last == at(2026, 10, 25, 1, 30, 1)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("1322100000", "13 as the month; 1 to 12"),
        ("0022100000", "0 as the month"),
        ("1131100000", "31 as the day; 1 to 30"),
        ("0230100000", "30 as the day; 1 to 29"),
        ("022927100000", "29 as the day of 2027-02; 1 to 28"),
        ("1122240000", "24 as the hour; 0 to 23"),
        ("1122106000", "60 as the minute; 0 to 59"),
        ("112226100060", "60 as the second; 0 to 59"),
        ("1969-12-31 23:00:00", "1969 as the year; 1970 to 2099"),
        ("2027-02-29 10:00:00", "29 as the day of 2027-02"),
        ("2026-03-29 02:30:00", "daylight saving skipped that hour"),
        ("032926023000", "daylight saving skipped that hour"),
        ("", "is not of the form MMDDhhmmss"),
        ("112210000", "is not of the form MMDDhhmmss"),
        ("11222610000", "is not of the form MMDDhhmmss"),
        ("2026-11-22", "is not of the form MMDDhhmmss"),
        ("2026-11-22 10:00:00 ", "is not of the form MMDDhhmmss"),
        ("2026-11-22 10:00:00Z", "is not of the form MMDDhhmmss"),
        ("١١٢٢١٠٠٠٠٠", "is not of the form MMDDhhmmss"),
    ],
)
def test_what_is_no_time_is_refused_with_the_rule(text: str, rule: str) -> None:
    for parse in (first_instant, instant_after):
        with pytest.raises(BadParameter, match=rule):
            parse(text, BERLIN, NOW)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)).map(lambda each: each.replace(microsecond=0)))
def test_the_forms_with_a_year_agree(moment: datetime) -> None:
    instant = moment.replace(tzinfo=UTC).timestamp()
    for form in ("%m%d%y%H%M%S", "%Y-%m-%d %H:%M:%S"):
        assert first_instant(moment.strftime(form), UTC, NOW) == instant


@given(st.datetimes(datetime(2018, 1, 1), datetime(2026, 11, 22, 11)).map(lambda each: each.replace(microsecond=0)))
def test_without_a_year_it_is_the_last_such_time(moment: datetime) -> None:
    found = datetime.fromtimestamp(first_instant(moment.strftime("%m%d%H%M%S"), UTC, NOW), UTC)
    assert found.timetuple()[1:6] == moment.timetuple()[1:6]
    assert found.timestamp() <= NOW + 60
    assert found >= moment.replace(tzinfo=UTC)
