"""Which of its snapshots a task lets go: those beyond its retention count, but for what something needs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from offsite.errors import InUse
from offsite.management.image_changes import delete_from_pool
from offsite.management.schedules import records
from offsite.management.schedules.records import TaskRecord
from offsite.management.system import System
from offsite.store.tables.access import maps
from offsite.store.tables.management import tasks
from offsite.store.tables.pools import volume_group_members


def rotate(system: System, task: TaskRecord) -> None:
    """Spares what is mapped to a host, needed by replication, in a volume group, or of a task itself: it is let go
    once nothing needs it any more."""
    with system.database.read() as connection:
        doomed = records.snapshots_of_task(connection, task.name)[: -(task.retention_count or 1)]
        spared = _needed(connection, doomed)
    images = {each.image.id: each for each in system.images()}
    for image_id in doomed:
        found = images.get(image_id)
        if found is None or image_id in spared:
            continue
        try:
            system.check_deletable(found)
        except InUse:
            continue
        delete_from_pool(system, found.pool, [found.image], "Snapshot")


def _needed(connection: Connection, image_ids: Sequence[int]) -> set[int]:
    mapped = select(maps.c.image_id).where(maps.c.image_id.in_(image_ids), maps.c.access != "no-access")
    grouped = select(volume_group_members.c.image_id).where(volume_group_members.c.image_id.in_(image_ids))
    of_tasks = select(tasks.c.image_id).where(tasks.c.image_id.in_(image_ids))
    return {row[0] for chosen in (mapped, grouped, of_tasks) for row in connection.execute(chosen)}
