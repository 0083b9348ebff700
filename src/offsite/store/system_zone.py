"""The time zone that the system reads and writes local times in."""

from __future__ import annotations

from datetime import tzinfo

from dateutil import tz


def zone_of(name: str) -> tzinfo:
    """The zone of an IANA name that the setting `time-zone` has taken; of an empty one, that of the machine."""
    return (tz.gettz(name) if name else tz.gettz()) or tz.tzlocal()
