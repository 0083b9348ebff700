"""Events: show."""

from __future__ import annotations

import re
from dataclasses import dataclass

from offsite import __version__
from offsite.errors import BadParameter
from offsite.escaping import shown
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Role, Subject, flag, keyword
from offsite.management.command_table.object_types import ObjectType, Property
from offsite.management.command_table.reply import Reply
from offsite.management.command_table.values import ValueKind
from offsite.management.commands.enumerations import CONTROLLER as CONTROLLER_CODES
from offsite.management.commands.enumerations import SEVERITY
from offsite.management.events import timestamps
from offsite.management.events.event_log import EVENTS_MAX, Event, EventFilter
from offsite.management.system import Context
from offsite.store.settings import TIME_ZONE
from offsite.store.system_zone import zone_of

COMMANDS = Subject("Events")

CONTROLLER = "A"  # one system is what controller A is on ME4
LAST_DEFAULT = 50


@dataclass(frozen=True, slots=True)
class EventView:
    event: Event
    system_serial: str


_FIRST: tuple[Property[EventView], ...] = (
    properties.time("time-stamp", lambda view: view.event.at, "Time"),
    properties.text("event-id", lambda view: f"{CONTROLLER}{view.event.id}", "ID", key=True, display_name="Event ID"),
    properties.number("event-code", lambda view: view.event.code, "Code"),
    properties.enumeration("severity", SEVERITY, lambda view: view.event.severity.name, "Severity"),
    properties.text("message", lambda view: view.event.message, "Message"),
)
_LAST: tuple[Property[EventView], ...] = (
    properties.text("model", lambda _: f"Offsite {__version__}"),
    properties.text("serial-number", lambda view: view.system_serial),
    properties.enumeration("controller", CONTROLLER_CODES, lambda _: CONTROLLER),
)


def _event_type(heading_of_action: str) -> ObjectType[EventView]:
    action: Property[EventView] = properties.text(
        "recommended-action", lambda view: view.event.recommended_action, heading_of_action
    )
    return ObjectType("events", "event", (*_FIRST, action, *_LAST))


EVENT = _event_type("")
DETAILED_EVENT = _event_type("Recommended action")
_ID = re.compile(r"[AaBb]?(\d{1,18})", re.ASCII)


def _parse_id(text: str) -> int:
    match = _ID.fullmatch(text)
    if match is None:
        raise BadParameter(
            f"event ID {shown(text)} is not valid; write the number, with or without {CONTROLLER} before it: A97311"
        )
    return int(match[1])


EVENT_ID = values.special(ValueKind.EVENT, "event-ID", parser=_parse_id)
TIMESTAMP = values.special(ValueKind.TIME, "timestamp", "MMDDhhmmss, MMDDYYhhmmss or 'YYYY-MM-DD hh:mm:ss'", maximum=64)


@COMMANDS.command(
    "show events",
    "Lists events, newest first.",
    flag("a", "Accepted as on ME4 (events of controller A). All events are shown."),
    flag("b", "Accepted as on ME4 (events of controller B). All events are shown."),
    flag("both", "Accepted as on ME4 (events of both controllers). All events are shown."),
    flag("error", "Shows only warnings, errors and critical events."),
    flag("detail", "Shows the recommended actions as well."),
    keyword("from", TIMESTAMP, "Time of the oldest event to show."),
    keyword("to", TIMESTAMP, "Time of the newest event to show."),
    keyword("from-event", EVENT_ID, "ID of the oldest event to show."),
    keyword("to-event", EVENT_ID, "ID of the newest event to show."),
    keyword(
        "last",
        values.integer(1, EVENTS_MAX),
        f"Maximum number of events. Default: {LAST_DEFAULT}, or all if a range is given.",
    ),
    role=Role.MONITOR,
    examples=("show events last 10", "show events error from 1122000000", "show events from-event A97311 detail"),
    returns=(EVENT, DETAILED_EVENT),
)
def show_events(
    context: Context,
    a: bool,
    b: bool,
    both: bool,
    error: bool,
    detail: bool,
    last: int | None = None,
    from_: str | None = None,
    to: str | None = None,
    from_event: int | None = None,
    to_event: int | None = None,
) -> Reply:
    del a, b, both  # there is one system, not two controllers
    system = context.system
    zone, now = zone_of(system.settings.get(TIME_ZONE)), system.clock.now()
    wanted = EventFilter(
        since=None if from_ is None else timestamps.first_instant(from_, zone, now),
        before=None if to is None else timestamps.instant_after(to, zone, now),
        first_id=from_event,
        last_id=to_event,
        errors_only=error,
    )
    _check_order(wanted)
    ranged = wanted != EventFilter(errors_only=error)
    found = system.events.newest(last or (EVENTS_MAX if ranged else LAST_DEFAULT), wanted)
    type = DETAILED_EVENT if detail else EVENT
    return Reply(rows=tuple(type.row(EventView(each, system.uuid)) for each in found))


def _check_order(wanted: EventFilter) -> None:
    if wanted.since is not None and wanted.before is not None and wanted.since >= wanted.before:
        raise BadParameter("from is after to; give the earlier time as from")
    if wanted.first_id is not None and wanted.last_id is not None and wanted.first_id > wanted.last_id:
        raise BadParameter("from-event is after to-event; give the lower ID as from-event")
