"""Taking away one half of a replication set."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from offsite.pools.protocol import Delete, Pool
from offsite.replication.points import point_records
from offsite.replication.points.internal_images import find_image
from offsite.replication.records import set_records
from offsite.replication.records.set_records import SetRecord
from offsite.replication.roles.generation import check_unchanged
from offsite.replication.transfer.receiver.fence import Fences
from offsite.store.database import Database


def remove_set(database: Database, pools: Mapping[str, Pool], fences: Fences, replication_set: SetRecord) -> None:
    """Its hidden images and its records go, in one transaction; its volumes become ordinary ones.

    Whoever is filling it stores nothing more. Raises NotAllowed or ObjectNotFound, with nothing removed, when its roles
    have changed meanwhile.
    """
    fences.of(replication_set.uuid).take(replication_set)
    with database.read() as connection:
        held = point_records.set_points(connection, replication_set.id)
    pool, _ = find_image(pools, replication_set.members[0].image_id)

    def write(connection: Connection, _: object) -> None:
        if set_records.find_set(connection, replication_set.uuid) is not None:  # if not, it has just been deleted
            check_unchanged(connection, replication_set)
        set_records.delete_set(connection, replication_set.id)

    pool.apply([Delete(image_id) for point in held for image_id in point.image_ids], write)
