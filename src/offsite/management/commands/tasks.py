"""Tasks: create, set, delete, show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from offsite.errors import BadParameter, NotAllowed, ObjectNotFound
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Needs, Parameter, Role, Subject, keyword, positional
from offsite.management.command_table.object_types import ObjectType, Row
from offsite.management.command_table.reply import Reply
from offsite.management.commands.enumerations import RETENTION_PRIORITY
from offsite.management.commands.volumes import RETENTION, RETENTION_HELP
from offsite.management.schedules.records import ScheduleRecord, TaskRecord, TaskType
from offsite.management.schedules.tasks import NO_PREFIX, PREFIX_BYTES_MAX, RETENTION_COUNT_MAX
from offsite.management.system import Context, System
from offsite.pools.retention import NEVER_DELETE
from offsite.replication.records.set_records import SetRecord

COMMANDS = Subject("Tasks")


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task, the names of what it is of (empty where it is not of such a thing), and the schedules that start it."""

    task: TaskRecord
    image: str
    set_name: str
    schedules: Sequence[ScheduleRecord]

    @property
    def is_under_way(self) -> bool:
        return any(each.starting_at is not None for each in self.schedules)

    @property
    def retention_priority(self) -> str:
        return (self.task.retention_priority or NEVER_DELETE) if self.task.type == "TakeSnapshot" else ""

    def image_of(self, type: TaskType) -> str:
        return self.image if self.task.type == type else ""


TASK = ObjectType[TaskView](
    "tasks",
    "task",
    (
        properties.text("name", lambda view: view.task.name, "Name", key=True),
        properties.text("task-type", lambda view: view.task.type, "Type"),
        properties.text("object", lambda view: view.set_name or view.image, "Object"),
        properties.text("status", lambda view: "Ready" if view.task.last_error is None else "Error", "Status"),
        properties.text("state", lambda view: "Active" if view.is_under_way else "Idle", "State"),
        properties.time("last-run-time", lambda view: view.task.last_run_at, "Last started"),
        properties.text("schedule-names", lambda view: ", ".join(each.name for each in view.schedules), "Schedules"),
        properties.text("error-message", lambda view: view.task.last_error or "", "Error"),
        properties.text("replication-set", lambda view: view.set_name, of_type="replication-sets"),
        properties.yes_no(
            "last-snapshot", lambda view: view.task.last_snapshot if view.task.type == "Replicate" else None
        ),
        properties.text("source-volume", lambda view: view.image_of("TakeSnapshot"), of_type="volumes"),
        properties.text("snapshot-prefix", lambda view: view.task.snapshot_prefix or ""),
        properties.number("retention-count", lambda view: view.task.retention_count),
        properties.enumeration("snapshot-retention-priority", RETENTION_PRIORITY, lambda view: view.retention_priority),
        properties.text("snapshot-volume", lambda view: view.image_of("ResetSnapshot"), of_type="snapshots"),
        properties.time("creation-date-time", lambda view: view.task.created_at),
    ),
)
ALL = "all"
TYPE = values.choice(*get_args(TaskType))
PREFIX = keyword(
    "snapshot-prefix",
    values.text("snapshot prefix", PREFIX_BYTES_MAX, forbidden=NO_PREFIX),
    "Beginning of the names of its snapshots: PREFIX_S0001 and so on.",
)
COUNT = keyword(
    "retention-count",
    values.integer(1, RETENTION_COUNT_MAX),
    "Number of its snapshots to keep. Older ones are deleted unless they are mapped or in use.",
)
PRIORITY = keyword("snapshot-retention-priority", RETENTION, RETENTION_HELP)
LAST_SNAPSHOT = keyword(
    "last-snapshot",
    values.boolean("on", "off"),
    "Whether to send the newest existing snapshot of the primary volume instead of a new one. Not for volume groups.",
    bare=True,
)


def _of(type: TaskType, *parameters: Parameter) -> tuple[Parameter, ...]:
    """Parameters that only tasks of this type have."""
    return tuple(replace(each, needs=Needs("type", type)) for each in parameters)


_OF_TYPES = (
    *_of(
        "TakeSnapshot",
        keyword(
            "source-volume",
            values.reference("volume", "snapshot"),
            "Volume or snapshot to take snapshots of.",
            required=True,
        ),
        replace(PREFIX, required=True),
        replace(COUNT, required=True),
        replace(PRIORITY, default=NEVER_DELETE),
    ),
    *_of(
        "ResetSnapshot", keyword("snapshot-volume", values.reference("snapshot"), "Snapshot to reset.", required=True)
    ),
    *_of(
        "Replicate",
        keyword("replication-set", values.reference("replication set"), "Replication set to replicate.", required=True),
        replace(LAST_SNAPSHOT, default=False),
    ),
)


def _check_object(
    context: Context,
    snapshot_volume: str | None = None,
    replication_set: str | None = None,
    last_snapshot: bool = False,
    **_: object,
) -> None:
    """What a task resets is no secondary, and what it replicates is primary here."""
    system = context.system
    if snapshot_volume is not None:
        system.check_not_secondary(system.snapshot(snapshot_volume), "reset")
    if replication_set is not None:
        found = system.replication.sets.record(replication_set)
        if found.role != "primary":
            raise NotAllowed(
                f"replication set {found.name} is secondary on this system; create the task on system "
                f"{system.replication.peers.record_of(found.peer_id).name}, where its primary is"
            )
        if last_snapshot:
            _check_last_snapshot(found)


