"""What replication needs to stay: the volumes of sets, the images of points, and what a run is to send."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, select

from offsite.pools import catalog
from offsite.pools.needs import Need
from offsite.replication.records.tables import point_images, points, replication_sets, runs, set_members


def find_members(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    chosen = select(set_members.c.image_id, replication_sets.c.role, replication_sets.c.name)
    chosen = chosen.where(set_members.c.set_id == replication_sets.c.id, set_members.c.image_id.in_(image_ids))
    for row in connection.execute(chosen):
        yield row.image_id, Need(f"it is the {row.role} volume of replication set {row.name}", "delete the set first")


def find_points(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    chosen = select(point_images.c.image_id, replication_sets.c.name)
    chosen = chosen.where(point_images.c.point_id == points.c.id, points.c.set_id == replication_sets.c.id)
    for row in connection.execute(chosen.where(point_images.c.image_id.in_(image_ids))):
        yield row.image_id, Need(f"replication set {row.name} uses it", "delete the set first")


def find_sources(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    """A run that is to send a snapshot reads it when its hook before the snapshot has ended."""
    ids = {name: image_id for image_id, name in catalog.image_names(connection, image_ids).items()}
    chosen = select(runs.c.source, replication_sets.c.name).where(replication_sets.c.id == runs.c.set_id)
    for row in connection.execute(chosen.where(runs.c.state == "preparing", runs.c.source.in_(ids))):
        sentence = f"a run of replication set {row.name} sends it"
        yield ids[row.source], Need(sentence, "wait until the run has started")
