"""Images that count as written in full, made by building their page tables instead of writing terabytes.

The pages are mapped, in order, to a stretch of the sparse data file that nobody wrote: they read as zero. To the
engine that is what any other data is; only the disk is spared.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import boundless
from benchmarks.systems import POOL
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Replace
from offsite.replication.points import point_records
from offsite.replication.records import set_records
from offsite.store.database import Database


def map_whole_image(pool: LocalPool, image_id: int) -> None:
    """Maps every page of an image that is all hole. Raises PoolFull, with a part of it mapped."""
    with pool.lock:
        pool.free_space.room = boundless.Boundless(pool.store)
        image = pool.find(image_id)
        count, index = -(-image.size_bytes // pool.store.page_bytes), 0
        while index < count:
            first, taken = pool.take(count - index)
            image.mapped_pages += taken - pool.table.set_pages(image.nodes, index, taken, first)
            index += taken


def map_volumes(state: Path, size_bytes: int) -> None:
    """Maps all of every volume of that size in a system that is stopped, each to a stretch of its own, and gives what
    replication keeps of it as its base the same content."""
    database = Database(state / "state.db")
    try:
        pool = LocalPool.load(database, POOL)
        try:
            volumes = {image.id for image in pool.images() if image.kind == "volume" and image.size_bytes == size_bytes}
            for image_id in volumes:
                map_whole_image(pool, image_id)
            pool.apply([Replace(base, volume) for base, volume in _bases(database) if volume in volumes])
        finally:
            pool.close()
    finally:
        database.close()
    boundless.mark(state).touch()


def _bases(database: Database) -> list[tuple[int, int]]:
    """The image of each base, and the volume that it is a base of."""
    with database.read() as connection:
        return [
            (image_id, member.image_id)
            for of in set_records.all_sets(connection)
            for point in point_records.set_points(connection, of.id)
            if point.state == "base"
            for image_id, member in zip(point.image_ids, of.members, strict=True)
        ]
