"""Runs of replication sets: replicate, suspend, resume, abort, the queue, and what they leave behind."""

from __future__ import annotations

from typing import Any

from offsite.errors import ErrorClass
from offsite.management.command_table import values
from offsite.management.command_table.command import Role, Subject, keyword, positional
from offsite.management.command_table.reply import Kind, ObjectType, Property, Reply, Row, Value, row
from offsite.management.system import Context
from offsite.pools.retention import NEVER_DELETE, priorities
from offsite.replication.peers.clock_skew import age
from offsite.replication.points.snapshot_history import history_of
from offsite.replication.records.run_records import RunRecord
from offsite.replication.sets.view import SetInfo
from offsite.replication.transfer.progress import RunProgress

COMMANDS = Subject("Replication")

RUN = ObjectType[Any](
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
        Property("snapshot"),
        Property("snapshot-number", kind=Kind.NUMBER),
        Property("digest"),
        Property("error-class"),  # of a run that waits to be tried again: who can do something about it
        Property("run"),
    ),
)
HISTORY = ObjectType[Any](
    "snapshot-history",
    "snapshot-history",
    (
        Property("replication-set", "Set"),
        Property("local-snapshot-name", "Local snapshot"),
        Property("number", "Number", Kind.NUMBER),
        Property("creation-date-time", "Created", Kind.TIME),
        Property("snap-data", "Data", Kind.SIZE),
        Property("retention-priority", "Retention priority"),
        Property("local-snapshot-serial"),
        Property("run"),
    ),
)
LAST_RUN = {"success": "Success", "failed": "Fail", "aborted": "Aborted"}
_SET = positional("name", values.reference("replication set"), "The set.")
_SETS = positional("names", values.references("replication set"), "The sets, with commas between them.")
_REQUESTED = {
    "running": "A run of replication set {} has started.",
    "queued": "A run of replication set {} is under way; this one is queued behind it.",
    "dropped": "A run of replication set {} is under way, and its queue policy is discard: the request was dropped.",
}


@COMMANDS.command(
    "replicate",
    "Starts a run: takes a snapshot of the primary now, and sends what differs from what the secondary holds. While "
    "another run is under way, the queue policy of the set decides.",
    keyword(
        "snapshot",
        values.reference("snapshot"),
        "A snapshot of the primary volume whose data is sent instead. Not for volume groups.",
    ),
    _SET,
    long=True,
    examples=("replicate SalesDR", "replicate SalesDR --wait", "replicate snapshot Monday SalesDR"),
)
def replicate(context: Context, name: str, snapshot: str | None = None) -> Reply:
    requested = context.system.replication.replicate(name, snapshot=snapshot)
    started = tuple(_runs(context, name, requested.run))
    return Reply(_REQUESTED[requested.state].format(name), started)


@COMMANDS.command(
    "suspend replication-set",
    "Makes the run of a set stand still, and takes no new ones, until the set is resumed.",
    _SETS,
    long=True,
)
def suspend_replication_set(context: Context, names: tuple[str, ...]) -> Reply:
    context.system.replication.suspend(*names)
    return Reply(f"Replication set{'s' if len(names) > 1 else ''} {', '.join(names)} suspended.")


@COMMANDS.command(
    "resume replication-set",
    "Goes on with the run of a suspended set, and takes new ones. One that failed is tried again at once.",
    _SETS,
    long=True,
)
def resume_replication_set(context: Context, names: tuple[str, ...]) -> Reply:
    context.system.replication.resume(*names)
    return Reply(f"Replication set{'s' if len(names) > 1 else ''} {', '.join(names)} resumed.")


def _abort_question(context: Context, name: str) -> str:
    found = context.system.replication.sets.get(name)
    return f"Abort the run of replication set {found.name}? What it has sent is given up."


@COMMANDS.command(
    "abort replication",
    "Ends the run of a set, running or suspended, on both systems. The secondary stays as the last complete run left "
    "it. A suspended set is resumed by it; a queued run comes next.",
    _SET,
    confirmation=_abort_question,
    long=True,
)
def abort_replication(context: Context, name: str) -> Reply:
    settled = context.system.replication.abort(name)
    later = "" if settled else " The other system does not answer; what is left there goes as soon as it does."
    return Reply(f"The run of replication set {name} was aborted.{later}")


