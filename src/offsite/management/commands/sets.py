"""Replication sets: create, change, delete, show."""

from __future__ import annotations

from typing import Any

from offsite.errors import VolumeNotFound
from offsite.management.command_table import values
from offsite.management.command_table.command import Parameter, Role, Subject, flag, keyword, positional
from offsite.management.command_table.reply import Kind, ObjectType, Property, Reply, Row, row
from offsite.management.commands.runs import LAST_RUN
from offsite.management.schedules.records import ScheduleRecord
from offsite.management.system import Context, System
from offsite.replication.points.snapshot_history import AGE_HOURS_MAX, COUNT_MAX, COUNT_MIN
from offsite.replication.runs.hooks import TIMEOUT_SECONDS_MAX, TIMEOUT_SECONDS_MIN
from offsite.replication.sets.creation import NewSet
from offsite.replication.sets.settings import ChosenSettings
from offsite.replication.sets.view import SetInfo

COMMANDS = Subject("Replication sets")

SET = ObjectType[Any](
    "replication-sets",
    "replication-set",
    (
        Property("name", "Name"),
        Property("role", "Role"),
        Property("primary-volume-name", "Primary"),
        Property("secondary-volume-name", "Secondary"),
        Property("peer-connection-name", "Peer"),
        Property("status", "Status"),
        Property("lag", "Lag", Kind.DURATION),
        Property("last-run-status", "Last run"),
        Property("queue-count", "Queued", Kind.NUMBER),
        Property("next-run", "Next run", Kind.TIME, seldom=True),
        Property("error", "Error", seldom=True),
        Property("group"),
        Property("members"),
        Property("primary-location"),
        Property("last-success-time", kind=Kind.TIME),  # when the newest run that succeeded ended
        Property("recovery-point-time", kind=Kind.TIME),  # the instant of the data that the secondary holds
        Property("last-run-start-time", kind=Kind.TIME),
        Property("last-run-end-time", kind=Kind.TIME),
        Property("last-run-bytes", kind=Kind.SIZE),
        Property("last-run-error"),
        Property("schedule-names"),
        Property("queue-policy"),
        Property("snapshot-history"),
        Property("snapshot-basename"),
        Property("snapshot-count", kind=Kind.NUMBER),
        Property("minimum-snapshot-count", kind=Kind.NUMBER),
        Property("minimum-snapshot-age", kind=Kind.NUMBER),
        Property("retention-priority"),
        Property("before-snapshot"),
        Property("after-snapshot"),
        Property("hook-timeout", kind=Kind.NUMBER),
        Property("storage-pool-name"),
        Property("remote-pool-name"),
        Property("generation", kind=Kind.NUMBER),
        Property("serial-number"),
        Property("creation-date-time", kind=Kind.TIME),
    ),
)
_SETTINGS: tuple[Parameter, ...] = (
    keyword(
        "queue-policy",
        values.choice("discard", "queue-latest"),
        "What becomes of a request while a run is under way: by default the latest is queued.",
    ),
    keyword(
        "snapshot-history",
        values.choice("disabled", "secondary", "both", off="disabled"),
        "Whether each run leaves a snapshot on the secondary, or on both.",
    ),
    keyword(
        "snapshot-basename",
        values.text("basename", 64),
        "What their names begin with: 1 to 26 bytes, for a group 1 to 22.",
    ),
    keyword("snapshot-count", values.integer(COUNT_MIN, COUNT_MAX), "How many of them are kept on each side."),
    keyword(
        "snapshot-retention-priority",
        values.choice("never-delete", "low", "medium", "high"),
        "In which order they may be deleted should space for snapshots be short. Nothing is deleted for this yet.",
    ),
    keyword(
        "before-snapshot",
        values.text("hook", 255),
        "A file in the directory hooks/ of the state directory that runs before the snapshot of each run, or none.",
    ),
    keyword("after-snapshot", values.text("hook", 255), "One that runs after it, or none."),
    keyword(
        "hook-timeout",
        values.integer(TIMEOUT_SECONDS_MIN, TIMEOUT_SECONDS_MAX),
        "How many seconds each of them may take; by default 60.",
    ),
)


