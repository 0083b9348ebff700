"""Replication sets: create, change, delete, show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from offsite.errors import PeerLimitReached, VolumeNotFound
from offsite.management.command_table import properties, values
from offsite.management.command_table.answers import PEER_ERRORS
from offsite.management.command_table.command import Parameter, Role, Subject, flag, keyword, positional
from offsite.management.command_table.object_types import ObjectType, Row
from offsite.management.command_table.reply import Reply
from offsite.management.command_table.values import Choice, ValueKind
from offsite.management.commands.enumerations import (
    IS_GROUP,
    LAST_RUN_STATUS,
    LOCATION,
    QUEUE_POLICY,
    RETENTION_PRIORITY,
    SET_STATUS,
    SNAPSHOT_HISTORY,
)
from offsite.management.commands.runs import LAST_RUN
from offsite.management.commands.volumes import RETENTION
from offsite.management.schedules.records import ScheduleRecord
from offsite.management.system import Context, System
from offsite.pools.groups import Group
from offsite.replication.naming.snapshot_names import BASENAME_BYTES_MAX, GROUP_BASENAME_BYTES_MAX, NO_BASENAME
from offsite.replication.points.snapshot_history import AGE_HOURS_MAX, COUNT_MAX, COUNT_MIN
from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.set_records import SetRecord
from offsite.replication.runs.hooks import TIMEOUT_SECONDS_MAX, TIMEOUT_SECONDS_MIN
from offsite.replication.sets.creation import NewSet
from offsite.replication.sets.settings import ChosenSettings
from offsite.replication.sets.view import SetInfo

COMMANDS = Subject("Replication sets")


@dataclass(frozen=True, slots=True)
class SetView:
    replication_set: SetInfo
    schedules: Sequence[ScheduleRecord]

    @property
    def record(self) -> SetRecord:
        return self.replication_set.record

    @property
    def last_run(self) -> RunRecord | None:
        return self.replication_set.last_run

    @property
    def next_run_at(self) -> float | None:
        return min((each.next_at for each in self.schedules if each.next_at is not None), default=None)

    @property
    def error(self) -> str:
        current = self.replication_set.current_run
        return self.replication_set.difference or (current.error if current is not None else None) or ""


SET = ObjectType[SetView](
    "replication-sets",
    "replication-set",
    (
        properties.text("name", lambda view: view.record.name, "Name", key=True),
        properties.text("role", lambda view: view.record.role, "Role"),
        properties.text("primary-volume-name", lambda view: view.replication_set.primary_volume, "Primary"),
        properties.text("secondary-volume-name", lambda view: view.replication_set.secondary_volume, "Secondary"),
        properties.text(
            "peer-connection-name", lambda view: view.replication_set.peer_name, "Peer", of_type="peer-connections"
        ),
        properties.enumeration("status", SET_STATUS, lambda view: view.replication_set.status.value, "Status"),
        properties.duration("lag", lambda view: view.replication_set.lag_seconds, "Lag"),
        properties.enumeration(
            "last-run-status",
            LAST_RUN_STATUS,
            lambda view: "N/A" if view.last_run is None else LAST_RUN[view.last_run.state],
            "Last run",
        ),
        properties.number("queue-count", lambda view: 0 if view.replication_set.queued_run is None else 1, "Queued"),
        properties.time("next-run", lambda view: view.next_run_at, "Next run", seldom=True),
        properties.text("error", lambda view: view.error, "Error", seldom=True),
        properties.enumeration("group", IS_GROUP, lambda view: "No" if view.replication_set.group is None else "Yes"),
        properties.text("members", lambda view: ",".join(member.name for member in view.replication_set.members)),
        properties.enumeration(
            "primary-location", LOCATION, lambda view: "Local" if view.record.role == "primary" else "Remote"
        ),
        # When the newest run that succeeded ended; and the instant of the data that the secondary holds.
        properties.time("last-success-time", lambda view: view.replication_set.last_success_at),
        properties.time("recovery-point-time", lambda view: view.replication_set.recovery_point_at),
        properties.time("last-run-start-time", lambda view: view.last_run.started_at if view.last_run else None),
        properties.time("last-run-end-time", lambda view: view.last_run.ended_at if view.last_run else None),
        properties.size("last-run-bytes", lambda view: view.last_run.changed_bytes if view.last_run else None),
        properties.text("last-run-error", lambda view: (view.last_run.error if view.last_run else None) or ""),
        properties.text("schedule-names", lambda view: ", ".join(each.name for each in view.schedules)),
        properties.enumeration("queue-policy", QUEUE_POLICY, lambda view: view.record.queue_policy),
        properties.enumeration("snapshot-history", SNAPSHOT_HISTORY, lambda view: view.record.snapshot_history),
        properties.text("snapshot-basename", lambda view: view.record.snapshot_basename or ""),
        properties.number("snapshot-count", lambda view: view.record.snapshot_count),
        properties.number("minimum-snapshot-count", lambda view: view.record.minimum_snapshot_count),
        properties.number("minimum-snapshot-age", lambda view: view.record.minimum_snapshot_age_hours, unit="hours"),
        properties.enumeration(
            "retention-priority", RETENTION_PRIORITY, lambda view: view.record.snapshot_retention_priority
        ),
        properties.text("before-snapshot", lambda view: view.record.before_snapshot or ""),
        properties.text("after-snapshot", lambda view: view.record.after_snapshot or ""),
        properties.number("hook-timeout", lambda view: view.record.hook_timeout_seconds, unit="seconds"),
        properties.text("storage-pool-name", lambda view: view.replication_set.pool, of_type="pools"),
        properties.text("remote-pool-name", lambda view: view.record.remote_pool),
        properties.number("generation", lambda view: view.record.generation),
        properties.text("serial-number", lambda view: view.record.uuid),
        properties.time("creation-date-time", lambda view: view.record.created_at),
    ),
    me4_basetype="cs-replication-set",
)
REPLICABLE = values.reference("volume", "snapshot", "volume group")
HOOK = values.special(ValueKind.TEXT, "hook", maximum=255, or_word="none")
_SETTINGS: tuple[Parameter, ...] = (
    keyword(
        "queue-policy",
        values.choice(Choice("discard", 1), Choice("queue-latest", 2)),
        "Handling of a request while a run is active: discard it, or queue the latest one.",
        default="queue-latest",
    ),
    keyword(
        "snapshot-history",
        values.choice(Choice("disabled", 0, also=("off",)), Choice("secondary", 1), Choice("both", 2)),
        "Whether each run keeps a snapshot on the secondary, or on both systems.",
        default="disabled",
    ),
    keyword(
        "snapshot-basename",
        values.text("snapshot basename", BASENAME_BYTES_MAX, forbidden=NO_BASENAME),
        f"Beginning of the names of the kept snapshots. For a volume group, at most {GROUP_BASENAME_BYTES_MAX} bytes.",
    ),
    keyword("snapshot-count", values.integer(COUNT_MIN, COUNT_MAX), "Number of snapshots to keep on each system."),
    keyword(
        "snapshot-retention-priority",
        RETENTION,
        "Retention priority of the kept snapshots. It is stored and shown, but has no effect yet.",
        default="never-delete",
    ),
    keyword(
        "before-snapshot",
        HOOK,
        "Hook to run before the snapshot of each run: name of a file in hooks/ of the state directory.",
        default="none",
    ),
    keyword("after-snapshot", HOOK, "Hook to run after the snapshot of each run.", default="none"),
    keyword(
        "hook-timeout",
        values.integer(TIMEOUT_SECONDS_MIN, TIMEOUT_SECONDS_MAX, "seconds"),
        "Maximum duration of each hook.",
        default=60,
    ),
)
_CHANGES = tuple(replace(each, default=None) for each in _SETTINGS)  # what is not given stays as it is


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


def _primary(system: System, name: str) -> tuple[tuple[int, ...], Group | None]:
    """The images that a set would replicate, and the group that they are the members of. Raises VolumeNotFound."""
    group = system.groups.find(name)
    if group is not None:
        return group.image_ids, group
    try:
        return (system.image(name).image.id,), None
    except VolumeNotFound as error:
        raise VolumeNotFound(f"{error}; nor is there a volume group of that name") from error


def _check_replicable(context: Context, primary_volume: str, **_: object) -> None:
    context.system.replication.sets.check_replicable(*_primary(context.system, primary_volume))


@COMMANDS.command(
    "create replication-set",
    "Creates a replication set of a volume, snapshot or volume group, and its secondary on the other system. No data "
    "is sent before the first `replicate`.",
    keyword(
        "peer-connection", values.reference("peer connection"), "Peer connection to the other system.", required=True
    ),
    keyword("primary-volume", REPLICABLE, "Volume, snapshot or volume group to replicate.", required=True),
    keyword(
        "secondary-pool",
        values.text("pool"),
        "Pool on the other system. Default: the pool with the name of the primary's pool.",
    ),
    keyword(
        "secondary-volume-name",
        values.name("volume"),
        "Name of the secondary volume or volume group. Default: the name of the primary.",
    ),
    *_SETTINGS,
    positional("name", values.name("replication set"), "Name of the new set.", named=True),
    examples=(
        "create replication-set peer-connection Newark primary-volume Sales SalesDR",
        "create replication-set peer-connection Newark primary-volume Sales snapshot-history both "
        "snapshot-basename SalesDR snapshot-count 7 SalesDR",
    ),
    alone=False,
    slow=True,
    returns=(SET,),
    errors=(*PEER_ERRORS, PeerLimitReached),
    acts_on=("primary-volume",),
    acceptance=_check_replicable,
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
    image_ids, group = _primary(system, primary_volume)
    wanted = NewSet(name, peer_connection, image_ids, group, secondary_pool, secondary_volume_name, _settings(settings))
    created = system.replication.sets.create(wanted)
    return Reply(f"Replication set {name} was created.", _rows(system, [created]))


def _check_modifiable(
    context: Context,
    set: str,
    minimum_snapshot_count: int | None = None,
    minimum_snapshot_age: int | None = None,
    **others: object,
) -> None:
    """The minimums each system has for itself."""
    del minimum_snapshot_count, minimum_snapshot_age
    if others:
        context.system.replication.sets.check_modifiable(set)


@COMMANDS.command(
    "set replication-set",
    "Changes a replication set on the system of its primary, also during a run. A new name applies at once, a new "
    "queue policy to later requests, a new basename to the snapshots that are kept from now on. The minimums are "
    "settings of each system and can be changed on both.",
    keyword("name", values.name("replication set"), "New name of the set."),
    *_CHANGES,
    keyword(
        "minimum-snapshot-count",
        values.integer(COUNT_MIN, COUNT_MAX),
        "Minimum number of kept snapshots on this system, regardless of the other system.",
    ),
    keyword(
        "minimum-snapshot-age",
        values.integer(0, AGE_HOURS_MAX, "hours"),
        "Minimum time to keep each snapshot on this system, regardless of the other system.",
    ),
    positional("set", values.reference("replication set"), "Current name of the set."),
    examples=(
        "set replication-set queue-policy discard SalesDR",
        "set replication-set minimum-snapshot-count 7 SalesDR",
    ),
    returns=(SET,),
    acceptance=_check_modifiable,
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


def _check_deletable(context: Context, name: str, local_only: bool = False) -> None:
    if not local_only:
        context.system.replication.sets.check_deletable(name)


def _delete_question(context: Context, name: str, local_only: bool) -> str:
    found = context.system.replication.sets.get(name)
    where = "on this system only" if local_only else f"on this system and on {found.peer_name}"
    also = context.system.tasks_that_go(set_id=found.record.id)
    return (
        f"Delete replication set {found.name} {where}? Its volumes are kept. A new set has to send all data again."
        f"{also}"
    )


@COMMANDS.command(
    "delete replication-set",
    "Deletes a replication set, its tasks and its schedules, on both systems. Both volumes are kept as ordinary "
    "volumes, as are the snapshots of the snapshot history.",
    flag(
        "local-only", "Deletes it on this system only and ends its run, for use when the other system no longer exists."
    ),
    positional("name", values.reference("replication set"), "Name of the replication set."),
    confirmation=_delete_question,
    alone=False,
    slow=True,
    errors=PEER_ERRORS,
    acceptance=_check_deletable,
)
def delete_replication_set(context: Context, name: str, local_only: bool) -> Reply:
    context.system.replication.sets.delete(name, local_only=local_only)
    return Reply(f"Replication set {name} was deleted. {context.system.roster.look()}".rstrip())


@COMMANDS.command(
    "show replication-sets",
    "Lists the replication sets of this system. The lag is the age of the data on the secondary.",
    positional(
        "names", values.references("replication set"), "Names of the sets to list. Default: all.", required=False
    ),
    role=Role.MONITOR,
    returns=(SET,),
)
def show_replication_sets(context: Context, names: tuple[str, ...] | None = None) -> Reply:
    sets = context.system.replication.sets
    found = [sets.get(each) for each in names] if names is not None else sets.all()
    return Reply(rows=_rows(context.system, found))


def _rows(system: System, found: list[SetInfo]) -> tuple[Row, ...]:
    return tuple(SET.row(SetView(each, system.schedules.of_set(each.record.id))) for each in found)
