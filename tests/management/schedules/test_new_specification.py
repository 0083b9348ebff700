"""What a specification has to fulfil on the day that it is given."""

from __future__ import annotations

import pytest

from offsite.errors import BadParameter
from offsite.management.schedules.new_specification import check_new
from offsite.management.schedules.specification_parser import parse
from offsite.store.system_zone import zone_of
from tests.management.schedules.scheduling import utc

LONDON = zone_of("Europe/London")
NOW = utc(2027, 1, 4, 10, 0)


def check(text: str, interval_minutes_min: int = 60) -> float:
    return check_new(parse(text), NOW, LONDON, interval_minutes_min)


def test_the_first_start_is_told() -> None:
    assert check("start 2027-01-04 10:05") == utc(2027, 1, 4, 10, 5)
    assert check("start 2027-07-01 10:00 every 1 hours") == utc(2027, 7, 1, 9)
    assert check("start 2027-01-04 10:05 every 1 days only first day of month") == utc(2027, 2, 1, 10, 5)
    assert check("start 2027-01-04 10:05 every 1 minutes", 1) == utc(2027, 1, 4, 10, 5)
    assert check("start 2027-10-31 01:30") == utc(2027, 10, 31, 0, 30), "the first of the two"


REFUSED = [
    ("start 2027-01-04 10:04", ["start 2027-01-04 10:04", "5 minutes in the future", "it is now 2027-01-04 10:00"]),
    ("start 2020-01-01 00:00 every 1 hours", ["start 2020-01-01 00:00", "5 minutes in the future"]),
    ("start 2027-03-28 01:30", ["start 2027-03-28 01:30", "daylight saving skips"]),
    ("start 2027-01-05 10:00 expires 2027-03-28 01:00", ["expires 2027-03-28 01:00", "daylight saving"]),
    ("start 2027-01-05 10:00 every 59 minutes", ["59 minutes", "60 minutes", "minimum-schedule-interval"]),
    ("start 2027-01-05 10:00 every 1 days only 30th day of February", ["never starts", "in the next 50 years"]),
    ("start 2027-01-05 10:00 every 7 days only any Monday of year", ["never starts"]),
    ("start 2027-01-05 10:00 every 24 hours between 11:30 and 12:00", ["never starts"]),
    ("start 2027-01-05 10:00 every 1 days only last day of month expires 2027-01-30 10:00", ["before it expires"]),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_it_is_refused_with_the_value_and_the_rule(text: str, words: list[str]) -> None:
    with pytest.raises(BadParameter) as refusal:
        check(text)
    for word in words:
        assert word in str(refusal.value)


def test_the_shortest_interval_is_a_setting() -> None:
    check("start 2027-01-05 10:00 every 1 minutes", 1)
    with pytest.raises(BadParameter, match="every 6 days is shorter than 10080 minutes"):
        check("start 2027-01-05 10:00 every 6 days", 7 * 24 * 60)
    check("start 2027-01-05 10:00 every 1 weeks", 7 * 24 * 60)