def _settings(given: dict[str, Any]) -> ChosenSettings:
    hooks = {key: "" if given.get(key) == "none" else given.get(key) for key in ("before_snapshot", "after_snapshot")}
    return ChosenSettings(
        queue_policy=given.get("queue_policy"),
        snapshot_history=given.get("snapshot_history"),
        snapshot_basename=given.get("snapshot_basename"),
        snapshot_count=given.get("snapshot_count"),
        snapshot_retention_priority=given.get("snapshot_retention_priority"),
        hook_timeout_seconds=given.get("hook_timeout"),
        **hooks,
    )


@COMMANDS.command(
    "create replication-set",
    "Makes a set that replicates a volume, snapshot or volume group to another system, where it makes the secondary. "
    "Nothing is sent before the first `replicate`.",
    keyword("peer-connection", values.reference("peer connection"), "To which system.", required=True),
    keyword("primary-volume", values.reference("volume"), "The volume, snapshot or volume group here.", required=True),
    keyword("secondary-pool", values.reference("pool"), "The pool there; by default, the one called as here."),
    keyword(
        "secondary-volume-name",
        values.name("volume"),
        "The name of the volume or volume group there; by default, as here.",
    ),
    *_SETTINGS,
    positional("name", values.name("replication set"), "A name for the set.", named=True),
    long=True,
    examples=(
        "create replication-set peer-connection Newark primary-volume Sales SalesDR",
        "create replication-set peer-connection Newark primary-volume Sales snapshot-history both "
        "snapshot-basename SalesDR snapshot-count 7 SalesDR",
    ),
)
def create_replication_set(
    context: Context,
    peer_connection: str,
    primary_volume: str,
    name: str,
    secondary_pool: str | None = None,
    secondary_volume_name: str | None = None,
    **settings: Any,
) -> Reply:
    system = context.system
    system.replication.peers.get(peer_connection)
    group = system.groups.find(primary_volume)
    if group is not None:
        image_ids = group.image_ids
    else:
        try:
            image_ids = (system.image(primary_volume).image.id,)
        except VolumeNotFound as error:
            raise VolumeNotFound(f"{error}; nor is there a volume group of that name") from error
    wanted = NewSet(name, peer_connection, image_ids, group, secondary_pool, secondary_volume_name, _settings(settings))
    created = system.replication.sets.create(wanted)
    return Reply(f"Replication set {name} was created.", _rows(system, [created]))


@COMMANDS.command(
    "set replication-set",
    "Changes a replication set, also during a run: the name at once, the queue policy for later requests, the basename "
    "already for the snapshot that the secondary keeps of this run. Only on the primary's system, but for the "
    "minimums, which each system has for itself.",
    keyword("name", values.name("replication set"), "A new name."),
    *_SETTINGS,
    keyword(
        "minimum-snapshot-count",
        values.integer(COUNT_MIN, COUNT_MAX),
        "How many snapshots of the history this system keeps at least, whatever the other one says.",
    ),
    keyword(
        "minimum-snapshot-age",
        values.integer(0, AGE_HOURS_MAX),
        "For how many hours this system keeps each snapshot of the history at least, whatever the other one says.",
    ),
    positional("set", values.reference("replication set"), "The set, by its present name."),
    examples=(
        "set replication-set queue-policy discard SalesDR",
        "set replication-set minimum-snapshot-count 7 SalesDR",
    ),
)
def set_replication_set(
    context: Context,
    set: str,
    name: str | None = None,
    minimum_snapshot_count: int | None = None,
    minimum_snapshot_age: int | None = None,
    **settings: Any,
) -> Reply:
    sets = context.system.replication.sets
    of_here = minimum_snapshot_count is not None or minimum_snapshot_age is not None
    if not of_here or name is not None or settings:
        sets.modify(set, _settings(settings), name)
    if of_here:
        sets.protect(name or set, minimum_snapshot_count, minimum_snapshot_age)
    changed = sets.get(name or set)
    return Reply(f"Replication set {changed.name} was changed.", _rows(context.system, [changed]))


