"""Changes of volumes and snapshots that commands and tasks make alike."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from offsite.errors import NotAllowed
from offsite.events import VOLUME_DELETED
from offsite.management.system import Found, System
from offsite.pools.protocol import Delete, ImageInfo, Pool, Records, Replace, Resize


def delete_from_pool(
    system: System, pool: Pool, doomed: list[ImageInfo], noun: str, records: Records | None = None
) -> None:
    """Deletes images of one pool in one transaction with `records`, and disconnects their hosts. Raises ImageNeeded
    when something has come to need one since it was chosen to go, which even a user may not delete then."""

    def write(connection: Connection, deleted: Sequence[ImageInfo]) -> None:
        system.needs.check_deletable(doomed)
        if records is not None:
            records(connection, deleted)

    pool.apply([Delete(image.id) for image in doomed], write)
    for image in doomed:
        for target in system.targets:
            target.disconnect(image.id)
        system.events.report(VOLUME_DELETED, f"{noun} {image.name} was deleted from pool {pool.name}.")


def replace_content(target: Found, source: Found, records: Records | None = None) -> None:
    """Gives `target` the content of `source`. Hosts never see it shrink: what it is longer by becomes hole."""
    size_bytes = target.image.size_bytes
    changes: list[Replace | Resize] = [Replace(target.image.id, source.image.id)]
    if source.image.size_bytes < size_bytes:
        changes.append(Resize(target.image.id, size_bytes))
    target.pool.apply(changes, records)


def check_resettable(system: System, snapshot: Found) -> None:
    """Raises NotAllowed, or InUse while a host has it open."""
    system.check_not_secondary(snapshot, "reset")
    system.check_not_open(snapshot)
    if snapshot.image.parent_id is None:
        raise NotAllowed(f"snapshot {snapshot.image.name} cannot be reset: its parent volume is deleted")


def parent_of(snapshot: Found) -> Found:
    """What a snapshot that is resettable was taken of."""
    assert snapshot.image.parent_id is not None
    return Found(snapshot.pool, snapshot.pool.image(snapshot.image.parent_id))
