"""What needs a volume or snapshot to stay: the one rule, for whatever lets snapshots go by itself, and for commands.

Nothing that is needed goes by itself. A user may delete what is needed in a way that is not binding: a map, a place in
a volume group or a task goes with it then, which the question tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from offsite.access.tables import maps
from offsite.errors import InUse
from offsite.management.schedules.tables import tasks
from offsite.pools.protocol import Delete, Pool
from offsite.pools.tables import images, volume_group_members, volume_groups
from offsite.replication.records.tables import point_images, points, replication_sets, runs, set_members
from offsite.store.database import Database


@dataclass(frozen=True, slots=True)
class Need:
    sentence: str  # "it is mapped to nbd:unix"
    way_out: str = ""  # of one that is binding: what has to be done first

    @property
    def is_binding(self) -> bool:
        """Whether not even a user may delete the image."""
        return bool(self.way_out)


Needs = dict[int, list[Need]]
"""By the image's id; of images that something needs only."""


def needs_of(connection: Connection, image_ids: Sequence[int]) -> Needs:
    """What each of these images is needed by, binding needs first."""
    found: Needs = {}
    for each in (_in_sets, _in_points, _of_runs, _maps, _groups, _tasks, _children):
        for image_id, need in each(connection, image_ids):
            found.setdefault(image_id, []).append(need)
    return found


class StillNeeded(InUse):
    """Something has come to need the images since they were chosen to go."""

    def __init__(self, needs: Needs) -> None:
        super().__init__("something needs what was to be deleted")
        self.needs = needs


def delete_unneeded(database: Database, pool: Pool, image_ids: Sequence[int]) -> Needs:
    """Deletes all of these images, or none when something needs one of them: returns what does.

    Raises VolumeNotFound when someone has deleted one just now, and what else the pool raises.
    """
    with database.read() as connection:
        needs = needs_of(connection, image_ids)
    if needs:
        return needs

    def check(_: Connection) -> None:
        # The transaction has deleted already what went with the images. A reader sees what is committed; and as there
        # is one writer, nobody can need the images between this look and the commit.
        with database.read() as before:
            needs = needs_of(before, image_ids)
        if needs:
            raise StillNeeded(needs)

    try:
        pool.apply([Delete(image_id) for image_id in image_ids], check)
    except StillNeeded as error:
        return error.needs
    return {}


def _in_sets(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    chosen = select(set_members.c.image_id, replication_sets.c.role, replication_sets.c.name)
    chosen = chosen.where(set_members.c.set_id == replication_sets.c.id, set_members.c.image_id.in_(image_ids))
    for row in connection.execute(chosen):
        yield row.image_id, Need(f"it is the {row.role} volume of replication set {row.name}", "delete the set first")


def _in_points(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    chosen = select(point_images.c.image_id, replication_sets.c.name)
    chosen = chosen.where(point_images.c.point_id == points.c.id, points.c.set_id == replication_sets.c.id)
    for row in connection.execute(chosen.where(point_images.c.image_id.in_(image_ids))):
        yield row.image_id, Need(f"replication set {row.name} needs it", "delete the set first")


def _of_runs(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    """A run that is to send a snapshot reads it when its hook before the snapshot has ended."""
    chosen = select(images.c.id, replication_sets.c.name)
    chosen = chosen.where(runs.c.source == images.c.name, replication_sets.c.id == runs.c.set_id)
    for row in connection.execute(chosen.where(runs.c.state == "preparing", images.c.id.in_(image_ids))):
        yield row.id, Need(f"a run of replication set {row.name} is to send it", "wait until the run has begun")


def _maps(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    chosen = select(maps.c.image_id, maps.c.initiator).where(maps.c.access != "no-access")
    for row in connection.execute(chosen.where(maps.c.image_id.in_(image_ids)).order_by(maps.c.initiator)):
        yield row.image_id, Need(f"it is mapped to {row.initiator or 'all initiators'}")


def _groups(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    chosen = select(volume_group_members.c.image_id, volume_groups.c.name)
    chosen = chosen.where(volume_group_members.c.group_id == volume_groups.c.id)
    for row in connection.execute(chosen.where(volume_group_members.c.image_id.in_(image_ids))):
        yield row.image_id, Need(f"it is in volume group {row.name}")


def _tasks(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    chosen = select(tasks.c.image_id, tasks.c.name).where(tasks.c.image_id.in_(image_ids)).order_by(tasks.c.name)
    for row in connection.execute(chosen):
        yield row.image_id, Need(f"task {row.name} is of it")


def _children(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    """Without it they could not be reset any more."""
    chosen = select(images.c.parent_id, images.c.name).where(images.c.kind == "snapshot")
    chosen = chosen.where(images.c.parent_id.in_(image_ids), images.c.id.not_in(image_ids)).order_by(images.c.id)
    for row in connection.execute(chosen):
        yield row.parent_id, Need(f"snapshot {row.name} was taken of it")
