"""The one writer of runs: whoever changes what is on record of a run does it here, within a transaction of its own.

The state of a run changes by an event alone, as run_states has it; all else that is on record of it are facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from sqlalchemy import Connection, delete, func, insert, select, update

from offsite.replication.naming.snapshot_numbers import later_number, number_after
from offsite.replication.records.run_records import find_run
from offsite.replication.records.run_states import (
    UNFINISHED,
    RunEvent,
    RunState,
    WrongRunState,
    is_over,
    next_state,
)
from offsite.replication.records.set_records import update_set
from offsite.replication.records.tables import replication_sets, runs

RUNS_KEPT = 1000
_BEGINS = (RunEvent.PREPARE, RunEvent.START, RunEvent.QUEUE, RunEvent.PROMOTE)


class RunFacts(TypedDict, total=False):
    """What is on record of a run besides its state; see run_records.RunRecord."""

    changed_bytes: int
    wire_bytes: int
    digest: str | None
    error: str | None
    snapshot_number: int
    source: str | None
    after_snapshot_due: bool


def change_run(
    connection: Connection, set_id: int, run: str, event: RunEvent, now: float, **facts: Unpack[RunFacts]
) -> RunState:
    """Something has happened to a run, which goes on record with it if it is new. Returns the state that it has now.
    Raises WrongRunState when this cannot happen to it."""
    known = find_run(connection, run)
    if known is not None and known.set_id != set_id:
        raise WrongRunState(f"run {run} belongs to another set")
    state = next_state(None if known is None else known.state, event)
    values: dict[str, Any] = {**facts, "state": state}
    if known is None or event in _BEGINS:
        values["started_at"] = now
    if is_over(state):
        values |= {"ended_at": now, "end_order": _end_order(set_id)}
    elif event is RunEvent.BEGIN:
        values["ended_at"] = None
    if known is None:
        _insert(connection, set_id, {"changed_bytes": 0, "wire_bytes": 0, **values, "uuid": run})
    else:
        connection.execute(update(runs).where(runs.c.uuid == run).values(values))
    return state


def note_run(connection: Connection, run: str, **facts: Unpack[RunFacts]) -> None:
    """More is known of a run; its state stays. Harmless for one that is not on record any more."""
    connection.execute(update(runs).where(runs.c.uuid == run).values(**facts))


def request_run(
    connection: Connection,
    set_id: int,
    run: str,
    number: int,
    event: RunEvent,
    now: float,
    **facts: Unpack[RunFacts],
) -> RunState:
    """What has become of a request so far. It has taken its number of the snapshot history."""
    _take_number(connection, set_id, number)
    facts["snapshot_number"] = number
    return change_run(connection, set_id, run, event, now, **facts)


def drop_unfinished(connection: Connection, set_id: int, candidates: Sequence[str], now: float, error: str) -> None:
    """Those of these runs that have not ended have nothing left to do."""
    chosen = runs.c.uuid.in_(candidates) & runs.c.state.in_(UNFINISHED)
    for run in connection.execute(select(runs.c.uuid).where(chosen).order_by(runs.c.id)).scalars().all():
        change_run(connection, set_id, run, RunEvent.DROP, now, error=error)


def fail_others(connection: Connection, set_id: int, run: str, now: float, error: str) -> None:
    """Runs of the set that are on record as running, but are not this one, have failed."""
    chosen = (runs.c.set_id == set_id) & (runs.c.state == "running") & (runs.c.uuid != run)
    for other in connection.execute(select(runs.c.uuid).where(chosen).order_by(runs.c.id)).scalars().all():
        change_run(connection, set_id, other, RunEvent.FAIL, now, error=error)


def use_number(connection: Connection, set_id: int, run: str, number: int) -> None:
    """The number that a run has got in the end. Those that wait behind it go on after it."""
    note_run(connection, run, snapshot_number=number)
    _take_number(connection, set_id, number)
    waiting = (runs.c.set_id == set_id) & runs.c.state.in_(("queued", "preparing")) & (runs.c.uuid != run)
    rows = connection.execute(select(runs.c.uuid, runs.c.snapshot_number).where(waiting).order_by(runs.c.id)).all()
    for row in rows:
        number = later_number(row.snapshot_number or 0, number_after(number))
        note_run(connection, row.uuid, snapshot_number=number)
        _take_number(connection, set_id, number)


def _take_number(connection: Connection, set_id: int, number: int) -> None:
    """The next request has the next one. It never goes back."""
    table = replication_sets
    now = connection.execute(select(table.c.next_snapshot_number).where(table.c.id == set_id)).scalar_one()
    update_set(connection, set_id, next_snapshot_number=later_number(number_after(number), now))


def _insert(connection: Connection, set_id: int, values: dict[str, Any]) -> None:
    """Of a set's runs only the newest thousand stay on record."""
    newest = select(runs.c.id).where(runs.c.set_id == set_id).order_by(runs.c.id.desc())
    oldest_kept = newest.offset(RUNS_KEPT - 1).limit(1).scalar_subquery()
    connection.execute(delete(runs).where(runs.c.set_id == set_id, runs.c.id <= oldest_kept))
    connection.execute(insert(runs).values(set_id=set_id, **values))


def _end_order(set_id: int) -> Any:
    """It is the last of its set to have ended, whatever the clock says."""
    others = runs.alias()
    return select(func.coalesce(func.max(others.c.end_order), 0) + 1).where(others.c.set_id == set_id).scalar_subquery()
