"""The records of points: which instants of a set's members are held here, in which images.

As in `records`, every function works within the transaction of the connection that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, bindparam, delete, insert, select, update

from offsite.errors import ObjectNotFound
from offsite.replication.points.recovery_points import insert_recovery_point
from offsite.replication.records.tables import point_images, points
from offsite.replication.wire.messages import START, Position

PointState = Literal["base", "pending", "aborted", "partial"]


@dataclass(frozen=True)
class PointRecord:
    """An instant of all members of a set, and the internal image of each that holds it."""

    id: int
    uuid: str
    state: PointState
    taken_at: float
    based_on: str | None
    watermark: Position
    image_ids: tuple[int, ...]


# Asked all the time: to put them together anew would take as long as SQLite does.
_POINTS_OF_SET = select(points).where(points.c.set_id == bindparam("set")).order_by(points.c.id)
_IMAGES_OF_POINT = (
    select(point_images.c.image_id)
    .where(point_images.c.point_id == bindparam("point"))
    .order_by(point_images.c.position)
)


def set_points(connection: Connection, set_id: int) -> list[PointRecord]:
    """Oldest first."""
    rows = connection.execute(_POINTS_OF_SET, {"set": set_id}).mappings()
    return [_point(connection, row) for row in rows]


def sets_with_aborted(connection: Connection) -> set[int]:
    """Ids of the sets that have points of aborted runs, of which the secondary is still to be told."""
    return set(connection.execute(select(points.c.set_id).where(points.c.state == "aborted")).scalars())


def find_point(connection: Connection, set_id: int, uuid: str) -> PointRecord:
    point = next((p for p in set_points(connection, set_id) if p.uuid == uuid), None)
    if point is None:
        raise ObjectNotFound(f"the replication set has no point {uuid}")
    return point


def _point(connection: Connection, row: RowMapping) -> PointRecord:
    ids = connection.execute(_IMAGES_OF_POINT, {"point": row["id"]}).scalars()
    return PointRecord(
        id=row["id"],
        uuid=row["uuid"],
        state=row["state"],
        taken_at=row["taken_at"],
        based_on=row["based_on"],
        watermark=Position(row["watermark_member"], row["watermark_offset"]),
        image_ids=tuple(ids),
    )


def insert_point(
    connection: Connection,
    set_id: int,
    uuid: str,
    state: PointState,
    taken_at: float,
    image_ids: Sequence[int],
    based_on: str | None = None,
) -> None:
    values = {"set_id": set_id, "uuid": uuid, "state": state, "taken_at": taken_at, "based_on": based_on}
    mark = _watermark_values(START)
    point_id = connection.execute(insert(points).values(values | mark).returning(points.c.id)).scalar_one()
    for position, image_id in enumerate(image_ids):
        connection.execute(insert(point_images).values(point_id=point_id, position=position, image_id=image_id))


def make_base(connection: Connection, set_id: int, uuid: str, now: float, digest: bytes | None) -> None:
    """The point becomes the base, and the base before it goes. That it was complete once stays on record."""
    mine = points.c.set_id == set_id
    connection.execute(delete(points).where(mine, points.c.state == "base", points.c.uuid != uuid))
    connection.execute(update(points).where(mine, points.c.uuid == uuid).values(state="base"))
    insert_recovery_point(connection, set_id, uuid, now, digest)


def mark_aborted(connection: Connection, point_id: int, *, images_go: bool) -> None:
    """Kept until the secondary was asked: it may have made the point its base just before."""
    connection.execute(update(points).where(points.c.id == point_id).values(state="aborted"))
    if images_go:
        connection.execute(delete(point_images).where(point_images.c.point_id == point_id))


def delete_points(connection: Connection, point_ids: Sequence[int]) -> None:
    connection.execute(delete(points).where(points.c.id.in_(point_ids)))


def set_watermark(connection: Connection, point_id: int, watermark: Position) -> None:
    partial = (points.c.id == point_id) & (points.c.state == "partial")
    connection.execute(update(points).where(partial).values(_watermark_values(watermark)))


def _watermark_values(watermark: Position) -> dict[str, Any]:
    return {"watermark_member": watermark.member, "watermark_offset": watermark.offset}


def base_of(held: Sequence[PointRecord]) -> str | None:
    return next((point.uuid for point in held if point.state == "base"), None)
