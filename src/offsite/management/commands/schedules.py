"""Schedules: create, set, delete, show."""

from __future__ import annotations

from dataclasses import dataclass

from offsite.errors import BadParameter, ObjectNotFound
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Role, Subject, keyword, positional
from offsite.management.command_table.object_types import ObjectType, Row
from offsite.management.command_table.reply import Reply
from offsite.management.command_table.values import ValueKind
from offsite.management.schedules.records import ScheduleRecord, TaskRecord
from offsite.management.schedules.specification_parser import CHARACTERS_MAX
from offsite.management.system import Context, System

COMMANDS = Subject("Schedules")


@dataclass(frozen=True, slots=True)
class ScheduleView:
    schedule: ScheduleRecord
    task: TaskRecord | None
    is_suspended: bool  # its task's set is

    @property
    def status(self) -> str:
        if self.schedule.error is not None:
            return "Invalid"
        if self.schedule.next_at is None:
            return "Expired"
        return "Suspended" if self.is_suspended else "Ready"  # what a suspended set is asked for fails

    @property
    def error(self) -> str:
        of_task = None if self.task is None else self.task.last_error
        return self.schedule.error or of_task or ""


SCHEDULE = ObjectType[ScheduleView](
    "schedules",
    "schedule",
    (
        properties.text("name", lambda view: view.schedule.name, "Name", key=True),
        properties.text("schedule-specification", lambda view: view.schedule.specification, "Specification"),
        properties.text("status", lambda view: view.status, "Status"),
        properties.time("next-time", lambda view: view.schedule.next_at, "Next start"),
        properties.text("task-to-run", lambda view: view.schedule.task_name, "Task", of_type="tasks"),
        properties.text("error-message", lambda view: view.error, "Error"),
        properties.text("task-type", lambda view: "" if view.task is None else view.task.type),
        properties.number("starts", lambda view: view.schedule.starts),
        properties.time("creation-date-time", lambda view: view.schedule.created_at),
    ),
)
ALL = "all"
SPECIFICATION_HELP = "Times of the starts, in the system's time zone."
SPECIFICATION_FORM = (
    "start yyyy-mm-dd hh:mm [AM|PM] [every # minutes|hours|days|weeks|months|years] "
    "[between hh:mm [AM|PM] and hh:mm [AM|PM]] [only any|first|second|third|fourth|fifth|last|#st "
    "weekday|weekendday|Sunday|…|day of year|month|January|…] [count #] [expires yyyy-mm-dd hh:mm [AM|PM]]"
)
SPECIFICATION = values.special(ValueKind.SCHEDULE, "specification", SPECIFICATION_FORM, maximum=4 * CHARACTERS_MAX)


@COMMANDS.command(
    "create schedule",
    "Creates a schedule that starts a task. The first start has to be at least 5 minutes ahead. Starts that are missed "
    "while the system is down are made up for by one start.",
    keyword("schedule-specification", SPECIFICATION, SPECIFICATION_HELP, required=True),
    keyword("task-name", values.reference("task"), "Task to start.", required=True),
    positional("name", values.name("schedule"), "Name of the new schedule.", named=True),
    examples=(
        'create schedule schedule-specification "start 2027-01-04 01:30 every 1 days" task-name SalesNightly Nightly',
        'create schedule schedule-specification "start 2027-01-04 9:00 AM every 1 hours between 9:00 AM and 5:00 PM '
        'only any weekday of month" task-name SalesNightly OfficeHours',
    ),
    returns=(SCHEDULE,),
    acts_on=("task-name",),
)
def create_schedule(context: Context, schedule_specification: str, task_name: str, name: str) -> Reply:
    system = context.system
    made = system.schedules.create(name, schedule_specification, task_name)
    return Reply(f"Schedule {name} was created.", schedule_rows(system, [made]))


@COMMANDS.command(
    "set schedule",
    "Changes the times or the task of a schedule. The first start of a new specification has to be at least 5 minutes "
    "ahead.",
    keyword("schedule-specification", SPECIFICATION, SPECIFICATION_HELP),
    keyword("task-name", values.reference("task"), "New task to start."),
    positional("schedule", values.reference("schedule"), "Name of the schedule."),
    examples=('set schedule schedule-specification "start 2027-01-04 02:00 every 12 hours" Nightly',),
    returns=(SCHEDULE,),
)
def set_schedule(
    context: Context, schedule: str, schedule_specification: str | None = None, task_name: str | None = None
) -> Reply:
    system = context.system
    if schedule_specification is None and task_name is None:
        raise BadParameter(
            f"no change specified for schedule {system.schedules.get(schedule).name}; give "
            "schedule-specification, task-name, or both"
        )
    changed = system.schedules.change(schedule, schedule_specification, task_name)
    return Reply(f"Schedule {schedule} was changed.", schedule_rows(system, [changed]))


def _delete_question(context: Context, name: str) -> str:
    names = _chosen(context.system, name)
    return f"Delete schedule{'s' if len(names) > 1 else ''} {', '.join(names)}? The task is kept."


@COMMANDS.command(
    "delete schedules",
    "Deletes a schedule, or all. The tasks are kept.",
    positional("name", values.reference("schedule", or_all=True), "Name of the schedule, or all."),
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
    "Lists schedules and the times of their next starts.",
    positional("name", values.reference("schedule"), "Name of the schedule to show. Default: all.", required=False),
    role=Role.MONITOR,
    returns=(SCHEDULE,),
)
def show_schedules(context: Context, name: str | None = None) -> Reply:
    schedules = context.system.schedules
    found = schedules.all() if name is None else [schedules.get(name)]
    return Reply(rows=schedule_rows(context.system, found))


def schedule_rows(system: System, found: list[ScheduleRecord]) -> tuple[Row, ...]:
    tasks = {each.name: each for each in system.tasks.all()}
    suspended = {each.record.id for each in system.replication.sets.all() if each.record.suspended}
    return tuple(SCHEDULE.row(_view(each, tasks.get(each.task_name), suspended)) for each in found)


def _view(found: ScheduleRecord, task: TaskRecord | None, suspended: set[int]) -> ScheduleView:
    return ScheduleView(found, task, is_suspended=task is not None and task.set_id in suspended)
