"""Which of its snapshots a task lets go: those beyond its retention count, but for what something needs."""

from __future__ import annotations

from offsite.errors import InUse, VolumeNotFound
from offsite.events import SNAPSHOT_KEPT, VOLUME_DELETED
from offsite.management.schedules import records
from offsite.management.schedules.records import TaskRecord
from offsite.management.system import Found, System
from offsite.pools.needs import Need


def rotate(system: System, task: TaskRecord) -> None:
    """What something needs stays, which is told once, and is let go when nothing needs it any more."""
    with system.database.read() as connection:
        doomed = records.snapshots_of_task(connection, task.name)[: -(task.retention_count or 1)]
    images = {each.image.id: each for each in system.images()}
    for image_id in doomed:
        found = images.get(image_id)
        if found is None:
            continue
        try:
            needs = system.needs.delete_unneeded(found.pool, [image_id])
        except (InUse, VolumeNotFound):
            continue  # someone deletes it just now
        if needs:
            _tell_kept(system, task, found, needs[image_id][0])
        else:
            for target in system.targets:
                target.disconnect(image_id)
            told = f"Snapshot {found.image.name} was deleted from pool {found.pool.name}."
            system.events.report(VOLUME_DELETED, told)


def _tell_kept(system: System, task: TaskRecord, found: Found, need: Need) -> None:
    with system.database.transaction() as connection:
        is_new = records.note_kept(connection, found.image.id)
    if is_new:
        system.events.report(
            SNAPSHOT_KEPT,
            f"Task {task.name} keeps more than its {task.retention_count} snapshots: {found.image.name} cannot be "
            f"deleted, because {need.sentence}.",
        )
