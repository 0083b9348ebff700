"""How what a local pool has in memory becomes durable: data first, then the page tables that name it.

    changed in memory ──► captured, under the lock ──► data synced ──► committed ──► what that freed can be used again
                                                        │ fails          │ fails
                                                        ▼                ▼
                                         the pool has failed       put back, for the next commit

`_commit_lock` before `lock`: see offsite.pools.local.pool.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy import Connection, update
from sqlalchemy.exc import IntegrityError

from offsite import events
from offsite.errors import InUse, PoolFailed, StateDirectoryError, StateDirectoryFull
from offsite.events import Report
from offsite.pools import tables
from offsite.pools.health import Health
from offsite.pools.local import capture as captures
from offsite.pools.local import records
from offsite.pools.local.belonging import Belonging
from offsite.pools.local.changes import Applying
from offsite.pools.local.core import PoolCore
from offsite.pools.local.page_store import PageStore
from offsite.pools.local.page_table import Node
from offsite.pools.local.reclaim import gathered, runs_of
from offsite.pools.protocol import Records
from offsite.store.database import Database
from offsite.store.free_space import file_system

LET_GO_LEAVES_AT_A_TIME = 128  # with the lock held
SETTLED_PAGES_AT_A_TIME = 1 << 14
SETTLED_LEAVES_AT_A_TIME = 128

_Extra = Callable[[Connection], object]
"""What callers have to write in the transaction of a commit."""


class DurablePool(PoolCore):
    """A pool that can be flushed, and says how well it is."""

    def __init__(self, database: Database, pool_id: int, name: str, store: PageStore, report: Report) -> None:
        super().__init__(database, pool_id, name, store, report)
        self._commit_lock = threading.Lock()
        self._commits_begun = self._newest_done = 0
        # Nodes that deleted and replaced images had, to be let go, and how many leaves of each have been already.
        self._unneeded: list[tuple[Node, int]] = []
        self._failure = ""
        self._not_written = ""  # why the last commit could not be
        self._untidy = ""  # why space could not be given back, the last time
        self._belonging = Belonging(database, store, pool_id)

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
            self._report(
                events.STATE_NOT_WRITTEN, f"Pool {self.name}: writes of hosts cannot be committed to disk: {error}."
            )
        self._not_written = str(error)

    def _tell_written(self) -> None:
        if self._not_written:
            self._not_written = ""
            self._report(events.STATE_WRITTEN_AGAIN, f"Pool {self.name}: writes of hosts are committed to disk again.")

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
                f"pool {self.name} failed: its disk did not store the data ({error.strerror}); no flush "
                "is acknowledged; check the disk, then start the system again"
            )
            self._report(events.POOL_FAILED, self._failure)
            raise PoolFailed(self._failure) from error

    def _check_failure(self) -> None:
        if self._failure:
            raise PoolFailed(self._failure)

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
            return Health.FAULT, f"writes of hosts cannot be committed to disk: {self._not_written}"
        if self.free_space.room.is_read_only:
            return Health.FAULT, f"the file system at {self.free_space.room.place} is read-only"
        if self.space.refusal:
            return Health.DEGRADED, f"writes are refused for lack of space: {self.space.refusal}"
        if self._untidy:
            return Health.DEGRADED, f"free space cannot be returned to the file system: {self._untidy}"
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
            self._report(
                events.POOL_NOT_TIDIED,
                f"Pool {self.name}: free space could not be returned to the file system: {error}",
            )
        self._untidy = str(error)


def _try_to_write(connection: Connection, pool_id: int) -> None:
    """SQLite writes a row also when nothing in it changes."""
    pools = tables.pools
    connection.execute(update(pools).where(pools.c.id == pool_id).values(name=pools.c.name))
