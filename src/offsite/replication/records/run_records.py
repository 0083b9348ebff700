"""The records of runs, as they are read; run_writer writes them.

Every function works within the transaction of the connection that it is given, so that a step of a run can be one
transaction with what it does to images.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, bindparam, func, select

from offsite.replication.records.run_states import UNFINISHED, RunState
from offsite.replication.records.tables import runs


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
_UNFINISHED_RUNS = select(runs).where(runs.c.state.in_(UNFINISHED)).order_by(runs.c.id)


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


def newest_run_id(connection: Connection) -> int:
    """Of all sets; 0 when there is no run. It rises with each run that is asked for."""
    return int(connection.execute(select(func.coalesce(func.max(runs.c.id), 0))).scalar_one())


def has_run_after(connection: Connection, set_id: int | None, run_id: int) -> bool:
    """Whether a run of the set was asked for after that one, and has not failed."""
    newer = (runs.c.set_id == set_id) & (runs.c.id > run_id) & (runs.c.state != "failed")
    return connection.execute(select(runs.c.id).where(newer).limit(1)).first() is not None


def set_run_in(connection: Connection, set_id: int, state: RunState) -> RunRecord | None:
    """The newest run of a set that is in this state."""
    row = connection.execute(_NEWEST_RUN_IN, {"set": set_id, "state": state}).mappings().first()
    return _run(row) if row else None