@COMMANDS.command("clear replication-queue", "Drops the queued run of a set.", _SET, long=True)
def clear_replication_queue(context: Context, name: str) -> Reply:
    dropped = context.system.replication.clear_queue(name)
    return Reply(f"The queue of replication set {name} {'was cleared' if dropped else 'is empty'}.")


def _resolve_question(context: Context, use: str, name: str) -> str:
    del use
    return context.system.replication.resolution_question(name)


@COMMANDS.command(
    "resolve replication-set",
    "Decides about a set that is Diverged: its secondary holds a copy that the primary has never had. What the "
    "secondary holds is kept there, as a snapshot of each volume; then the content of the primary is sent.",
    keyword("use", values.choice("primary"), "Which system's content the set goes on with.", required=True),
    _SET,
    confirmation=_resolve_question,
    long=True,
    examples=("resolve replication-set use primary SalesDR",),
)
def resolve_replication_set(context: Context, use: str, name: str) -> Reply:
    del use
    resolved = context.system.replication.use_primary(name)
    return Reply(
        f"What {resolved.peer_name} held is kept there in {', '.join(resolved.snapshots)}. Replication set {name} goes "
        "on with the content of the primary."
    )


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


@COMMANDS.command(
    "show replication-snapshot-history",
    "Lists the snapshots on this system that runs of a set, or of all, have left behind, oldest first.",
    positional("name", values.reference("replication set"), "Only those of this set.", required=False),
    role=Role.MONITOR,
)
def show_replication_snapshot_history(context: Context, name: str | None = None) -> Reply:
    sets = context.system.replication.sets
    found = [sets.get(name)] if name is not None else sets.all()
    return Reply(rows=tuple(each for one in found for each in _history(context, one)))


def _history(context: Context, replication_set: SetInfo) -> list[Row]:
    system = context.system
    with system.database.read() as connection:
        kept = history_of(connection, replication_set.record.id)
        priority = priorities(connection)
    images = {each.image.id: each.image for each in system.images()}
    return [
        row(
            HISTORY,
            {
                "replication-set": replication_set.name,
                "local-snapshot-name": images[held.image_id].name,
                "local-snapshot-serial": images[held.image_id].uuid,
                "number": held.number,
                "creation-date-time": images[held.image_id].created_at,
                "snap-data": images[held.image_id].allocated_bytes,
                "retention-priority": priority.get(held.image_id, NEVER_DELETE),
                "run": held.run,
            },
        )
        for held in kept
        if held.image_id in images
    ]


def _runs(context: Context, name: str, run: str | None = None) -> list[Row]:
    """Those of a set, or this one of them."""
    replication = context.system.replication
    progress = replication.progress(name)
    waits_for_decision = replication.sets.waits_for_decision(name)
    now = context.system.clock.now()
    return [
        _run_row(
            name,
            each,
            progress if progress is not None and progress.run == each.uuid else None,
            now,
            waits_for_decision,
        )
        for each in replication.sets.runs(name, run)
    ]


def _run_row(
    name: str, run: RunRecord, progress: RunProgress | None, now: float, waits_for_decision: str | None
) -> Row:
    live = progress if run.state == "running" else None
    found: dict[str, Value] = {
        "replication-set": name,
        "state": run.state,
        "phase": run.state if progress is None else progress.state,
        "progress": live.percent if live else (100.0 if run.state == "success" else None),
        "start-time": run.started_at,
        "end-time": run.ended_at,
        "duration": age(run.started_at, now if run.ended_at is None else run.ended_at),
        "changed-bytes": live.changed_bytes if live else run.changed_bytes,
        "wire-bytes": live.wire_bytes if live else run.wire_bytes,
        "total-bytes": progress.bytes_total if progress else None,
        "left-bytes": progress.bytes_left if progress else None,
        "rate": progress.rate_bytes_per_second if progress else None,
        "estimated-time": live.expected_end_at if live else None,
        "snapshot": run.source or "",
        "snapshot-number": run.snapshot_number,
        "digest": run.digest or "",
        "error": (live.error if live else run.error) or "",
        "error-class": live.trouble.value if live and live.trouble else "",
        "run": run.uuid,
    }
    if waits_for_decision and run.state in ("running", "queued"):
        found |= {"error": waits_for_decision, "error-class": ErrorClass.OPERATOR.value}
    return row(RUN, found)