@COMMANDS.command(
    "create task",
    "Creates a task that schedules can start: take a snapshot of a volume, reset a snapshot to its volume's current "
    "content, or replicate a set (on the system of its primary).",
    keyword("type", TYPE, "Action of the task.", required=True),
    *_OF_TYPES,
    positional("name", values.name("task"), "Name of the new task.", named=True),
    examples=(
        "create task type Replicate replication-set SalesDR SalesNightly",
        "create task type TakeSnapshot source-volume Sales snapshot-prefix Sales retention-count 7 SalesDaily",
        "create task type ResetSnapshot snapshot-volume Sales-test SalesTestAnew",
    ),
    returns=(TASK,),
    acts_on=("source-volume", "snapshot-volume", "replication-set"),
    acceptance=_check_object,
)
def create_task(context: Context, type: TaskType, name: str, **given: Any) -> Reply:
    system = context.system
    record = TaskRecord(
        name,
        type,
        system.clock.now(),
        *_object(system, type, given),
        last_snapshot=given.get("last_snapshot", False),
        snapshot_prefix=given.get("snapshot_prefix"),
        retention_count=given.get("retention_count"),
        retention_priority=given.get("snapshot_retention_priority"),
    )
    system.tasks.create(record)
    return Reply(
        f"Task {name} was created. To start it at set times, use `create schedule`.", task_rows(system, [record])
    )


def _object(system: System, type: TaskType, given: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """What the task is of, by the id of a set or of an image."""
    if type == "TakeSnapshot":
        return None, system.image(given["source_volume"]).image.id
    if type == "ResetSnapshot":
        return None, system.snapshot(given["snapshot_volume"]).image.id
    return system.replication.sets.record(given["replication_set"]).id, None


def _check_last_snapshot(replication_set: SetRecord) -> None:
    if replication_set.group_id is not None:
        raise NotAllowed(
            f"replication set {replication_set.name} replicates a volume group, for which last-snapshot is not "
            "possible: a snapshot of one member is not one of all members at one instant"
        )


def _check_change(context: Context, task: str, last_snapshot: bool = False, **_: object) -> None:
    found = context.system.tasks.get(task)
    for each in context.system.replication.sets.records() if last_snapshot else ():
        if each.id == found.set_id:
            _check_last_snapshot(each)


@COMMANDS.command(
    "set task",
    "Changes a task. The change applies from its next start.",
    PREFIX,
    COUNT,
    PRIORITY,
    LAST_SNAPSHOT,
    positional("task", values.reference("task"), "Name of the task."),
    examples=("set task last-snapshot on SalesNightly", "set task retention-count 14 SalesDaily"),
    returns=(TASK,),
    acceptance=_check_change,
)
def set_task(context: Context, task: str, **given: Any) -> Reply:
    system = context.system
    found = system.tasks.get(task)
    if not given:
        raise BadParameter(f"no change specified for task {task}")
    _check_parameters(found.type, given)
    if "snapshot_retention_priority" in given:
        given["retention_priority"] = given.pop("snapshot_retention_priority")
    changed = system.tasks.change(task, **given)
    return Reply(f"Task {task} was changed.", task_rows(system, [changed]))


def _check_parameters(type: TaskType, given: Mapping[str, Any]) -> None:
    """Of a task that is there, whose type is not among the words."""
    possible = [each for each in _OF_TYPES if each.needs == Needs("type", type)]
    for argument in set(given) - {each.argument for each in possible}:
        raise BadParameter(
            f"a task of type {type} has no parameter {argument.replace('_', '-')}; valid parameters: "
            f"{', '.join(each.name for each in possible)}"
        )


def _delete_question(context: Context, name: str) -> str:
    names = _chosen(context.system, name)
    schedules = [each.name for each in context.system.schedules.all() if each.task_name in names]
    also = (
        f" Schedule{'s' if len(schedules) > 1 else ''} {', '.join(schedules)} will be deleted as well."
        if schedules
        else ""
    )
    return f"Delete task{'s' if len(names) > 1 else ''} {', '.join(names)}?{also}"


@COMMANDS.command(
    "delete tasks",
    "Deletes a task, or all, and the schedules that start it. Snapshots that it has taken are kept.",
    positional("name", values.reference("task", or_all=True), "Name of the task, or all."),
    confirmation=_delete_question,
    examples=("delete tasks SalesNightly", "delete tasks all"),
)
def delete_tasks(context: Context, name: str) -> Reply:
    return Reply(context.system.tasks.delete(_chosen(context.system, name)))


def _chosen(system: System, name: str) -> list[str]:
    if name != ALL or system.tasks.find(ALL) is not None:
        return [system.tasks.get(name).name]
    found = [each.name for each in system.tasks.all()]
    if not found:
        raise ObjectNotFound("there are no tasks; there is nothing to delete")
    return found


@COMMANDS.command(
    "show tasks",
    "Lists tasks, their objects, and the results of their last starts.",
    keyword("type", TYPE, "Lists only tasks of this type."),
    positional("name", values.reference("task"), "Name of the task to show. Default: all.", required=False),
    role=Role.MONITOR,
    returns=(TASK,),
)
def show_tasks(context: Context, name: str | None = None, type: TaskType | None = None) -> Reply:
    tasks = context.system.tasks
    found = tasks.all() if name is None else [tasks.get(name)]
    return Reply(rows=task_rows(context.system, [each for each in found if type in (None, each.type)]))


def task_rows(system: System, found: list[TaskRecord]) -> tuple[Row, ...]:
    images = {each.image.id: each.image.name for each in system.images()}
    sets = {each.record.id: each.name for each in system.replication.sets.all()}
    schedules = system.schedules.all()
    return tuple(
        TASK.row(
            TaskView(
                each,
                images.get(each.image_id or 0, ""),
                sets.get(each.set_id or 0, ""),
                [schedule for schedule in schedules if schedule.task_name == each.name],
            )
        )
        for each in found
    )
