"""The points that both ends of a set have once held complete: what a system knows as its own copies, however old.

They outlive the records of runs: a secondary that was restored from a copy of last year is known for what it is. One
that is older than the oldest on record counts as unknown, which is the safe side: it is not touched.

As in `records`, every function works within the transaction of the connection that it is given.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from offsite.replication.records.tables import points, recovery_points
from offsite.replication.wire.messages import RecoveryPoint, told_instant

KEPT = 100_000  # of each set: of one that runs every hour, those of 11 years


def insert_recovery_point(
    connection: Connection, set_id: int, uuid: str, completed_at: float, digest: bytes | None
) -> None:
    """A point of the set has become its base."""
    mine = recovery_points.c.set_id == set_id
    number = (connection.execute(select(func.max(recovery_points.c.number)).where(mine)).scalar() or 0) + 1
    point = (points.c.set_id == set_id) & (points.c.uuid == uuid)
    taken_at = connection.execute(select(points.c.taken_at).where(point)).scalar_one()
    row = {"set_id": set_id, "number": number, "uuid": uuid, "taken_at": taken_at, "completed_at": completed_at}
    # Of a point that a base was once before, the newest time counts.
    connection.execute(delete(recovery_points).where(mine, recovery_points.c.uuid == uuid))
    connection.execute(insert(recovery_points).values(row | {"digest": digest.hex() if digest else None}))
    connection.execute(delete(recovery_points).where(mine, recovery_points.c.number <= number - KEPT))


# Asked in each run: to put it together anew would take as long as SQLite does.
_OF_SET = select(recovery_points).where(
    recovery_points.c.set_id == bindparam("set"), recovery_points.c.uuid == bindparam("uuid")
)


def find_recovery_point(connection: Connection, set_id: int, uuid: str | None) -> RecoveryPoint | None:
    """One that the set is known to have had."""
    row = connection.execute(_OF_SET, {"set": set_id, "uuid": uuid}).mappings().first()
    if row is None:
        return None
    digest = bytes.fromhex(row["digest"]) if row["digest"] else None
    taken_at, completed_at = told_instant(row["taken_at"]), told_instant(row["completed_at"])
    return RecoveryPoint(point=row["uuid"], taken_at=taken_at, completed_at=completed_at, digest=digest)
