"""A pool on a local file or block device.

Two locks, always in this order: `_commit_lock` (one commit at a time: flushes and changes to images), then
`lock` (page tables and allocation; held for microseconds, never across a disk sync). Reads and writes of
pages take neither, but for the first write to a page after a snapshot.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError

from offsite import events
from offsite.errors import InUse, PoolFailed, StateDirectoryError, StateDirectoryFull
from offsite.events import Report, ignore
from offsite.pools import pool_rows, tables
from offsite.pools.gate import close_gate, keep_closed, open_gate
from offsite.pools.health import Health
from offsite.pools.local import capture as captures
from offsite.pools.local import records
from offsite.pools.local.belonging import Belonging
from offsite.pools.local.changes import Applying
from offsite.pools.local.core import PoolCore
from offsite.pools.local.creation import PAGE_BYTES, PAGE_BYTES_MAX, PAGE_BYTES_MIN, make_pool, unmake_pool
from offsite.pools.local.difference import extents
from offsite.pools.local.header import Expected
from offsite.pools.local.open_image import LocalOpenImage
from offsite.pools.local.page_store import PageStore
from offsite.pools.local.page_table import Node
from offsite.pools.local.reclaim import gathered, runs_of
from offsite.pools.local.tidier import Tidier
from offsite.pools.protocol import Change, Create, Extent, ImageInfo, Records
from offsite.store.database import Database
from offsite.store.free_space import file_system
from offsite.store.tables import system as system_table

__all__ = ["PAGE_BYTES", "PAGE_BYTES_MAX", "PAGE_BYTES_MIN", "LocalPool"]

GATE_DEADLINE_SECONDS = 30.0
LET_GO_AT_ONCE_NODES = 16  # what belonged to larger images is given up in the background
LET_GO_LEAVES_AT_A_TIME = 128  # with the lock held
SETTLED_PAGES_AT_A_TIME = 1 << 14
SETTLED_LEAVES_AT_A_TIME = 128

_Extra = Callable[[Connection], object]
"""What callers have to write in the transaction of a commit."""


class LocalPool(PoolCore):
    """See offsite.pools.protocol.Pool."""

    def __init__(self, database: Database, pool_id: int, name: str, store: PageStore, report: Report) -> None:
        super().__init__(database, pool_id, name, store, report)
        self._commit_lock = threading.Lock()
        self._commits_begun = self._newest_done = 0
        # Nodes that deleted and replaced images had, to be let go, and how many leaves of each have been already.
        self._unneeded: list[tuple[Node, int]] = []
        self._failure = ""
        self._not_written = ""  # why the last commit could not be
        self._untidy = ""  # why space could not be given back, the last time
        self._tidier = Tidier(self, self.closing)
        self._belonging = Belonging(database, store, pool_id)
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

    def let_go(self) -> None:
        """Gives up what no image has any more, some leaves at a time, so that hosts get their turn."""
        while not self.closing.is_set():  # what is left then will be found free at the next start
            with self.lock:
                if not self._unneeded:
                    return
                node, start = unneeded = self._unneeded[-1]
                stop = len(node.leaves) if node.owners > 1 else start + LET_GO_LEAVES_AT_A_TIME
            some = [leaf for leaf in node.leaves[start:stop] if leaf is not None]
            self.table.load_last_owned(some)  # not with the lock held: this waits for the database
            with self.lock:
                if self._unneeded[-1:] != [unneeded]:
                    continue  # another thread does the same, or a change was made meanwhile
                self.table.load_last_owned(some)
                self._unneeded.pop()
                if stop < len(node.leaves):
                    self.table.drop_leaves(some)
                    self._unneeded.append((node, stop))
                else:
                    self.table.drop_node(node, start)

    def difference(self, old: int | None, new: int, start: int = 0) -> Iterator[Extent]:
        with self.lock:
            before = self.find(old) if old is not None else None
            after = self.find(new)
        return extents(self.table, self.store.page_bytes, before, after, start)

    # -- durability ------------------------------------------------------------------------------------------

    def flush(self, records: Records | None = None) -> None:
        """Flushes that wait for the same commit share it."""
        asked = self._commits_begun
        with self._commit_lock:
            if records is None and self._newest_done > asked:
                return  # one that began after we were asked has covered us
            self._check_failure()
            with self.lock:
                capture = captures.take(self.table, self.by_id.values())
                begun = self._begin_commit()
            self._commit(capture, begun, None, None if records is None else lambda c: records(c, ()))

    def _begin_commit(self) -> int:
        self._commits_begun += 1
        return self._commits_begun

    def _commit(self, capture: captures.Capture, begun: int, applying: Applying | None, extra: _Extra | None) -> None:
        """Data first, then the page tables that name it."""
        try:
            self._sync_data()
            if capture.rows or applying or extra or self.is_not_written:
                self._write(capture, applying, extra)
        except BaseException as error:
            with self.lock:
                captures.put_back(self.table, capture)
            if applying and isinstance(error, IntegrityError) and "FOREIGN KEY" in str(error.orig):
                raise InUse(
                    "an image is needed by something else in the database: a replication set, for one"
                ) from error
            raise
        self._newest_done = begun
        self._settle(capture)

    def _write(self, capture: captures.Capture, applying: Applying | None, extra: _Extra | None) -> None:
        """One transaction. On a full disk once more, with what was kept for that."""
        is_due = self._belonging.is_due()

        def write() -> None:
            with self.database.transaction() as connection:
                if applying:
                    applying.write(connection)
                records.write(connection, capture.rows)
                if extra:
                    extra(connection)
                if is_due:
                    self._belonging.renew(connection)
                if self.is_not_written:
                    _try_to_write(connection, self.id)

        self.database.make_room(capture.bytes_most)
        try:
            write()
        except StateDirectoryError as error:
            if not (isinstance(error, StateDirectoryFull) and self.database.reserve.give_up()):
                self._tell_not_written(error)
                raise
            write()
        if is_due:
            self._belonging.renewed()
        self._tell_written()

    def _tell_not_written(self, error: StateDirectoryError) -> None:
        if not self._not_written:
            self._report(events.STATE_NOT_WRITTEN, f"Pool {self.name}: what hosts write cannot be made safe: {error}.")
        self._not_written = str(error)

    def _tell_written(self) -> None:
        if self._not_written:
            self._not_written = ""
            self._report(events.STATE_WRITTEN_AGAIN, f"Pool {self.name}: what hosts write is made safe again.")

    def _settle(self, capture: captures.Capture) -> None:
        """What the commit has freed is on its way to be used again. Bit by bit, so that hosts get their turn."""
        freed = capture.freed
        left_pages = gathered(capture.left_pages)
        for at in range(0, len(left_pages), SETTLED_PAGES_AT_A_TIME):
            with self.lock:
                freed += self.table.settle_pages(left_pages[at : at + SETTLED_PAGES_AT_A_TIME])
        for at in range(0, len(capture.left_leaves), SETTLED_LEAVES_AT_A_TIME):
            with self.lock:
                freed += self.table.settle_leaves(capture.left_leaves[at : at + SETTLED_LEAVES_AT_A_TIME])
        runs = runs_of(gathered(freed))
        with self.lock:
            self.free_space.retire(runs)

    def _sync_data(self) -> None:
        unsynced = self.free_space.unsynced_pages  # more may be taken meanwhile
        try:
            self.store.sync()
            with self.lock:
                self.free_space.synced(unsynced)
        except OSError as error:
            # The kernel may have thrown the failed pages away: asking again would be told a lie.
            self._failure = (
                f"pool {self.name} failed: its disk did not take the data ({error.strerror}); nothing is "
                "acknowledged as safe any more; check the disk, then start the system again"
            )
            self._report(events.POOL_FAILED, self._failure)
            raise PoolFailed(self._failure) from error

    def _check_failure(self) -> None:
        if self._failure:
            raise PoolFailed(self._failure)

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

    @property
    def is_not_written(self) -> bool:
        """Whether the last commit failed: the next one writes something in any case, to find out whether it can."""
        return bool(self._not_written)

    @property
    def has_failed(self) -> bool:
        return bool(self._failure)

    @property
    def health(self) -> tuple[Health, str]:
        """How the pool is, and why it is not well."""
        if self._failure:
            return Health.FAULT, self._failure
        if self._not_written:
            return Health.FAULT, f"what hosts write cannot be made safe: {self._not_written}"
        if self.free_space.room.is_read_only:
            return Health.FAULT, f"the file system at {self.free_space.room.place} is read-only"
        if self.space.refusal:
            return Health.DEGRADED, f"writes are refused for lack of space: {self.space.refusal}"
        if self._untidy:
            return Health.DEGRADED, f"space cannot be given back: {self._untidy}"
        return Health.OK, ""

    def look_after_database(self) -> None:
        """What it left in its WAL is written back, and what was given up of its reserve is taken again."""
        self.database.checkpoint()
        self.database.reserve.keep_again()
        self._bound_dirty_leaves()

    def _bound_dirty_leaves(self) -> None:
        free_bytes = file_system(self.database.path.parent).free_bytes + self.database.reserve.kept_bytes
        self.dirty_leaves_max = captures.dirty_leaves_max(free_bytes)

    def tell_tidy(self) -> None:
        self._untidy = ""

    def tell_untidy(self, error: Exception) -> None:
        """Once, until it has gone well again; a failure of the whole pool has been told already."""
        if not self._untidy and not self._failure:
            self._report(events.POOL_NOT_TIDIED, f"Pool {self.name}: space could not be given back: {error}")
        self._untidy = str(error)


def _try_to_write(connection: Connection, pool_id: int) -> None:
    """SQLite writes a row also when nothing in it changes."""
    pools = tables.pools
    connection.execute(update(pools).where(pools.c.id == pool_id).values(name=pools.c.name))


def _touched(change: Change) -> list[int]:
    """Ids of the images whose content has to stand still."""
    if isinstance(change, Create):
        return []
    return [getattr(change, field) for field in ("source", "target", "image_id") if hasattr(change, field)]
