"""The zone of the system is right for years to come, and by default that of the machine."""

from __future__ import annotations

from datetime import datetime

from offsite.store.system_zone import zone_of


def test_daylight_saving_is_known_for_years_to_come() -> None:
    """Older versions of dateutil forget it from 2038 on."""
    for year in (2027, 2060):
        offset = datetime(year, 7, 1, 12, tzinfo=zone_of("Europe/London")).utcoffset()
        assert offset is not None
        assert offset.total_seconds() == 3600


def test_no_name_stands_for_the_zone_of_the_machine() -> None:
    at = datetime(2027, 7, 1, 12)
    assert at.replace(tzinfo=zone_of("")).timestamp() == at.timestamp()
