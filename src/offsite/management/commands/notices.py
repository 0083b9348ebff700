"""Notices: create, delete, test, show."""

from __future__ import annotations

from typing import Any

from offsite.management.command_table import values
from offsite.management.command_table.command import Role, Subject, keyword, positional, secret
from offsite.management.command_table.reply import Kind, ObjectType, Property, Reply, Row, row
from offsite.management.notices.notices import LEVELS, Level, NoticeInfo
from offsite.management.system import Context

COMMANDS = Subject("Notices")

NOTICE = ObjectType[Any](
    "notices",
    "notice",
    (
        Property("name", "Name"),
        Property("severity", "From severity"),
        Property("destination", "To"),
        Property("messages-sent", "Sent", Kind.NUMBER),
        Property("messages-failed", "Failed", Kind.NUMBER),
        Property("last-sent-time", "Last sent", Kind.TIME),
        Property("error", "Error"),
        Property("events-left-out", kind=Kind.NUMBER),
        Property("creation-date-time", kind=Kind.TIME),
    ),
)
REFERENCE = values.reference("notice")


@COMMANDS.command(
    "create notice",
    "Has events from a severity on sent by mail, to a chat, or to a web hook. The URL is one of apprise "
    "(https://appriseit.com/services/); the secrets in it are kept in a file beside the keys, and never shown.",
    keyword("severity", values.choice(*LEVELS), "The least severity that is sent.", required=True),
    secret("url", values.secret("URL"), "The URL that notices go to.", environment="OFFSITE_NOTICE_URL"),
    positional("name", values.name("notice"), "A name for the notice.", named=True),
    examples=("create notice severity warning operators",),
)
def create_notice(context: Context, severity: Level, url: str, name: str) -> Reply:
    made = context.system.notices.create(name, severity, url)
    return Reply(f"Notice {name} was created; `test notice {name}` shows whether it arrives.", (_row(made),))


@COMMANDS.command(
    "delete notice",
    "Deletes a notice.",
    positional("name", REFERENCE, "The notice."),
    confirmation=lambda context, name: f"Delete notice {context.system.notices.get(name).name}?",
)
def delete_notice(context: Context, name: str) -> Reply:
    context.system.notices.delete(name)
    return Reply(f"Notice {name} was deleted.")


@COMMANDS.command(
    "test notice",
    "Sends a message now, and says whether the service has taken it.",
    positional("name", REFERENCE, "The notice."),
    long=True,
)
def test_notice(context: Context, name: str) -> Reply:
    context.system.notices.test(name)
    return Reply(f"A test message was sent to notice {name}.", (_row(context.system.notices.get(name)),))


@COMMANDS.command(
    "show notices",
    "Lists the notices, and how sending went since the system was started.",
    positional("name", REFERENCE, "Only this one.", required=False),
    role=Role.MONITOR,
)
def show_notices(context: Context, name: str | None = None) -> Reply:
    notices = context.system.notices
    return Reply(rows=tuple(map(_row, notices.all() if name is None else [notices.get(name)])))


def _row(found: NoticeInfo) -> Row:
    done = found.deliveries
    return row(
        NOTICE,
        {
            "name": found.name,
            "severity": found.severity,
            "destination": found.url,
            "messages-sent": done.sent,
            "messages-failed": done.failed,
            "events-left-out": done.left_out,
            "last-sent-time": done.last_sent_at,
            "error": done.error,
            "creation-date-time": found.created_at,
        },
    )
