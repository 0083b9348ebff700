"""Schedules: create, set, delete, show."""

from __future__ import annotations

from typing import Any

from offsite.errors import BadParameter, ObjectNotFound
from offsite.management.command_table import values
from offsite.management.command_table.command import Role, Subject, keyword, positional
from offsite.management.command_table.reply import Kind, ObjectType, Property, Reply, Row, row
from offsite.management.schedules.records import ScheduleRecord, TaskRecord
from offsite.management.schedules.specification_parser import CHARACTERS_MAX
from offsite.management.system import Context, System

COMMANDS = Subject("Schedules")

SCHEDULE = ObjectType[Any](
    "schedules",
    "schedule",
    (
        Property("name", "Name"),
        Property("schedule-specification", "Specification"),
        Property("status", "Status"),
        Property("next-time", "Next start", Kind.TIME),
        Property("task-to-run", "Task"),
        Property("error-message", "Error"),
        Property("task-type"),
        Property("starts", kind=Kind.NUMBER),
        Property("creation-date-time", kind=Kind.TIME),
    ),
)
ALL = "all"
SPECIFICATION = values.text("specification", 4 * CHARACTERS_MAX)
SPECIFICATION_HELP = (
    "When, in the system's time zone: start yyyy-mm-dd hh:mm [AM|PM] [every # minutes|hours|days|weeks|months|years] "
    "[between hh:mm [AM|PM] and hh:mm [AM|PM]] [only any|first|second|third|fourth|fifth|last|#st "
    "weekday|weekendday|Sunday|…|day of year|month|January|…] [count #] [expires yyyy-mm-dd hh:mm [AM|PM]]."
)


@COMMANDS.command(
    "create schedule",
    "Has a task started at times to come. The first is at least 5 minutes ahead. What is missed while the system is "
    "down is made up for once.",
    keyword("schedule-specification", SPECIFICATION, SPECIFICATION_HELP, required=True),
    keyword("task-name", values.reference("task"), "The task.", required=True),
    positional("name", values.name("schedule"), "A name for the schedule.", named=True),
    examples=(
        'create schedule schedule-specification "start 2027-01-04 01:30 every 1 days" task-name SalesNightly Nightly',
        'create schedule schedule-specification "start 2027-01-04 9:00 AM every 1 hours between 9:00 AM and 5:00 PM '
        'only any weekday of month" task-name SalesNightly OfficeHours',
    ),
)
def create_schedule(context: Context, schedule_specification: str, task_name: str, name: str) -> Reply:
    system = context.system
    made = system.schedules.create(name, schedule_specification, task_name)
    return Reply(f"Schedule {name} was created.", schedule_rows(system, [made]))


@COMMANDS.command(
    "set schedule",
    "Changes when a schedule starts its task, or which task. A new specification begins anew: its first start is at "
    "least 5 minutes ahead.",
    keyword("schedule-specification", SPECIFICATION, SPECIFICATION_HELP),
    keyword("task-name", values.reference("task"), "Another task."),
    positional("schedule", values.reference("schedule"), "The schedule."),
    examples=('set schedule schedule-specification "start 2027-01-04 02:00 every 12 hours" Nightly',),
)
def set_schedule(
    context: Context, schedule: str, schedule_specification: str | None = None, task_name: str | None = None
) -> Reply:
    system = context.system
    if schedule_specification is None and task_name is None:
        raise BadParameter(
            f"nothing is given to change of schedule {system.schedules.get(schedule).name}; give "
            "schedule-specification, task-name, or both"
        )
    changed = system.schedules.change(schedule, schedule_specification, task_name)
    return Reply(f"Schedule {schedule} was changed.", schedule_rows(system, [changed]))


def _delete_question(context: Context, name: str) -> str:
    names = _chosen(context.system, name)
    return f"Delete schedule{'s' if len(names) > 1 else ''} {', '.join(names)}? What it starts stays as a task."


@COMMANDS.command(
    "delete schedules",
    "Deletes a schedule, or all. Its task stays.",
    positional("name", values.reference("schedule"), "The schedule, or all."),
    confirmation=_delete_question,
    examples=("delete schedules Nightly", "delete schedules all"),
)
def delete_schedules(context: Context, name: str) -> Reply:
    return Reply(context.system.schedules.delete(_chosen(context.system, name)))


def _chosen(system: System, name: str) -> list[str]:
    if name != ALL or system.schedules.find(ALL) is not None:
        return [system.schedules.get(name).name]
    found = [each.name for each in system.schedules.all()]
    if not found:
        raise ObjectNotFound("there are no schedules; there is nothing to delete")
    return found


@COMMANDS.command(
    "show schedules",
    "Lists schedules and when each starts its task next.",
    positional("name", values.reference("schedule"), "Only this one.", required=False),
    role=Role.MONITOR,
)
def show_schedules(context: Context, name: str | None = None) -> Reply:
    schedules = context.system.schedules
    found = schedules.all() if name is None else [schedules.get(name)]
    return Reply(rows=schedule_rows(context.system, found))


def schedule_rows(system: System, found: list[ScheduleRecord]) -> tuple[Row, ...]:
    tasks = {each.name: each for each in system.tasks.all()}
    suspended = {each.record.id for each in system.replication.sets.all() if each.record.suspended}
    return tuple(_row(each, tasks.get(each.task_name), suspended) for each in found)


def _row(found: ScheduleRecord, task: TaskRecord | None, suspended: set[int]) -> Row:
    return row(
        SCHEDULE,
        {
            "name": found.name,
            "schedule-specification": found.specification,
            "status": _status(found, task is not None and task.set_id in suspended),
            "next-time": found.next_at,
            "task-to-run": found.task_name,
            "task-type": task.type if task is not None else "",
            "error-message": found.error or (task.last_error if task is not None else None) or "",
            "starts": found.starts,
            "creation-date-time": found.created_at,
        },
    )


def _status(found: ScheduleRecord, is_suspended: bool) -> str:
    if found.error is not None:
        return "Invalid"
    if found.next_at is None:
        return "Expired"
    return "Suspended" if is_suspended else "Ready"  # what a suspended set is asked for fails, until it is resumed
