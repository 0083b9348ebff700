"""What a notice says: many events in one message. No I/O here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from offsite.escaping import escaped
from offsite.events import Severity
from offsite.management.events.event_log import Told

EVENTS_MAX = 50  # in one message; the others are counted
_RANK = {
    Severity.INFORMATIONAL: 0,
    Severity.RESOLVED: 1,
    Severity.WARNING: 2,
    Severity.ERROR: 3,
    Severity.CRITICAL: 4,
}
_CUT = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True, slots=True)
class NoticeMessage:
    title: str
    body: str
    severity: Severity  # the worst


def rank(severity: Severity) -> int:
    return _RANK[severity]


def is_wanted(severity: Severity, least: Severity) -> bool:
    """Whether who asked for events from `least` on wants this one. That something is resolved is for those
    who were told that it was wrong."""
    if severity is Severity.RESOLVED:
        return _RANK[least] <= _RANK[Severity.WARNING]
    return _RANK[severity] >= _RANK[least]


def compose(
    system_name: str, events: Sequence[Told], left_out: int, zone: tzinfo, title_characters: int, body_characters: int
) -> NoticeMessage:
    """One message of all `events`, of which there is at least one, and of the `left_out` that were too many.

    It keeps to the service's limits (0 stands for no title at all): then the worst events are told, in the
    order of time, and the others counted.
    """
    worst = max(events, key=lambda each: _RANK[each.severity]).severity
    count = len(events) + left_out
    system_name = escaped(system_name)  # the title is a header of a mail
    title = f"{system_name}: {worst.name}" if count == 1 else f"{system_name}: {count} events, the worst {worst.name}"
    room = body_characters
    if not title_characters:
        room -= len(title) + 1
    body = _body(events, left_out, zone, max(room, 80))
    if not title_characters:
        return NoticeMessage("", f"{title}\n{body}", worst)
    return NoticeMessage(_cut(title, title_characters), body, worst)


def _body(events: Sequence[Told], left_out: int, zone: tzinfo, room: int) -> str:
    by_rank = sorted(range(len(events)), key=lambda place: -_RANK[events[place].severity])
    for told in range(min(len(events), EVENTS_MAX), 0, -1):
        more = len(events) - told + left_out
        places = sorted(by_rank[:told])
        lines = [_line(events[place], zone) for place in places]
        if more:
            lines.append(f"and {more} more; `show events` lists them")
        text = "\n".join(lines)
        if len(text) <= room:
            return text
    return _cut(text, room)


def _line(event: Told, zone: tzinfo) -> str:
    at = datetime.fromtimestamp(event.at, zone)
    action = "" if event.recommended_action == "- No action is required." else f"\n  {event.recommended_action}"
    return f"{at:%Y-%m-%d %H:%M:%S} {event.severity.name} [{event.code}] {escaped(event.message)}{action}"


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + _CUT
