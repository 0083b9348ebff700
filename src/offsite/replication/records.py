"""Replication's records in the state database: peers, sets, points and runs, as plain values.

Every function works within the transaction of the connection that it is given, so that a step of a run can
be one transaction with what it does to images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from offsite.errors import ObjectNotFound
from offsite.replication.batches import DIGEST_START
from offsite.replication.messages import START, Partial, Position
from offsite.replication.plan import PrimaryHolds, SecondaryHolds
from offsite.store.tables.pools import images
from offsite.store.tables.replication import peers, point_images, points, replication_sets, runs, set_members

Role = Literal["primary", "secondary"]
RunState = Literal["running", "success", "failed", "aborted"]
PointState = Literal["base", "pending", "partial"]


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
class PointRecord:
    """An instant of all members of a set, and the internal image of each that holds it."""

    id: int
    uuid: str
    state: PointState
    taken_at: float
    based_on: str | None
    watermark: Position
    digest: bytes
    image_ids: tuple[int, ...]


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


def find_set(connection: Connection, *, uuid: str | None = None, name: str | None = None) -> SetRecord | None:
    return next((s for s in all_sets(connection) if s.uuid == uuid or s.name == name), None)


def insert_set(connection: Connection, values: dict[str, Any], members: Sequence[MemberRecord]) -> None:
    set_id = connection.execute(insert(replication_sets).values(values).returning(replication_sets.c.id)).scalar_one()
    for position, member in enumerate(members):
        row = {"set_id": set_id, "position": position}
        connection.execute(insert(set_members).values(**row, image_id=member.image_id, remote_name=member.remote_name))


def mark_set_ready(connection: Connection, set_id: int) -> None:
    connection.execute(update(replication_sets).where(replication_sets.c.id == set_id).values(state="ready"))


def delete_set(connection: Connection, set_id: int) -> None:
    connection.execute(delete(replication_sets).where(replication_sets.c.id == set_id))


def image_id_by_name(connection: Connection, name: str) -> int:
    found = connection.execute(select(images.c.id).where(images.c.name == name)).scalar()
    if found is None:
        raise ObjectNotFound(f"there is no image {name!r}")
    return int(found)


# Points


def set_points(connection: Connection, set_id: int) -> list[PointRecord]:
    """Oldest first."""
    rows = connection.execute(select(points).where(points.c.set_id == set_id).order_by(points.c.id)).mappings()
    return [_point(connection, row) for row in rows]


def find_point(connection: Connection, set_id: int, uuid: str) -> PointRecord:
    point = next((p for p in set_points(connection, set_id) if p.uuid == uuid), None)
    if point is None:
        raise ObjectNotFound(f"the replication set holds no point {uuid}")
    return point


def _point(connection: Connection, row: RowMapping) -> PointRecord:
    ids = connection.execute(
        select(point_images.c.image_id).where(point_images.c.point_id == row["id"]).order_by(point_images.c.position)
    ).scalars()
    return PointRecord(
        id=row["id"],
        uuid=row["uuid"],
        state=row["state"],
        taken_at=row["taken_at"],
        based_on=row["based_on"],
        watermark=Position(row["watermark_member"], row["watermark_offset"]),
        digest=bytes.fromhex(row["watermark_digest"]),
        image_ids=tuple(ids),
    )


def insert_point(
    connection: Connection,
    set_id: int,
    uuid: str,
    state: PointState,
    taken_at: float,
    image_names: Sequence[str],
    based_on: str | None = None,
) -> None:
    values = {"set_id": set_id, "uuid": uuid, "state": state, "taken_at": taken_at, "based_on": based_on}
    mark = _watermark_values(START, DIGEST_START)
    point_id = connection.execute(insert(points).values(values | mark).returning(points.c.id)).scalar_one()
    for position, name in enumerate(image_names):
        image_id = image_id_by_name(connection, name)
        connection.execute(insert(point_images).values(point_id=point_id, position=position, image_id=image_id))


def make_base(connection: Connection, set_id: int, uuid: str) -> None:
    """The point becomes the base, and the base before it goes."""
    mine = points.c.set_id == set_id
    connection.execute(delete(points).where(mine, points.c.state == "base", points.c.uuid != uuid))
    connection.execute(update(points).where(mine, points.c.uuid == uuid).values(state="base"))


def delete_points(connection: Connection, point_ids: Sequence[int]) -> None:
    connection.execute(delete(points).where(points.c.id.in_(point_ids)))


def set_watermark(connection: Connection, point_id: int, watermark: Position, digest: bytes) -> None:
    partial = (points.c.id == point_id) & (points.c.state == "partial")
    connection.execute(update(points).where(partial).values(_watermark_values(watermark, digest)))


def _watermark_values(watermark: Position, digest: bytes) -> dict[str, Any]:
    return {
        "watermark_member": watermark.member,
        "watermark_offset": watermark.offset,
        "watermark_digest": digest.hex(),
    }


def primary_holds(held: Sequence[PointRecord]) -> PrimaryHolds:
    base = next((p.uuid for p in held if p.state == "base"), None)
    return PrimaryHolds(base, tuple(p.uuid for p in held if p.state == "pending"))


def secondary_holds(held: Sequence[PointRecord]) -> SecondaryHolds:
    base = next((p.uuid for p in held if p.state == "base"), None)
    partial = next((p for p in held if p.state == "partial"), None)
    if partial is None:
        return SecondaryHolds(base, None)
    return SecondaryHolds(base, Partial(point=partial.uuid, base=partial.based_on, watermark=partial.watermark))


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
    values = {"uuid": uuid, "set_id": set_id, "state": "running", "started_at": started_at}
    connection.execute(insert(runs).values(**values, changed_bytes=0, wire_bytes=0))


def update_run(connection: Connection, uuid: str, **values: Any) -> None:
    connection.execute(update(runs).where(runs.c.uuid == uuid).values(values))


def end_other_runs(connection: Connection, set_id: int, uuid: str, now: float, error: str) -> None:
    """Runs of the set that are on record as running, but are not this one, have failed."""
    stale = (runs.c.set_id == set_id) & (runs.c.state == "running") & (runs.c.uuid != uuid)
    connection.execute(update(runs).where(stale).values(state="failed", ended_at=now, error=error))
