"""Events: show."""

from __future__ import annotations

from offsite.management import values
from offsite.management.event_log import EVENTS_MAX
from offsite.management.reply import Kind, ObjectType, Property, Reply, row
from offsite.management.system import Context
from offsite.management.table import Role, Subject, keyword

COMMANDS = Subject("Events")

EVENT = ObjectType(
    "events",
    "event",
    (
        Property("time-stamp", "Time", Kind.TIME),
        Property("event-id"),
        Property("event-code", "Code", Kind.NUMBER),
        Property("severity", "Severity"),
        Property("message", "Message"),
        Property("recommended-action"),
    ),
)


@COMMANDS.command(
    "show events",
    "Lists what happened, newest first.",
    keyword("last", values.integer(1, EVENTS_MAX), "How many at most; by default, 50."),
    role=Role.MONITOR,
    examples=("show events last 10",),
)
def show_events(context: Context, last: int = 50) -> Reply:
    return Reply(
        rows=tuple(
            row(
                EVENT,
                {
                    "time-stamp": each.at,
                    "event-id": str(each.id),
                    "event-code": each.code,
                    "severity": each.severity.name,
                    "message": each.message,
                    "recommended-action": each.recommended_action,
                },
            )
            for each in context.system.events.newest(last)
        )
    )
