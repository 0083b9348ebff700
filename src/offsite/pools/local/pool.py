"""A pool on a local file or block device.

Two locks, always in this order: `_commit_lock` (one commit at a time: flushes and changes to images), then
`lock` (page tables and allocation; held for microseconds, never across a disk sync). Reads and writes of
pages take neither, but for the first write to a page after a snapshot.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import Connection, select

from offsite.errors import StateDirectoryError, StateDirectoryFull
from offsite.events import Report, ignore
from offsite.pools import pool_rows
from offsite.pools.gate import close_gate, keep_closed, open_gate
from offsite.pools.local import capture as captures
from offsite.pools.local.changes import Applying
from offsite.pools.local.creation import PAGE_BYTES, PAGE_BYTES_MAX, PAGE_BYTES_MIN, make_pool, unmake_pool
from offsite.pools.local.difference import extents
from offsite.pools.local.durability import DurablePool
from offsite.pools.local.header import Expected
from offsite.pools.local.open_image import LocalOpenImage
from offsite.pools.local.page_store import PageStore
from offsite.pools.local.tidier import Tidier
from offsite.pools.protocol import Change, Create, Extent, ImageInfo, Records
from offsite.store.database import Database
from offsite.store.tables import system as system_table

__all__ = ["PAGE_BYTES", "PAGE_BYTES_MAX", "PAGE_BYTES_MIN", "LocalPool"]

GATE_DEADLINE_SECONDS = 30.0
LET_GO_AT_ONCE_NODES = 16  # what belonged to larger images is given up in the background


class LocalPool(DurablePool):
    """See offsite.pools.protocol.Pool."""

    def __init__(self, database: Database, pool_id: int, name: str, store: PageStore, report: Report) -> None:
        super().__init__(database, pool_id, name, store, report)
        self._tidier = Tidier(self, self.closing)
        self._is_begun = False

    # -- opening and closing ---------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        database: Database,
        name: str,
        path: Path,
        size_bytes: int,
        page_bytes: int = PAGE_BYTES,
        *,
        overcommit: bool = True,
        overwrite: bool = False,
        report: Report = ignore,
    ) -> LocalPool:
        """A new pool in a new file of `size_bytes`, or on a block device (`size_bytes` 0: all of it).

        `path` is relative to the directory of the database, unless absolute. A file there that an interrupted
        creation left is made anew; any other is refused. A device has to be empty, unless told to `overwrite` it.
        """
        store = make_pool(database, name, path, size_bytes, page_bytes, overcommit=overcommit, overwrite=overwrite)
        try:
            return cls.load(database, name, report, store)
        except BaseException:
            unmake_pool(database, store.header)
            raise

    @classmethod
    def load(cls, database: Database, name: str, report: Report = ignore, store: PageStore | None = None) -> LocalPool:
        """Opens a pool and begins to use it."""
        pool = cls.opened(database, name, report, store)
        try:
            pool.begin()
        except BaseException:
            pool.close()
            raise
        return pool

    @classmethod
    def opened(
        cls, database: Database, name: str, report: Report = ignore, store: PageStore | None = None
    ) -> LocalPool:
        """Reads and checks what there is of a pool, and changes nothing: that is for `begin`, once all is well.

        `store` is its data file, if that was opened before. Raises StateDirectoryError when file and database do not
        fit together.
        """
        try:
            with database.read() as connection:
                return cls._opened(connection, database, name, report, store)
        except BaseException:
            if store is not None:
                store.close()
            raise

    @classmethod
    def _opened(
        cls, connection: Connection, database: Database, name: str, report: Report, opened: PageStore | None
    ) -> LocalPool:
        row = pool_rows.read_pool(connection, name)
        system_uuid = connection.execute(select(system_table.c.uuid)).scalar()
        path = database.path.parent / row["path"]
        store = opened or PageStore.open(path, Expected.of_row(dict(row), system_uuid))
        try:
            pool = cls(database, row["id"], name, store, report)
            pool.thresholds, pool.overcommit = pool_rows.settings_of(row)
            pool.read_images(connection)
        except BaseException:
            if opened is None:
                store.close()
            raise
        return pool

    def begin(self) -> None:
        """From here on the pool is in use. Raises StateDirectoryError."""
        try:
            self._belonging.start()
            self.prepare_space()
            self._bound_dirty_leaves()
        except OSError as error:
            raise StateDirectoryError(f"{self.store.path} cannot be used: {error.strerror}") from error
        self._is_begun = True
        self._tidier.start()

    def close(self) -> None:
        """Flushes, and stops the background work. Open images must not be used any more."""
        self.closing.set()
        try:
            if self._is_begun:
                self._tidier.join()
                if not self._failure:
                    self.flush()
                    self._belong_at_last()
        finally:
            self.store.close()

    def abandon(self) -> None:
        """As `close`, for a pool that was deleted: nothing is flushed."""
        self.closing.set()
        self._tidier.join()
        self.store.close()

    def _belong_at_last(self) -> None:
        """File and database as they are now are a pair of their own."""
        try:
            with self._commit_lock:
                self._belonging.finish()
        except (StateDirectoryError, OSError) as error:
            self.tell_untidy(error)  # as on a full disk: they are a pair as they are

    # -- images ----------------------------------------------------------------------------------------------

    def open(self, image_id: int) -> LocalOpenImage:
        with self.lock:
            image = self.find(image_id)
            opened = LocalOpenImage(self, image)
            image.visitors.add(opened)
            return opened

    def apply(self, changes: Sequence[Change], records: Records | None = None) -> list[ImageInfo]:
        with self._commit_lock:
            self._check_failure()
            with self.lock:
                images = {self.find(i) for change in changes for i in _touched(change) if i >= 0}
            visitors = [image.visitors for image in images]
            gate = close_gate(visitors, GATE_DEADLINE_SECONDS)
            applying = Applying(self, time.time())
            try:
                with self.lock:
                    try:
                        for change in changes:
                            applying.make(change)
                    except BaseException:
                        applying.take_back()
                        raise
                    capture = captures.take(self.table, self.by_id.values())
                    begun = self._begin_commit()
                    infos = [image.info(self.name, self.store.page_bytes) for image in applying.results]
                    unsettled = keep_closed(applying.unsettled)
            finally:
                open_gate(gate, visitors)
            try:
                self._commit(capture, begun, applying, None if records is None else lambda c: records(c, infos))
                with self.lock:
                    self._unneeded.extend((node, 0) for node in applying.unneeded())
            except BaseException:
                with self.lock:
                    applying.take_back()
                raise
            finally:
                open_gate(unsettled, applying.unsettled)
        if len(self._unneeded) <= LET_GO_AT_ONCE_NODES:
            try:
                self.let_go()
            except StateDirectoryError as error:
                self.tell_untidy(error)  # what was asked for is done; the rest will be tried again
        return infos

    def difference(self, old: int | None, new: int, start: int = 0) -> Iterator[Extent]:
        with self.lock:
            before = self.find(old) if old is not None else None
            after = self.find(new)
        return extents(self.table, self.store.page_bytes, before, after, start)

    # -- space -----------------------------------------------------------------------------------------------

    def make_space(self) -> None:
        """Frees all that can be freed, for who found the pool full. Not to be called from inside an image."""
        try:
            self._commit_let_go()
        except StateDirectoryFull:
            self._send_everyone_out()
            self.free_space.reclaim()  # needs no commit, and may make room for one
            self._commit_let_go()
        self._send_everyone_out()
        super().make_space()
        if not self.free_space.has_pages:
            self.store.sync_file_system()  # btrfs counts as free what was punched only after that

    def _commit_let_go(self) -> None:
        self.let_go()
        self.flush()

    def _send_everyone_out(self) -> None:
        """For a moment: then nobody can still see what was let go before."""
        with self._commit_lock:
            visitors = self.all_visitors()
            open_gate(close_gate(visitors, GATE_DEADLINE_SECONDS), visitors)

    def reclaim(self, warm_bytes: int = 0) -> None:
        """Punches and frees what nobody can see any more, but for crumbs of up to `warm_bytes` together."""
        self.free_space.reclaim(warm_bytes)
        with self.lock:
            self.watch_space()


def _touched(change: Change) -> list[int]:
    """Ids of the images whose content has to stand still."""
    if isinstance(change, Create):
        return []
    return [getattr(change, field) for field in ("source", "target", "image_id") if hasattr(change, field)]
