"""`offsite replicate SET --wait`: starts a run, shows it live, and ends when it has ended, or waits for an operator.

A request that is queued behind another run is waited for as well: until it has had its turn and is done, or a newer
request took its place.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from offsite.errors import ErrorClass, OffsiteError, ProtocolError
from offsite.escaping import escaped
from offsite.interfaces.cli.exit_status import DROPPED
from offsite.interfaces.cli.options import CommandLine
from offsite.interfaces.encoding.values_shown import format_duration
from offsite.management.command_table.object_types import Row
from offsite.management.command_table.reply import Reply
from offsite.return_codes import ReturnCode
from offsite.units import format_size

POLL_SECONDS = 0.2
UNDER_WAY = ("preparing", "queued", "running")
NEEDED = {
    "run", "replication-set", "state", "phase", "error", "error-class", "progress", "total-bytes", "left-bytes", "rate",
    "estimated-time", "changed-bytes", "wire-bytes", "duration",
}  # fmt: skip


class RunFailed(OffsiteError):
    """The run failed or was aborted, or cannot succeed before an operator acts."""

    code = ReturnCode.RUN_FAILED
    error_class = ErrorClass.OPERATOR


class RunDropped(OffsiteError):
    """The queue policy dropped the request, or a newer request replaced it in the queue. No data was sent for it."""

    code = ReturnCode.RUN_DROPPED
    exit_status = DROPPED


class Asks(Protocol):
    def command(self, words: Sequence[str]) -> Reply: ...


def replicate(asked: Asks, line: CommandLine) -> Reply:
    """Returns what to say at the end. Raises RunFailed, or RunDropped."""
    run = _begun(asked.command(line.words))
    name = str(run["replication-set"])
    was_queued = run["state"] == "queued"
    if was_queued:
        print(f"Run {escaped(str(run['run']))} is queued behind the run in progress; waiting for it.", file=sys.stderr)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[state]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(f"Replicating {escaped(name)}", total=100.0, state="")
        ahead: Row | None = None
        while run["state"] in UNDER_WAY:
            _check_goes_on(name, run if ahead is None else ahead)
            progress.update(task, completed=number(run, "progress"), state=state(run, time.time()))
            time.sleep(POLL_SECONDS)
            run, ahead = _look(asked, name, run)
        if run["state"] == "success":
            progress.update(task, completed=100.0, state="")
    if run["state"] == "dropped":
        raise RunDropped(f"run {run['run']} of replication set {name} was dropped: {run['error']}")
    if run["state"] != "success":
        raise RunFailed(f"the run of replication set {name} ended as {run['state']}: {run['error']}")
    waited = f"Run {run['run']} has ended. " if was_queued else ""
    return Reply(waited + summary(name, run), (run,))


def _begun(reply: Reply) -> Row:
    rows = _checked(reply)
    if len(rows) != 1:
        raise ProtocolError(f"the system answered `replicate` with {len(rows)} runs instead of one")
    return rows[0]


def _checked(reply: Reply) -> tuple[Row, ...]:
    """The runs of an answer. Raises ProtocolError for one that lacks what is needed of a run."""
    for row in reply.rows:
        missing = NEEDED - {each.name for each in row.type.properties}
        if missing:
            raise ProtocolError(f"the system sent a run without {', '.join(sorted(missing))}")
    return reply.rows


def _look(asked: Asks, name: str, run: Row) -> tuple[Row, Row | None]:
    """The run as it is now; and, while it is queued, the one that it is queued behind."""
    rows = _checked(asked.command(["show", "replication-runs", f'"{name}"']))
    now = next((each for each in rows if each["run"] == run["run"]), None)
    if now is None:
        raise RunFailed(f"run {run['run']} of replication set {name} no longer exists; its result is unknown")
    ahead = next((each for each in rows if each["state"] == "running"), None) if now["state"] == "queued" else None
    return now, ahead


def _check_goes_on(name: str, run: Row) -> None:
    """A peer that is gone is waited for: it comes back by itself. A full pool does not get emptier by waiting."""
    if run["error-class"] not in (None, "", ErrorClass.TRANSIENT.value):
        raise RunFailed(
            f"the run of replication set {name} cannot continue: {run['error']}. It continues by itself once that is "
            "resolved; `abort replication` ends it"
        )


def state(run: Row, now: float) -> str:
    """What a run is at: bytes, rate and expected end, or what it waits for."""
    if run["state"] == "queued":
        return "queued behind the run in progress"
    if run["phase"] != "sending":
        return f"{run['phase']}: {run['error']}" if run["error"] else str(run["phase"])
    total = number(run, "total-bytes")
    parts = [
        f"{format_size(int(total - number(run, 'left-bytes')))} of {format_size(int(total))}",
        f"{format_size(int(number(run, 'rate')))}/s",
    ]
    if run["estimated-time"] is not None:
        parts.append(f"{format_duration(max(0.0, number(run, 'estimated-time') - now))} left")
    return ", ".join(parts)


def summary(name: str, run: Row) -> str:
    changed, wire = (format_size(int(number(run, each))) for each in ("changed-bytes", "wire-bytes"))
    sent = f"{changed} had changed, {wire} went over the wire"
    if run["duration"] is not None:  # else a clock was set meanwhile
        sent += f", in {format_duration(number(run, 'duration'))}"
    return f"{name} is up to date: {sent}; the digests of all that was sent are equal."


def number(row: Row, name: str) -> float:
    """A value that is a number; 0 while it is not known."""
    value = row[name]
    return value if isinstance(value, (int, float)) else 0.0
