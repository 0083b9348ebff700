"""Replication sets and their runs: create, delete, show, replicate."""

from __future__ import annotations

from offsite.management import values
from offsite.management.reply import Kind, ObjectType, Property, Reply, Row, Value, row
from offsite.management.system import Context
from offsite.management.table import Role, Subject, flag, keyword, positional
from offsite.replication.progress import RunProgress
from offsite.replication.records import RunRecord
from offsite.replication.set_info import SetInfo

COMMANDS = Subject("Replication")

SET = ObjectType(
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
        Property("primary-location"),
        Property("last-success-time", kind=Kind.TIME),
        Property("storage-pool-name"),
        Property("remote-pool-name"),
        Property("generation", kind=Kind.NUMBER),
        Property("serial-number"),
        Property("creation-date-time", kind=Kind.TIME),
    ),
)
RUN = ObjectType(
    "replication-runs",
    "replication-run",
    (
        Property("replication-set", "Set"),
        Property("state", "State"),
        Property("progress", "Progress", Kind.PERCENT),
        Property("start-time", "Started", Kind.TIME),
        Property("duration", "Took", Kind.DURATION),
        Property("changed-bytes", "Changed", Kind.SIZE),
        Property("wire-bytes", "On the wire", Kind.SIZE),
        Property("error", "Error"),
        Property("rate", kind=Kind.RATE),
        Property("left-bytes", kind=Kind.SIZE),
        Property("total-bytes", kind=Kind.SIZE),
        Property("phase"),
        Property("end-time", kind=Kind.TIME),
        Property("estimated-time", kind=Kind.TIME),
        Property("digest"),
        Property("run"),
    ),
)
_LAST_RUN = {"success": "Success", "failed": "Fail", "aborted": "Aborted"}


@COMMANDS.command(
    "create replication-set",
    "Makes a set that replicates a volume or snapshot to another system, where it makes the secondary volume. "
    "Nothing is sent before the first `replicate`.",
    keyword("peer-connection", values.reference("peer connection"), "To which system.", required=True),
    keyword("primary-volume", values.reference("volume"), "The volume or snapshot here.", required=True),
    keyword("secondary-pool", values.reference("pool"), "The pool there; by default, the one called as here."),
    keyword("secondary-volume-name", values.name("volume"), "The name of the volume there; by default, as here."),
    positional("name", values.name("replication set"), "A name for the set.", named=True),
    long=True,
    examples=("create replication-set peer-connection Newark primary-volume Sales SalesDR",),
)
def create_replication_set(
    context: Context,
    peer_connection: str,
    primary_volume: str,
    name: str,
    secondary_pool: str | None = None,
    secondary_volume_name: str | None = None,
) -> Reply:
    system = context.system
    found = system.image(primary_volume)
    system.replication.peers.get(peer_connection)
    created = system.replication.sets.create(
        name, found.image.id, peer_connection, secondary_pool, secondary_volume_name
    )
    return Reply(f"Replication set {name} was created.", (_row(created),))


def _delete_question(context: Context, name: str, local_only: bool = False) -> str:
    found = context.system.replication.sets.get(name)
    where = "here alone" if local_only else f"here and at {found.peer_name}"
    return f"Delete replication set {found.name} {where}? Its volumes stay; a new set has to send everything again."


@COMMANDS.command(
    "delete replication-set",
    "Deletes a replication set, here and on the other system. Both volumes stay, as ordinary volumes.",
    flag("local-only", "Only here: for when the other system is gone."),
    positional("name", values.reference("replication set"), "The set."),
    confirmation=_delete_question,
    long=True,
)
def delete_replication_set(context: Context, name: str, local_only: bool = False) -> Reply:
    context.system.replication.sets.delete(name, local_only=local_only)
    return Reply(f"Replication set {name} was deleted.")


@COMMANDS.command(
    "replicate",
    "Starts a run: takes a snapshot of the primary now, and sends what differs from what the secondary holds.",
    positional("name", values.reference("replication set"), "The set."),
    long=True,
    examples=("replicate SalesDR", "replicate SalesDR --wait"),
)
def replicate(context: Context, name: str) -> Reply:
    replication = context.system.replication
    run = replication.replicate(name)
    started = [each for each in _runs(context, name) if each["run"] == run]
    return Reply(f"A run of replication set {name} has started.", tuple(started))


@COMMANDS.command(
    "show replication-sets",
    "Lists the replication sets that this system is an end of. The lag is the age of what the secondary holds.",
    positional("names", values.references("replication set"), "Only these.", required=False),
    role=Role.MONITOR,
)
def show_replication_sets(context: Context, names: tuple[str, ...] | None = None) -> Reply:
    sets = context.system.replication.sets
    found = [sets.get(each) for each in names] if names is not None else sets.all()
    return Reply(rows=tuple(map(_row, found)))


@COMMANDS.command(
    "show replication-runs",
    "Lists the runs of a replication set, or of all, newest first.",
    positional("name", values.reference("replication set"), "Only those of this set.", required=False),
    role=Role.MONITOR,
)
def show_replication_runs(context: Context, name: str | None = None) -> Reply:
    sets = context.system.replication.sets
    names = [name] if name is not None else [each.name for each in sets.all()]
    return Reply(rows=tuple(each for one in names for each in _runs(context, one)))


def _row(found: SetInfo) -> Row:
    last = found.last_run
    return row(
        SET,
        {
            "name": found.name,
            "role": found.role,
            "primary-volume-name": found.primary_volume,
            "primary-location": "Local" if found.role == "primary" else "Remote",
            "secondary-volume-name": found.secondary_volume,
            "peer-connection-name": found.peer_name,
            "status": found.status.value,
            "last-success-time": found.recovery_point_at,
            "lag": found.lag_seconds,
            "last-run-status": "N/A" if last is None else _LAST_RUN.get(last.state, last.state),
            "storage-pool-name": found.pool,
            "remote-pool-name": found.remote_pool,
            "generation": found.generation,
            "serial-number": found.uuid,
            "creation-date-time": found.created_at,
        },
    )


def _runs(context: Context, name: str) -> list[Row]:
    replication = context.system.replication
    progress = replication.progress(name)
    now = context.system.clock.now()
    return [
        _run_row(name, each, progress if progress is not None and progress.run == each.uuid else None, now)
        for each in replication.sets.runs(name)
    ]


def _run_row(name: str, run: RunRecord, progress: RunProgress | None, now: float) -> Row:
    live = progress if run.state == "running" else None
    found: dict[str, Value] = {
        "replication-set": name,
        "state": run.state,
        "phase": run.state if progress is None else progress.state,
        "progress": live.percent if live else (100.0 if run.state == "success" else None),
        "start-time": run.started_at,
        "end-time": run.ended_at,
        "duration": (now if run.ended_at is None else run.ended_at) - run.started_at,
        "changed-bytes": live.changed_bytes if live else run.changed_bytes,
        "wire-bytes": live.wire_bytes if live else run.wire_bytes,
        "total-bytes": progress.bytes_total if progress else None,
        "left-bytes": progress.bytes_left if progress else None,
        "rate": progress.rate_bytes_per_second if progress else None,
        "estimated-time": live.expected_end_at if live else None,
        "digest": run.digest or "",
        "error": (live.error if live else run.error) or "",
        "run": run.uuid,
    }
    return row(RUN, found)
