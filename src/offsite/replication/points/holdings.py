"""What there is here of a set, for the plans and for the other end: the same of a primary and of a secondary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection

from offsite.errors import ObjectNotFound
from offsite.pools.protocol import Pool
from offsite.replication.points import other_halves, point_records
from offsite.replication.points.internal_images import find_image
from offsite.replication.points.point_records import PointRecord
from offsite.replication.records import run_records, set_records
from offsite.replication.records.set_records import SetRecord
from offsite.replication.wire.messages import POINTS_MAX, Holds, Partial, RunOutcome
from offsite.store.database import Database


def holds(connection: Connection, replication_set: SetRecord) -> Holds:
    held = point_records.set_points(connection, replication_set.id)
    base = point_records.base_of(held)
    return Holds(
        role=replication_set.role,
        generation=replication_set.generation,
        base=base,
        complete=other_halves.own_recovery_point(connection, replication_set.id),
        outcome=_outcome(connection, replication_set, base),
        partial=_partial(held),
        pending=[point.uuid for point in held if point.state == "pending"],
        aborted=[point.uuid for point in held if point.state == "aborted" and point.image_ids],
    )


def told_holds(database: Database, pools: Mapping[str, Pool], replication_set: SetRecord) -> Holds:
    """For the other end: as many points as a message may have; of a secondary, also how much data its copy is. Role,
    generation and points are of one instant. Raises ObjectNotFound for a set that has been deleted."""
    with database.read() as connection:
        now = set_records.find_set(connection, replication_set.uuid)
        if now is None:
            raise ObjectNotFound(f"replication set {replication_set.name} no longer exists here")
        held = holds(connection, now)
    held = msgspec.structs.replace(held, pending=held.pending[-POINTS_MAX:], aborted=held.aborted[-POINTS_MAX:])
    if held.role == "primary" or held.complete is None:
        return held
    found = [find_image(pools, member.image_id)[1] for member in replication_set.members]
    complete = msgspec.structs.replace(held.complete, data_bytes=sum(image.allocated_bytes for image in found))
    return msgspec.structs.replace(held, complete=complete)


def _partial(held: Sequence[PointRecord]) -> Partial | None:
    point = next((point for point in held if point.state == "partial"), None)
    return None if point is None else Partial(point=point.uuid, base=point.based_on, watermark=point.watermark)


def _outcome(connection: Connection, replication_set: SetRecord, base: str | None) -> RunOutcome | None:
    """Of the run that sent the base."""
    run = run_records.find_run(connection, base) if base else None
    if run is None or run.set_id != replication_set.id or run.digest is None:
        return None
    return RunOutcome(
        digest=bytes.fromhex(run.digest),
        changed_bytes=run.changed_bytes,
        wire_bytes=run.wire_bytes,
        snapshot_number=run.snapshot_number,
    )
