"""What needs a volume or snapshot to stay: the one rule, for whatever lets snapshots go by itself, and for commands.

Nothing that is needed goes by itself. A user may delete what is needed in a way that is not binding: a map, a place in
a volume group or a task goes with it then, which the question tells.

Each floor finds what it needs itself, in its own tables: its finders are registered where a system is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from offsite.errors import ImageNeeded
from offsite.pools.protocol import Delete, ImageInfo, Pool
from offsite.pools.tables import images, volume_group_members, volume_groups
from offsite.store.database import Database


@dataclass(frozen=True, slots=True)
class Need:
    sentence: str  # "it is mapped to nbd:unix"
    way_out: str = ""  # of one that is binding: what has to be done first

    @property
    def is_binding(self) -> bool:
        """Whether not even a user may delete the image."""
        return bool(self.way_out)


FoundNeeds = dict[int, list[Need]]
"""By the image's id; of images that something needs only."""

Finder = Callable[[Connection, Sequence[int]], Iterable[tuple[int, Need]]]
"""Finds which of these images something of its floor needs: the image's id, and the need."""


class StillNeeded(ImageNeeded):
    """Something has come to need the images since they were chosen to go."""

    def __init__(self, needs: FoundNeeds) -> None:
        super().__init__("an image that was to be deleted is in use")
        self.needs = needs


class Needs:
    """The needs of all floors. Safe to use from any thread, once all finders are registered."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._finders: list[Finder] = []

    def register(self, *finders: Finder) -> None:
        """What these find is told after what those before them find."""
        self._finders += finders

    def of(self, connection: Connection, image_ids: Sequence[int]) -> FoundNeeds:
        """What needs each of these images, binding needs first."""
        found: FoundNeeds = {}
        for find in self._finders:
            for image_id, need in find(connection, image_ids):
                found.setdefault(image_id, []).append(need)
        for needs in found.values():
            needs.sort(key=lambda need: not need.is_binding)
        return found

    def check_deletable(self, images: Sequence[ImageInfo]) -> None:
        """Raises ImageNeeded, naming what needs it, for an image that not even a user may delete.

        It looks at what is committed. So whoever deletes asks before, and again in the transaction that deletes: as
        there is one writer, nothing comes to need the images between that look and the commit.
        """
        found = self._committed([image.id for image in images])
        for image in images:
            for need in found.get(image.id, ()):
                if need.is_binding:
                    raise ImageNeeded(f"{image.name} cannot be deleted: {need.sentence}; {need.way_out}")

    def delete_unneeded(self, pool: Pool, image_ids: Sequence[int]) -> FoundNeeds:
        """Deletes all of these images, or none when something needs one of them: returns what does.

        Raises VolumeNotFound when someone has deleted one just now, and what else the pool raises.
        """
        needs = self._committed(image_ids)
        if needs:
            return needs

        def check(_: Connection, __: Sequence[ImageInfo]) -> None:
            # The transaction has deleted already what went with the images: so again what is committed counts.
            needs = self._committed(image_ids)
            if needs:
                raise StillNeeded(needs)

        try:
            pool.apply([Delete(image_id) for image_id in image_ids], check)
        except StillNeeded as error:
            return error.needs
        return {}

    def _committed(self, image_ids: Sequence[int]) -> FoundNeeds:
        with self._database.read() as connection:
            return self.of(connection, image_ids)


def find_groups(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    chosen = select(volume_group_members.c.image_id, volume_groups.c.name)
    chosen = chosen.where(volume_group_members.c.group_id == volume_groups.c.id)
    for row in connection.execute(chosen.where(volume_group_members.c.image_id.in_(image_ids))):
        yield row.image_id, Need(f"it is in volume group {row.name}")


def find_children(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    """Without it they could not be reset any more."""
    chosen = select(images.c.parent_id, images.c.name).where(images.c.kind == "snapshot")
    chosen = chosen.where(images.c.parent_id.in_(image_ids), images.c.id.not_in(image_ids)).order_by(images.c.id)
    for row in connection.execute(chosen):
        yield row.parent_id, Need(f"it is the parent of snapshot {row.name}")
