"""What a pool on a local file has in memory: its images, its page table, its free space, and the lock on them.

The parts of the pool work on this: open images, changes to images, the pool itself.
"""

from __future__ import annotations

import threading

from sqlalchemy import Connection, select

from offsite.errors import RESTORE_WHOLE, PoolFull, StateDirectoryError, VolumeNotFound
from offsite.events import Report
from offsite.pools import pool_rows, tables
from offsite.pools.checks import check_overcommit
from offsite.pools.gate import Visitors
from offsite.pools.local import capture as captures
from offsite.pools.local import records
from offsite.pools.local.allocator import Run
from offsite.pools.local.free_space import FreeSpace
from offsite.pools.local.image import Image
from offsite.pools.local.page_store import PageStore
from offsite.pools.local.page_table import Leaf, Nodes, PageTable
from offsite.pools.protocol import Capacity, ImageInfo, Records
from offsite.pools.space import SpaceWatch, Thresholds
from offsite.store.database import Database


class PoolCore:
    """`lock` guards the page table, the images and the free space; it is held for microseconds."""

    def __init__(self, database: Database, pool_id: int, name: str, store: PageStore, report: Report) -> None:
        self.id = pool_id
        self.name = name
        self.store = store
        self.table = PageTable(store.size_bytes // store.page_bytes, self._load)
        self.by_id: dict[int, Image] = {}
        self.names: dict[str, int] = {}
        self.overcommit = True
        self.thresholds = Thresholds()
        self.dirty_leaves_max = captures.DIRTY_LEAVES_MAX  # then hosts wait for a commit before they go on
        self.lock = threading.RLock()
        self.database = database
        self.closing = threading.Event()
        self._report = report
        self._last_image_id = pool_id << 32

    def read_images(self, connection: Connection) -> None:
        """All images of the pool, and who owns what. Raises StateDirectoryError for rows that are damaged."""
        images = tables.images
        loaded = [
            (Image(i.id, i.uuid, i.name, i.kind, i.parent_id, i.size_bytes, i.created_at, Nodes(), 0), bytes(i.nodes))
            for i in connection.execute(select(images).where(images.c.pool_id == self.id))
        ]
        records.read_table(connection, self.id, loaded, self.table)
        for image, _ in loaded:
            image.nodes.changed = False
            self.by_id[image.id] = image
            self.names[image.name] = image.id
            self._last_image_id = max(self._last_image_id, image.id)

    def prepare_space(self) -> None:
        """Finds what is free. After read_images."""
        table, store = self.table, self.store
        self.free_space = FreeSpace(store, table, self.lock, self.all_visitors, self.closing)
        self.space = SpaceWatch(self.name, store.page_bytes, len(table.owners) - 1, self.thresholds, self._report)
        self.watch_space()

    # -- images ----------------------------------------------------------------------------------------------

    def images(self) -> list[ImageInfo]:
        with self.lock:
            return [image.info(self.name, self.store.page_bytes) for image in self.by_id.values()]

    def image(self, image_id: int) -> ImageInfo:
        with self.lock:
            return self.find(image_id).info(self.name, self.store.page_bytes)

    def find(self, image_id: int) -> Image:
        image = self.by_id.get(image_id)
        if image is None:
            raise VolumeNotFound(f"image {image_id} does not exist in pool {self.name}")
        return image

    def take_image_id(self) -> int:
        """Ids are unique in the system, so that a map or a set can name an image without its pool."""
        self._last_image_id += 1
        return self._last_image_id

    def provisioned_bytes(self) -> int:
        return sum(image.size_bytes for image in self.by_id.values() if image.kind == "volume")

    # -- space -----------------------------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        with self.lock:
            page_bytes = self.store.page_bytes
            return Capacity(
                size_bytes=self.store.size_bytes - page_bytes,  # page 0 is the header's
                allocated_bytes=self.table.used * page_bytes,
                available_bytes=self._available_pages() * page_bytes,
                allocation_bytes=page_bytes,
                provisioned_bytes=self.provisioned_bytes(),
            )

    def configure(self, thresholds: Thresholds, *, overcommit: bool) -> None:
        check_overcommit(self.name, self.capacity(), overcommit=overcommit)
        with self.database.transaction() as connection:
            pool_rows.write_settings(connection, self.id, thresholds, overcommit)
        self.thresholds, self.overcommit = thresholds, overcommit
        self.space.set_thresholds(thresholds)

    def take(self, wanted: int, *, to_overwrite: bool = False) -> Run:
        """Pages that read as zero; or, `to_overwrite`, one that may hold anything and will be written whole."""
        with self.lock:
            run = self.free_space.take(wanted, to_overwrite=to_overwrite)
            self.space.check(self.table.used + run[1])
            return run

    def give_back(self, first: int, count: int) -> None:
        """Pages that were taken and not mapped after all."""
        with self.lock:
            self.free_space.give_back((first, count))

    def report_full(self, refusal: PoolFull) -> None:
        with self.lock:
            self.watch_space()
        self.space.tell_full(self.table.used, str(refusal))

    def watch_space(self) -> None:
        """Tells events about how full the pool is, by itself and by its file system. Under the lock."""
        self.space.set_available(self.table.used, self._available_pages())
        self.space.check(self.table.used)

    def _available_pages(self) -> int:
        """What can be written yet: the less of what the pool has and what its file system takes."""
        free_space = self.free_space
        in_pool = len(self.table.owners) - 1 - self.table.used
        return min(in_pool, free_space.look_for_room_once_synced() + free_space.unpunched_pages)

    def has_pages_to_reclaim(self) -> bool:
        """Whether pages are neither in use nor free to be taken: on their way from the one to the other. Or whether
        a sync may tell that the file system has more room than it seems."""
        with self.lock:
            table, free_space = self.table, self.free_space
            return (
                table.has_let_go
                or table.used + free_space.zeroed_pages < len(table.owners) - 1
                or (free_space.zeroed_pages > 0 and free_space.unsynced_pages > 0)
            )

    def all_visitors(self) -> list[Visitors]:
        with self.lock:
            return [image.visitors for image in self.by_id.values()]

    def flush(self, records: Records | None = None) -> None:
        """Makes durable what was written. The pool itself knows how."""
        raise NotImplementedError

    def make_space(self) -> None:
        """Frees all that can be freed, for who found the pool full. Not to be called from inside an image."""
        self.free_space.reclaim_some()

    def _load(self, leaves: list[Leaf]) -> None:
        """Reads without the lock, unless the caller has it: hosts must not wait for the database."""
        missing = [leaf for leaf in leaves if leaf.pages is None]
        if not missing:
            return
        with self.database.read() as connection:
            found = records.read_leaves(connection, [leaf.id for leaf in missing])
        with self.lock:
            for leaf in missing:
                if leaf.pages is not None:
                    continue  # another thread was quicker, and may have changed it since, or deleted its row
                if leaf.id not in found:
                    raise StateDirectoryError(
                        f"the database lacks leaf {leaf.id} of a page table; it is damaged; {RESTORE_WHOLE}"
                    )
                leaf.pages = found[leaf.id]
