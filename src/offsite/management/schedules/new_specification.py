"""What a specification has to fulfil on the day that it is given. Pure."""

from __future__ import annotations

from datetime import tzinfo

from offsite.errors import BadParameter
from offsite.management.schedules.recurrence import HORIZON_YEARS, exists, instant_of, local_time, next_start
from offsite.management.schedules.specification import Specification

LEAD_MINUTES = 5  # as on ME4


def check_new(found: Specification, now: float, zone: tzinfo, interval_minutes_min: int) -> float:
    """The first start, in seconds since the epoch. Raises BadParameter with the value and the rule that it breaks."""
    for what, local in (("start", found.start), ("expires", found.expires)):
        if local is not None and not exists(local, zone):
            raise BadParameter(
                f"{what} {local:%Y-%m-%d %H:%M} does not exist: daylight saving skips that hour on that day; give a "
                "time before or after it"
            )
    start = instant_of(found.start, zone)
    if start < now + LEAD_MINUTES * 60:
        raise BadParameter(
            f"start {found.start:%Y-%m-%d %H:%M} is not at least {LEAD_MINUTES} minutes in the future: it is now "
            f"{local_time(now, zone):%Y-%m-%d %H:%M}"
        )
    if found.every is not None and found.every.minutes < interval_minutes_min:
        raise BadParameter(
            f"{found.every} is shorter than {interval_minutes_min} minutes, the shortest interval allowed; the setting "
            "minimum-schedule-interval can change it"
        )
    first = next_start(found, start, zone)
    if first is None:
        until = (
            f"before it expires at {found.expires:%Y-%m-%d %H:%M}"
            if found.expires
            else (f"in the next {HORIZON_YEARS} years")
        )
        raise BadParameter(f"the schedule never starts: {str(found)!r} matches no time {until}")
    return first
