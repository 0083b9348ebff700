"""Runs of replication sets: replicate, suspend, resume, abort, the queue, and what they leave behind."""

from __future__ import annotations

from dataclasses import dataclass

from offsite.errors import ErrorClass, SetDiverged
from offsite.management.command_table import properties, values
from offsite.management.command_table.answers import PEER_ERRORS
from offsite.management.command_table.command import Option, Role, Subject, keyword, positional
from offsite.management.command_table.object_types import ObjectType, Row
from offsite.management.command_table.reply import Reply
from offsite.management.commands.enumerations import RETENTION_PRIORITY
from offsite.management.system import Context
from offsite.pools.protocol import ImageInfo
from offsite.pools.retention import NEVER_DELETE, priorities
from offsite.replication.peers.clock_skew import age
from offsite.replication.points.snapshot_history import HeldSnapshot, history_of
from offsite.replication.records.run_records import RunRecord
from offsite.replication.runs.hooks import HookFailed
from offsite.replication.sets.view import SetInfo
from offsite.replication.transfer.progress import RunProgress

COMMANDS = Subject("Replication")


@dataclass(frozen=True, slots=True)
class RunView:
    """A run of a set; with its progress, if this system has it under way."""

    set_name: str
    run: RunRecord
    progress: RunProgress | None
    now: float
    waits_for_decision: str | None = None  # what an operator has to decide before the set's runs go on

    @property
    def live(self) -> RunProgress | None:
        return self.progress if self.run.state == "running" else None

    @property
    def percent(self) -> float | None:
        if self.live is not None:
            return self.live.percent
        return 100.0 if self.run.state == "success" else None

    @property
    def seconds(self) -> float | None:
        return age(self.run.started_at, self.now if self.run.ended_at is None else self.run.ended_at)

    @property
    def waits(self) -> bool:
        return bool(self.waits_for_decision) and self.run.state in ("running", "queued")

    @property
    def error(self) -> str:
        if self.waits:
            return self.waits_for_decision or ""
        return (self.live.error if self.live is not None else self.run.error) or ""

    @property
    def error_class(self) -> str:
        """Of a run that waits to be tried again: who can do something about it."""
        if self.waits:
            return ErrorClass.OPERATOR.value
        return self.live.trouble.value if self.live is not None and self.live.trouble else ""


@dataclass(frozen=True, slots=True)
class HistoryView:
    set_name: str
    held: HeldSnapshot
    image: ImageInfo
    retention_priority: str


RUN = ObjectType[RunView](
    "replication-runs",
    "replication-run",
    (
        properties.text("replication-set", lambda view: view.set_name, "Set", of_type="replication-sets"),
        properties.text("state", lambda view: view.run.state, "State"),
        properties.percent("progress", lambda view: view.percent, "Progress"),
        properties.time("start-time", lambda view: view.run.started_at, "Started"),
        properties.duration("duration", lambda view: view.seconds, "Duration"),
        properties.size(
            "changed-bytes", lambda view: view.live.changed_bytes if view.live else view.run.changed_bytes, "Changed"
        ),
        properties.size("wire-bytes", lambda view: view.live.wire_bytes if view.live else view.run.wire_bytes, "Sent"),
        properties.text("error", lambda view: view.error, "Error"),
        properties.rate("rate", lambda view: view.progress.rate_bytes_per_second if view.progress else None),
        properties.size("left-bytes", lambda view: view.progress.bytes_left if view.progress else None),
        properties.size("total-bytes", lambda view: view.progress.bytes_total if view.progress else None),
        properties.text("phase", lambda view: view.run.state if view.progress is None else view.progress.state),
        properties.time("end-time", lambda view: view.run.ended_at),
        properties.time("estimated-time", lambda view: view.live.expected_end_at if view.live else None),
        properties.text("snapshot", lambda view: view.run.source or ""),
        properties.number("snapshot-number", lambda view: view.run.snapshot_number),
        properties.text("digest", lambda view: view.run.digest or ""),
        properties.text("error-class", lambda view: view.error_class),
        properties.text("run", lambda view: view.run.uuid, key=True),
    ),
    me4_basetype="cs-replication",
)
HISTORY = ObjectType[HistoryView](
    "snapshot-history",
    "snapshot-history",
    (
        properties.text("replication-set", lambda view: view.set_name, "Set", of_type="replication-sets"),
        properties.text(
            "local-snapshot-name", lambda view: view.image.name, "Local snapshot", key=True, of_type="snapshots"
        ),
        properties.number("number", lambda view: view.held.number, "Number"),
        properties.time(
            "creation-date-time", lambda view: view.image.created_at, "Created", display_name="Creation Date/Time"
        ),
        properties.size("snap-data", lambda view: view.image.allocated_bytes, "Data"),
        properties.enumeration(
            "retention-priority", RETENTION_PRIORITY, lambda view: view.retention_priority, "Retention priority"
        ),
        properties.text("local-snapshot-serial", lambda view: view.image.uuid),
        properties.text("run", lambda view: view.held.run, of_type="replication-runs"),
    ),
)
LAST_RUN = {"success": "Success", "failed": "Fail", "aborted": "Aborted"}
_SET = positional("name", values.reference("replication set"), "Name of the replication set.")
_SETS = positional("names", values.references("replication set"), "Names of the replication sets.")
_REQUESTED = {
    "running": "A run of replication set {} has started.",
    "queued": "Replication set {} already has an active run; this run is queued.",
    "dropped": "Replication set {} has an active run, and its queue policy is discard: the request was dropped.",
}


