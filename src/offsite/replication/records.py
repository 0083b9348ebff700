"""Replication's records in the state database: peers, sets and runs, as plain values. (Points: point_records.)

Every function works within the transaction of the connection that it is given, so that a step of a run can
be one transaction with what it does to images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from offsite.store.tables.replication import peers, replication_sets, runs, set_members

Role = Literal["primary", "secondary"]
RUNS_KEPT = 1000

RunState = Literal["running", "success", "failed", "aborted"]


@dataclass(frozen=True)
class PeerRecord:
    id: int
    name: str
    system_uuid: str
    system_name: str
    address: str
    certificate: bytes
    created_at: float


@dataclass(frozen=True)
class MemberRecord:
    image_id: int
    remote_name: str


@dataclass(frozen=True)
class SetRecord:
    id: int
    uuid: str
    name: str
    role: Role
    state: Literal["preparing", "ready"]
    peer_id: int
    remote_pool: str
    generation: int
    created_at: float
    members: tuple[MemberRecord, ...]


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


# Peers


def all_peers(connection: Connection) -> list[PeerRecord]:
    rows = connection.execute(select(peers).order_by(peers.c.name)).mappings()
    return [PeerRecord(**row) for row in rows]


def insert_peer(connection: Connection, values: dict[str, Any]) -> None:
    connection.execute(insert(peers).values(values))


def update_peer(connection: Connection, peer_id: int, values: dict[str, Any]) -> None:
    connection.execute(update(peers).where(peers.c.id == peer_id).values(values))


def delete_peer(connection: Connection, peer_id: int) -> None:
    connection.execute(delete(peers).where(peers.c.id == peer_id))


# Sets


def all_sets(connection: Connection) -> list[SetRecord]:
    members: dict[int, list[MemberRecord]] = {}
    for row in connection.execute(select(set_members).order_by(set_members.c.position)).mappings():
        members.setdefault(row["set_id"], []).append(MemberRecord(row["image_id"], row["remote_name"]))
    rows = connection.execute(select(replication_sets).order_by(replication_sets.c.name)).mappings()
    return [SetRecord(**row, members=tuple(members.get(row["id"], ()))) for row in rows]


def insert_set(connection: Connection, values: dict[str, Any], members: Sequence[MemberRecord]) -> None:
    set_id = connection.execute(insert(replication_sets).values(values).returning(replication_sets.c.id)).scalar_one()
    for position, member in enumerate(members):
        row = {"set_id": set_id, "position": position}
        connection.execute(insert(set_members).values(**row, image_id=member.image_id, remote_name=member.remote_name))


def mark_set_ready(connection: Connection, set_id: int) -> None:
    connection.execute(update(replication_sets).where(replication_sets.c.id == set_id).values(state="ready"))


def delete_set(connection: Connection, set_id: int) -> None:
    connection.execute(delete(replication_sets).where(replication_sets.c.id == set_id))


# Runs


def set_runs(connection: Connection, set_id: int, limit: int = 100) -> list[RunRecord]:
    """Newest first."""
    rows = connection.execute(
        select(runs).where(runs.c.set_id == set_id).order_by(runs.c.id.desc()).limit(limit)
    ).mappings()
    return [_run(row) for row in rows]


def find_run(connection: Connection, uuid: str) -> RunRecord | None:
    row = connection.execute(select(runs).where(runs.c.uuid == uuid)).mappings().first()
    return _run(row) if row else None


def _run(row: RowMapping) -> RunRecord:
    return RunRecord(**{key: value for key, value in row.items() if key != "id"})


def insert_run(connection: Connection, set_id: int, uuid: str, started_at: float) -> None:
    """A new run. Of a set's runs only the newest thousand stay on record."""
    newest = select(runs.c.id).where(runs.c.set_id == set_id).order_by(runs.c.id.desc())
    oldest_kept = newest.offset(RUNS_KEPT - 1).limit(1).scalar_subquery()
    connection.execute(delete(runs).where(runs.c.set_id == set_id, runs.c.id <= oldest_kept))
    values = {"uuid": uuid, "set_id": set_id, "state": "running", "started_at": started_at}
    connection.execute(insert(runs).values(**values, changed_bytes=0, wire_bytes=0))


def update_run(connection: Connection, uuid: str, **values: Any) -> None:
    connection.execute(update(runs).where(runs.c.uuid == uuid).values(values))


def end_other_runs(connection: Connection, set_id: int, uuid: str, now: float, error: str) -> None:
    """Runs of the set that are on record as running, but are not this one, have failed."""
    stale = (runs.c.set_id == set_id) & (runs.c.state == "running") & (runs.c.uuid != uuid)
    connection.execute(update(runs).where(stale).values(state="failed", ended_at=now, error=error))
