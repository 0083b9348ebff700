"""What a secondary keeps of a copy before an operator has it replaced: an ordinary snapshot of each of its volumes.

They are no part of the set's history: nothing rotates them, and they stay when the set is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, insert, select

from offsite.errors import SetDiverged
from offsite.names import NAME_BYTES_MAX
from offsite.pools import catalog
from offsite.pools.protocol import ImageInfo, Pool, Snapshot
from offsite.replication.points import point_records
from offsite.replication.records import peer_share, set_records
from offsite.replication.records.set_records import SetRecord
from offsite.replication.records.tables import kept_contents
from offsite.replication.roles.generation import check_unchanged
from offsite.store.database import Database


def keep_copy(database: Database, pool: Pool, replication_set: SetRecord, base: str) -> tuple[list[str], bool]:
    """Snapshots of all volumes of a secondary at one instant, while they hold `base`; returns their names, and whether
    they were taken just now. A copy that is kept already is not kept twice.

    Raises SetDiverged, with nothing done, when the secondary holds another base by now.
    """
    with database.read() as connection:
        names = _kept(connection, replication_set, base)
        if names:
            return names, False
        taken_at = _instant_of(connection, replication_set, base)
        in_use = catalog.all_names(connection)
        _, volumes = set_records.own_names(connection, replication_set)
    names = kept_names(volumes, taken_at, in_use)
    ids = [member.image_id for member in replication_set.members]

    def write(connection: Connection, taken: Sequence[ImageInfo]) -> None:
        check_unchanged(connection, replication_set)
        _instant_of(connection, replication_set, base)
        peer_share.check_images(connection, replication_set.peer_id, len(ids), "the secondary")
        for image in taken:
            row = {"image_id": image.id, "set_id": replication_set.id, "base": base}
            connection.execute(insert(kept_contents).values(row))
        peer_share.note_images(connection, replication_set.peer_id, [image.id for image in taken])

    pool.apply([Snapshot(image_id, name) for image_id, name in zip(ids, names, strict=True)], write)
    return names, True


def kept_names(volumes: Sequence[str], taken_at: float, taken: set[str]) -> list[str]:
    """VOLUME-kept-YYYYMMDD-HHMM, of the instant of the data in UTC; as much of the volume's name as there is room for,
    and a number if there is such a name."""
    names: list[str] = []
    for volume in volumes:
        suffix, number = f"-kept-{datetime.fromtimestamp(taken_at, UTC):%Y%m%d-%H%M}", 1
        name = _shortened(volume, suffix)
        while name in taken or name in names:
            number += 1
            name = _shortened(volume, f"{suffix}-{number}")
        names.append(name)
    return names


def _shortened(volume: str, suffix: str) -> str:
    room = NAME_BYTES_MAX - len(suffix.encode())
    return volume.encode()[:room].decode(errors="ignore").rstrip() + suffix


def _kept(connection: Connection, replication_set: SetRecord, base: str) -> list[str]:
    """Of all members, or none: half a group is no copy of anything."""
    chosen = select(kept_contents.c.image_id).where(
        kept_contents.c.set_id == replication_set.id, kept_contents.c.base == base
    )
    names = list(catalog.image_names(connection, connection.execute(chosen).scalars().all()).values())
    return names if len(names) >= len(replication_set.members) else []


def _instant_of(connection: Connection, replication_set: SetRecord, base: str) -> float:
    held = point_records.set_points(connection, replication_set.id)
    found = next((point for point in held if point.state == "base"), None)
    if found is None or found.uuid != base:
        raise SetDiverged(f"replication set {replication_set.name} now holds another copy; check it again, then decide")
    return found.taken_at
