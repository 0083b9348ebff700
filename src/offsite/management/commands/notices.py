"""Notices: create, delete, test, show."""

from __future__ import annotations

from offsite.events import Severity
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Role, Subject, keyword, positional, secret
from offsite.management.command_table.object_types import ObjectType
from offsite.management.command_table.reply import Reply
from offsite.management.command_table.values import Choice
from offsite.management.commands.enumerations import NOTICE_SEVERITY
from offsite.management.notices.notices import LEVELS, Level, NoticeInfo
from offsite.management.notices.urls import NoticeNotSent
from offsite.management.system import Context

COMMANDS = Subject("Notices")

NOTICE = ObjectType[NoticeInfo](
    "notices",
    "notice",
    (
        properties.text("name", lambda notice: notice.name, "Name", key=True),
        properties.enumeration("severity", NOTICE_SEVERITY, lambda notice: notice.severity, "From severity"),
        properties.text("destination", lambda notice: notice.url, "To"),
        properties.number("messages-sent", lambda notice: notice.deliveries.sent, "Sent"),
        properties.number("messages-failed", lambda notice: notice.deliveries.failed, "Failed"),
        properties.time("last-sent-time", lambda notice: notice.deliveries.last_sent_at, "Last sent"),
        properties.text("error", lambda notice: notice.deliveries.error, "Error"),
        properties.number("events-left-out", lambda notice: notice.deliveries.left_out),
        properties.time("creation-date-time", lambda notice: notice.created_at),
    ),
)
SEVERITY = values.choice(*(Choice(each, Severity[each.upper()].value) for each in LEVELS))
REFERENCE = values.reference("notice")


@COMMANDS.command(
    "create notice",
    "Creates a notice, which sends events of a severity or higher by mail, chat or webhook. The URL is one of apprise "
    "(https://appriseit.com/services/). The secrets in it are stored in a file beside the keys and never shown.",
    keyword(
        "severity",
        SEVERITY,
        "Lowest severity to send.",
        required=True,
    ),
    secret("url", values.secret("URL"), "URL of the service to send to.", environment="OFFSITE_NOTICE_URL"),
    positional("name", values.name("notice"), "Name of the new notice.", named=True),
    examples=("create notice severity warning operators",),
    returns=(NOTICE,),
)
def create_notice(context: Context, severity: Level, url: str, name: str) -> Reply:
    made = context.system.notices.create(name, severity, url)
    return Reply(f"Notice {name} was created; `test notice {name}` sends a test message.", (NOTICE.row(made),))


@COMMANDS.command(
    "delete notice",
    "Deletes a notice.",
    positional("name", REFERENCE, "Name of the notice."),
    confirmation=lambda context, name: f"Delete notice {context.system.notices.get(name).name}?",
)
def delete_notice(context: Context, name: str) -> Reply:
    context.system.notices.delete(name)
    return Reply(f"Notice {name} was deleted.")


@COMMANDS.command(
    "test notice",
    "Sends a test message and reports whether the service accepted it.",
    positional("name", REFERENCE, "Name of the notice."),
    alone=False,
    slow=True,
    returns=(NOTICE,),
    errors=(NoticeNotSent,),
)
def test_notice(context: Context, name: str) -> Reply:
    context.system.notices.test(name)
    return Reply(f"A test message was sent to notice {name}.", (NOTICE.row(context.system.notices.get(name)),))


@COMMANDS.command(
    "show notices",
    "Lists the notices and their deliveries since the system started.",
    positional("name", REFERENCE, "Name of the notice to show. Default: all.", required=False),
    role=Role.MONITOR,
    returns=(NOTICE,),
)
def show_notices(context: Context, name: str | None = None) -> Reply:
    notices = context.system.notices
    return Reply(rows=tuple(map(NOTICE.row, notices.all() if name is None else [notices.get(name)])))
