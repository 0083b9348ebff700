"""The background work of a pool: giving back the space of what was deleted or discarded, also when no host flushes."""

from __future__ import annotations

import threading
from typing import Protocol

from offsite.errors import PoolFailed, StateDirectoryError, StateDirectoryFull
from offsite.pools.local.free_space import FreeSpace
from offsite.pools.local.page_table import PageTable
from offsite.units import MIB

TIDY_INTERVAL_SECONDS = 2.0
WARM_BYTES = 256 * MIB
WARM_TICKS = 30  # without anyone wanting a warm page, after which these are given back too


class Tidied(Protocol):
    """What the tidier needs of a pool."""

    name: str
    table: PageTable
    free_space: FreeSpace
    dirty_leaves_max: int

    @property
    def has_failed(self) -> bool: ...

    @property
    def is_not_written(self) -> bool: ...

    def let_go(self) -> None: ...

    def flush(self) -> None: ...

    def reclaim(self, warm_bytes: int = 0) -> None: ...

    def look_after_database(self) -> None: ...

    def tell_tidy(self) -> None: ...

    def tell_untidy(self, error: Exception) -> None: ...


class Tidier:
    """A thread that tidies a pool from time to time, until that is stopping or has failed."""

    def __init__(self, pool: Tidied, stopping: threading.Event) -> None:
        self._pool = pool
        self._stopping = stopping
        self._quiet_ticks = 0
        self._thread = threading.Thread(target=self._run, name=f"tidy-{pool.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Waits for the thread, which ends soon after `stopping` is set."""
        self._thread.join()

    def _run(self) -> None:
        while not self._pool.has_failed and not self._stopping.wait(TIDY_INTERVAL_SECONDS):
            try:
                self._tidy()
            except (PoolFailed, OSError, StateDirectoryError) as error:
                self._pool.tell_untidy(error)

    def _tidy(self) -> None:
        pool = self._pool
        try:
            try:
                self._commit()
            except StateDirectoryFull:
                pool.reclaim()  # needs no commit, and may make room for one
                self._commit()
            self._quiet_ticks = self._quiet_ticks + 1 if pool.free_space.cool_down() else 0
            pool.reclaim(WARM_BYTES if self._quiet_ticks < WARM_TICKS else 0)
        finally:
            pool.look_after_database()
        pool.tell_tidy()

    def _commit(self) -> None:
        """What was let go can be given back once that is durable. And where the last commit failed, an idle pool has
        to find out that the next one does not."""
        pool, table = self._pool, self._pool.table
        pool.let_go()
        is_much_dirty = len(table.dirty_leaves) >= pool.dirty_leaves_max // 2
        if table.has_let_go or table.has_dead_rows or is_much_dirty or pool.is_not_written:
            pool.flush()