def _check_replicate(context: Context, name: str, snapshot: str | None = None) -> None:
    context.system.replication.check_replicate(name, snapshot=snapshot is not None)


@COMMANDS.command(
    "replicate",
    "Starts a run: takes a snapshot of the primary and sends its differences from the secondary. While another run is "
    "active, the queue policy of the set applies.",
    keyword(
        "snapshot",
        values.reference("snapshot"),
        "Existing snapshot of the primary volume to send instead. Not for volume groups.",
    ),
    _SET,
    options=(Option("wait", "Shows the progress of the run and waits until it has ended."),),
    examples=("replicate SalesDR", "replicate SalesDR --wait", "replicate snapshot Monday SalesDR"),
    alone=False,
    slow=True,
    returns=(RUN,),
    errors=(HookFailed, SetDiverged),
    acceptance=_check_replicate,
)
def replicate(context: Context, name: str, snapshot: str | None = None) -> Reply:
    requested = context.system.replication.replicate(name, snapshot=snapshot)
    started = tuple(_runs(context, name, requested.run))
    return Reply(_REQUESTED[requested.state].format(name), started)


@COMMANDS.command(
    "suspend replication-set",
    "Pauses the set's run and rejects new requests until the set is resumed.",
    _SETS,
    alone=False,
    slow=True,
    acceptance=lambda context, names: context.system.replication.check_suspend(*names),
)
def suspend_replication_set(context: Context, names: tuple[str, ...]) -> Reply:
    context.system.replication.suspend(*names)
    return Reply(f"Replication set{'s' if len(names) > 1 else ''} {', '.join(names)} suspended.")


@COMMANDS.command(
    "resume replication-set",
    "Resumes a suspended set; retries a failed run at once.",
    _SETS,
    alone=False,
    slow=True,
    errors=(SetDiverged,),
    acceptance=lambda context, names: context.system.replication.check_resume(*names),
)
def resume_replication_set(context: Context, names: tuple[str, ...]) -> Reply:
    context.system.replication.resume(*names)
    return Reply(f"Replication set{'s' if len(names) > 1 else ''} {', '.join(names)} resumed.")


def _abort_question(context: Context, name: str) -> str:
    found = context.system.replication.sets.get(name)
    return f"Abort the run of replication set {found.name}? The data it has sent is discarded."


@COMMANDS.command(
    "abort replication",
    "Aborts the set's run, running or suspended, on both systems. The secondary keeps the data of the last complete "
    "run. A suspended set is resumed, and a queued run starts.",
    _SET,
    confirmation=_abort_question,
    alone=False,
    slow=True,
    errors=PEER_ERRORS,
    acceptance=lambda context, name: context.system.replication.check_abort(name),
)
def abort_replication(context: Context, name: str) -> Reply:
    settled = context.system.replication.abort(name)
    later = (
        "" if settled else " The other system does not answer; it will discard the data of the run as soon as it does."
    )
    return Reply(f"The run of replication set {name} was aborted.{later}")


@COMMANDS.command(
    "clear replication-queue",
    "Drops the queued run of a replication set.",
    _SET,
    alone=False,
    acceptance=lambda context, name: context.system.replication.check_clear_queue(name),
)
def clear_replication_queue(context: Context, name: str) -> Reply:
    dropped = context.system.replication.clear_queue(name)
    return Reply(f"The queue of replication set {name} {'was cleared' if dropped else 'is empty'}.")


def _resolve_question(context: Context, use: str, name: str) -> str:
    del use
    return context.system.replication.resolution_question(name)


@COMMANDS.command(
    "resolve replication-set",
    "Resolves a Diverged set, whose secondary holds data that the primary never had. The data of the secondary is kept "
    "there as a snapshot of each volume; then the content of the primary is sent.",
    keyword("use", values.choice("primary"), "System whose content the set continues with.", required=True),
    _SET,
    confirmation=_resolve_question,
    examples=("resolve replication-set use primary SalesDR",),
    alone=False,
    slow=True,
    errors=(*PEER_ERRORS, SetDiverged),
    acceptance=lambda context, name, **_: context.system.replication.check_use_primary(name),
)
def resolve_replication_set(context: Context, use: str, name: str) -> Reply:
    del use
    resolved = context.system.replication.use_primary(name)
    return Reply(
        f"{resolved.peer_name} keeps its previous data in snapshot {', '.join(resolved.snapshots)}. Replication set "
        f"{name} continues with the primary's content."
    )


@COMMANDS.command(
    "show replication-runs",
    "Lists the runs of a replication set or of all sets, newest first.",
    positional(
        "name", values.reference("replication set"), "Name of the replication set. Default: all.", required=False
    ),
    role=Role.MONITOR,
    returns=(RUN,),
)
def show_replication_runs(context: Context, name: str | None = None) -> Reply:
    sets = context.system.replication.sets
    names = [name] if name is not None else [each.name for each in sets.all()]
    return Reply(rows=tuple(each for one in names for each in _runs(context, one)))


@COMMANDS.command(
    "show replication-snapshot-history",
    "Lists the snapshots on this system that runs of a set or of all sets have kept, oldest first.",
    positional(
        "name", values.reference("replication set"), "Name of the replication set. Default: all.", required=False
    ),
    role=Role.MONITOR,
    returns=(HISTORY,),
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
        HISTORY.row(
            HistoryView(replication_set.name, held, images[held.image_id], priority.get(held.image_id, NEVER_DELETE))
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
        RUN.row(
            RunView(
                name,
                each,
                progress if progress is not None and progress.run == each.uuid else None,
                now,
                waits_for_decision,
            )
        )
        for each in replication.sets.runs(name, run)
    ]
