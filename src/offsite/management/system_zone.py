"""The time zone that the system reads and writes local times in."""

from __future__ import annotations

from datetime import tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil import tz


def zone_of(name: str) -> tzinfo:
    """The zone of an IANA name that the setting `time-zone` has taken; of an empty one, that of the machine.

    The standard library knows the rules for the years to come, which dateutil forgets from 2038 on; dateutil brings
    the zones along where the machine has none.
    """
    if not name:
        return tz.gettz() or tz.tzlocal()
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        return tz.gettz(name) or tz.tzlocal()
