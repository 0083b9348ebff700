"""The records of runs, and the numbers of the snapshot history that they take.

Every function works within the transaction of the connection that it is given, so that a step of a run can be one
transaction with what it does to images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update

from offsite.replication.naming.snapshot_numbers import later_number, number_after
from offsite.replication.records.set_records import update_set
from offsite.store.tables.replication import replication_sets, runs

RUNS_KEPT = 1000
RunState = Literal["preparing", "queued", "running", "success", "failed", "aborted", "dropped"]


@dataclass(frozen=True)
class RunRecord:
    uuid: str
    set_id: int
    state: RunState
    started_at: float
    ended_at: float | None
    changed_bytes: int
    wire_bytes: int
    digest: str | None
    error: str | None
    snapshot_number: int | None
    source: str | None  # name of the snapshot that is sent; none: the volumes as they were
    after_snapshot_due: bool  # the hook of that name has not ended; until then nothing is sent


# Asked all the time: to put a statement together anew would take as long as SQLite does.
_RUN_OF_UUID = select(runs).where(runs.c.uuid == bindparam("uuid"))
_NEWEST_RUN_IN = (
    select(runs)
    .where(runs.c.set_id == bindparam("set"), runs.c.state == bindparam("state"))
    .order_by(runs.c.id.desc())
    .limit(1)
)
_UNFINISHED_RUNS = select(runs).where(runs.c.state.in_(("preparing", "queued", "running"))).order_by(runs.c.id)


def set_runs(connection: Connection, set_id: int, limit: int = 100) -> list[RunRecord]:
    """Newest first."""
    rows = connection.execute(
        select(runs).where(runs.c.set_id == set_id).order_by(runs.c.id.desc()).limit(limit)
    ).mappings()
    return [_run(row) for row in rows]


def find_run(connection: Connection, uuid: str) -> RunRecord | None:
    row = connection.execute(_RUN_OF_UUID, {"uuid": uuid}).mappings().first()
    return _run(row) if row else None


def _run(row: RowMapping) -> RunRecord:
    return RunRecord(**{key: value for key, value in row.items() if key not in ("id", "end_order")})


def unfinished_runs(connection: Connection) -> list[RunRecord]:
    """Those of all sets that are being prepared, queued or under way, oldest first."""
    return [_run(row) for row in connection.execute(_UNFINISHED_RUNS).mappings()]


def runs_with_hook_due(connection: Connection) -> list[RunRecord]:
    """Those whose after-snapshot hook has not ended, oldest first."""
    chosen = select(runs).where(runs.c.after_snapshot_due).order_by(runs.c.id)
    return [_run(row) for row in connection.execute(chosen).mappings()]


def last_ended_run(connection: Connection, set_id: int) -> RunRecord | None:
    """The run that was done last, in one way or another; a request that was dropped was none."""
    done = runs.c.state.in_(("success", "failed", "aborted"))
    chosen = select(runs).where(runs.c.set_id == set_id, done).order_by(runs.c.end_order.desc(), runs.c.id.desc())
    row = connection.execute(chosen.limit(1)).mappings().first()
    return _run(row) if row else None


def set_run_in(connection: Connection, set_id: int, state: RunState) -> RunRecord | None:
    """The newest run of a set that is in this state."""
    row = connection.execute(_NEWEST_RUN_IN, {"set": set_id, "state": state}).mappings().first()
    return _run(row) if row else None


def insert_run(
    connection: Connection, set_id: int, uuid: str, started_at: float, state: RunState = "running", **values: Any
) -> None:
    """A new run. Of a set's runs only the newest thousand stay on record."""
    newest = select(runs.c.id).where(runs.c.set_id == set_id).order_by(runs.c.id.desc())
    oldest_kept = newest.offset(RUNS_KEPT - 1).limit(1).scalar_subquery()
    connection.execute(delete(runs).where(runs.c.set_id == set_id, runs.c.id <= oldest_kept))
    values |= {"uuid": uuid, "set_id": set_id, "state": state, "started_at": started_at}
    connection.execute(insert(runs).values(**values, changed_bytes=0, wire_bytes=0, **_end_order(set_id, values)))


def put_run(connection: Connection, set_id: int, uuid: str, started_at: float, **values: Any) -> None:
    """A run as it is now, whether it is on record already or not."""
    if find_run(connection, uuid) is None:
        insert_run(connection, set_id, uuid, started_at, **values)
    else:
        update_run(connection, uuid, started_at=started_at, **values)


def put_request(connection: Connection, set_id: int, uuid: str, number: int, now: float, **values: Any) -> None:
    """What has become of a request so far; it has taken its number of the snapshot history."""
    take_number(connection, set_id, number)
    put_run(connection, set_id, uuid, now, snapshot_number=number, **values)


def take_number(connection: Connection, set_id: int, number: int) -> None:
    """The number of the snapshot history that a request had: the next request has the next one. It never goes back."""
    table = replication_sets
    now = connection.execute(select(table.c.next_snapshot_number).where(table.c.id == set_id)).scalar_one()
    update_set(connection, set_id, next_snapshot_number=later_number(number_after(number), now))


def number_used(connection: Connection, set_id: int, run: str, number: int) -> None:
    """The number that a run has got in the end. Those that wait behind it go on after it."""
    update_run(connection, run, snapshot_number=number)
    take_number(connection, set_id, number)
    waiting = (runs.c.set_id == set_id) & runs.c.state.in_(("queued", "preparing")) & (runs.c.uuid != run)
    rows = connection.execute(select(runs.c.uuid, runs.c.snapshot_number).where(waiting).order_by(runs.c.id)).all()
    for row in rows:
        number = later_number(row.snapshot_number or 0, number_after(number))
        update_run(connection, row.uuid, snapshot_number=number)
        take_number(connection, set_id, number)


def update_run(connection: Connection, uuid: str, **values: Any) -> None:
    of_run = select(runs.c.set_id).where(runs.c.uuid == uuid).scalar_subquery()
    connection.execute(update(runs).where(runs.c.uuid == uuid).values(values | _end_order(of_run, values)))


def _end_order(set_id: Any, values: dict[str, Any]) -> dict[str, Any]:
    """For a run that ends with these values: it is the last of its set to have ended, whatever the clock says."""
    if values.get("ended_at") is None:
        return {}
    others = runs.alias()
    last = select(func.coalesce(func.max(others.c.end_order), 0) + 1).where(others.c.set_id == set_id)
    return {"end_order": last.scalar_subquery()}


def drop_runs(connection: Connection, uuids: Sequence[str], now: float, error: str) -> None:
    """Those of these runs that have not ended have nothing left to do."""
    unfinished = runs.c.uuid.in_(uuids) & runs.c.state.in_(("preparing", "queued", "running"))
    connection.execute(update(runs).where(unfinished).values(state="dropped", ended_at=now, error=error))


def end_other_runs(connection: Connection, set_id: int, uuid: str, now: float, error: str) -> None:
    """Runs of the set that are on record as running, but are not this one, have failed."""
    stale = (runs.c.set_id == set_id) & (runs.c.state == "running") & (runs.c.uuid != uuid)
    values: dict[str, Any] = {"state": "failed", "ended_at": now, "error": error}
    connection.execute(update(runs).where(stale).values(values | _end_order(set_id, values)))