def _delete_question(context: Context, name: str, local_only: bool = False) -> str:
    found = context.system.replication.sets.get(name)
    where = "here alone" if local_only else f"here and at {found.peer_name}"
    also = context.system.tasks_that_go(set_id=found.record.id)
    return (
        f"Delete replication set {found.name} {where}? Its volumes stay; a new set has to send everything again.{also}"
    )


@COMMANDS.command(
    "delete replication-set",
    "Deletes a replication set, its tasks and its schedules, here and on the other system. Both volumes stay, as "
    "ordinary volumes, and so do the snapshots of its history.",
    flag("local-only", "Only here: for when the other system is gone. It ends a run, too."),
    positional("name", values.reference("replication set"), "The set."),
    confirmation=_delete_question,
    long=True,
)
def delete_replication_set(context: Context, name: str, local_only: bool = False) -> Reply:
    context.system.replication.sets.delete(name, local_only=local_only)
    return Reply(f"Replication set {name} was deleted. {context.system.roster.look()}".rstrip())


@COMMANDS.command(
    "show replication-sets",
    "Lists the replication sets that this system is an end of. The lag is the age of what the secondary holds.",
    positional("names", values.references("replication set"), "Only these.", required=False),
    role=Role.MONITOR,
)
def show_replication_sets(context: Context, names: tuple[str, ...] | None = None) -> Reply:
    sets = context.system.replication.sets
    found = [sets.get(each) for each in names] if names is not None else sets.all()
    return Reply(rows=_rows(context.system, found))


def _rows(system: System, found: list[SetInfo]) -> tuple[Row, ...]:
    return tuple(_row(each, system.schedules.of_set(each.record.id)) for each in found)


def _row(found: SetInfo, schedules: list[ScheduleRecord]) -> Row:
    last, replication_set, current = found.last_run, found.record, found.current_run
    return row(
        SET,
        {
            "name": found.name,
            "role": found.role,
            "primary-volume-name": found.primary_volume,
            "primary-location": "Local" if found.role == "primary" else "Remote",
            "secondary-volume-name": found.secondary_volume,
            "group": "Yes" if found.group is not None else "No",
            "members": ",".join(member.name for member in found.members),
            "peer-connection-name": found.peer_name,
            "status": found.status.value,
            "error": found.difference or (current.error if current is not None else None) or "",
            "last-success-time": found.last_success_at,
            "recovery-point-time": found.recovery_point_at,
            "lag": found.lag_seconds,
            "last-run-status": "N/A" if last is None else LAST_RUN[last.state],
            "last-run-start-time": last.started_at if last else None,
            "last-run-end-time": last.ended_at if last else None,
            "last-run-bytes": last.changed_bytes if last else None,
            "last-run-error": (last.error if last else None) or "",
            "queue-policy": replication_set.queue_policy,
            "next-run": min((each.next_at for each in schedules if each.next_at is not None), default=None),
            "schedule-names": ", ".join(each.name for each in schedules),
            "queue-count": 0 if found.queued_run is None else 1,
            "snapshot-history": replication_set.snapshot_history,
            "snapshot-basename": replication_set.snapshot_basename or "",
            "snapshot-count": replication_set.snapshot_count,
            "minimum-snapshot-count": replication_set.minimum_snapshot_count,
            "minimum-snapshot-age": replication_set.minimum_snapshot_age_hours,
            "retention-priority": replication_set.snapshot_retention_priority,
            "before-snapshot": replication_set.before_snapshot or "",
            "after-snapshot": replication_set.after_snapshot or "",
            "hook-timeout": replication_set.hook_timeout_seconds,
            "storage-pool-name": found.pool,
            "remote-pool-name": replication_set.remote_pool,
            "generation": replication_set.generation,
            "serial-number": found.uuid,
            "creation-date-time": replication_set.created_at,
        },
    )
