"""The pages of a pool that no image has: given out, taken back, punched.

    freed ──(the commit that freed it is durable)──► retired ──(nobody inside from before)──► ready
    ready ──► punched ──► free ──► taken              a long run, or once it has cooled
    ready ──► warm ──► taken, to be overwritten whole

Each of the first two arrows guards P4: before the commit, a crash would bring the page table back that still
names the page; before the last visitor left, a read may still be on its way to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from offsite.errors import PoolFull
from offsite.pools.gate import Visitors
from offsite.pools.local.allocator import LONG_RUN_PAGES, Allocator, Run
from offsite.pools.local.page_store import PUNCH_BYTES_MAX, PageStore
from offsite.pools.local.page_table import PageTable
from offsite.pools.local.reclaim import Retired
from offsite.pools.local.room import Room
from offsite.units import MIB

PUNCHES_AT_A_TIME = 256
PUNCH_BYTES_AT_A_TIME = PUNCH_BYTES_MAX  # who waits for space gets some after so much
ZERO_AHEAD_BYTES = 4 * MIB
LOOK_FOR_ROOM_BYTES = MIB  # of new pages, after which the file system is asked again: others fill it, too
LOOK_AGAIN_SECONDS = 0.05  # for pages that another thread has freed
_PAGES_AT_A_TIME = 1 << 22


class FreeSpace:
    """`lock` is the pool's; `visitors` are all who may be inside an image; `stopping` ends long work early."""

    def __init__(
        self,
        store: PageStore,
        table: PageTable,
        lock: threading.RLock,
        visitors: Callable[[], Iterable[Visitors]],
        stopping: threading.Event,
    ) -> None:
        """Finds what is free. Below the last page in use a crash may have left data in free pages: these are
        punched, in the background, before anyone gets them; what lies behind is punched now. On a device that
        cannot discard, that would take hours: there it is zeroed bit by bit as it comes to be used."""
        self._store = store
        self._table = table
        self.room = Room(store)
        self._room_pages = 0  # that may be taken before it is asked again
        self.unsynced_pages = 0  # taken since the last sync
        self._lock = lock
        self._visitors = visitors
        self._stopping = stopping
        self._retired = Retired()
        self._reclaiming = threading.Lock()
        self.epoch = 1
        self._page_count = page_count = len(table.owners)
        fresh, free = _free_runs(table.owners)
        self._retired.add(0, free)
        self._zeroed_until = page_count if store.discard_from(fresh) else fresh
        self._allocator = Allocator(fresh, page_count)

    # -- under the pool's lock -----------------------------------------------------------------------------

    def take(self, wanted: int, *, to_overwrite: bool = False) -> Run:
        """Pages that read as zero; or, `to_overwrite`, one that may hold anything and will be written whole.

        Raises PoolFull when the pool has none left, or the file system no room for them.
        """
        warm = self._allocator.take_warm() if to_overwrite else None
        if warm is not None:
            return warm, 1
        if wanted > self._room_pages and self._allocator.free:
            wanted = self._within_room(wanted)
        run = self._allocator.take(wanted)
        if sum(run) > self._zeroed_until:
            self._zero_up_to(run)
        self._room_pages -= run[1]
        self.unsynced_pages += run[1]
        return run

    def _within_room(self, wanted: int) -> int:
        """As many of the pages wanted as the file system takes: asked before any is taken, so that a write that is
        refused leaves no trace in what is free."""
        room = self.look_for_room()
        if not room:
            raise PoolFull(self.room.full_sentence(self._promised_bytes))
        self._room_pages = min(room, max(wanted, LOOK_FOR_ROOM_BYTES // self._store.page_bytes))
        return min(wanted, room)

    def look_for_room(self) -> int:
        """How many new pages the file system takes."""
        return self._pages_left(self.unsynced_pages)

    def look_for_room_once_synced(self) -> int:
        """As if all that was written had been synced."""
        return self._pages_left(0)

    def _pages_left(self, unsynced_pages: int) -> int:
        page_bytes = self._store.page_bytes
        return self.room.bytes_left(self._promised_bytes, unsynced_pages * page_bytes) // page_bytes

    @property
    def _promised_bytes(self) -> int:
        """Of pages that may be written in place to their end; that of warm ones is stored."""
        return (self._table.used + self._allocator.warm) * self._store.page_bytes

    def synced(self, pages: int) -> None:
        """So many pages of those taken are on disk."""
        self.unsynced_pages -= pages

    def _zero_up_to(self, run: Run) -> None:
        until = min(self._page_count, sum(run) + ZERO_AHEAD_BYTES // self._store.page_bytes)
        try:
            self._store.punch(self._zeroed_until, until - self._zeroed_until)
        except OSError as error:
            self.give_back(run)
            self._store.tell_failed(error)
        self._zeroed_until = until

    def give_back(self, run: Run) -> None:
        """Pages that were taken, and perhaps written, and not mapped after all."""
        self._retired.add(self.epoch, [run])
        self.epoch += 1

    def retire(self, runs: list[Run]) -> None:
        """Pages that no page table names any more, durably."""
        if runs:
            self._retired.add(self.epoch, runs)
            self.epoch += 1

    @property
    def zeroed_pages(self) -> int:
        """Pages that anyone can have at once."""
        return self._allocator.free

    @property
    def has_pages(self) -> bool:
        """Whether anyone can have one, and the file system takes it."""
        return bool(self._allocator.free and self.look_for_room())

    @property
    def unpunched_pages(self) -> int:
        """Pages that nobody has any more, and that still have their place on the disk."""
        return self._allocator.warm + self._retired.pages

    # -- without it -----------------------------------------------------------------------------------------

    def reclaim(self, warm_bytes: int = 0) -> None:
        """Punches and frees what nobody can see any more, but for crumbs of up to `warm_bytes` together."""
        more = True
        while more and not self._stopping.is_set():
            with self._reclaiming:
                more = self._reclaim_some(warm_bytes // self._store.page_bytes)

    def reclaim_some(self) -> None:
        """Returns once there is a page to be had, or none that could be freed. Does not wait for all to be."""
        more = True
        while more and not self.has_pages:
            if self._reclaiming.acquire(timeout=LOOK_AGAIN_SECONDS):
                try:
                    more = self._reclaim_some(0)
                finally:
                    self._reclaiming.release()

    def _reclaim_some(self, warm_pages: int) -> bool:
        """Whether there was anything to do."""
        with self._lock:
            ready = self._retired.take_ready(
                self._visitors, PUNCHES_AT_A_TIME, PUNCH_BYTES_AT_A_TIME // self._store.page_bytes
            )
            cooled = self._allocator.cool(PUNCHES_AT_A_TIME) if self._allocator.warm > warm_pages else []
            to_punch = [run for run in ready if not self._keep_warm(run, warm_pages)] + cooled
        punched = 0
        try:
            for first, count in to_punch:
                self._store.punch(first, count)
                punched += 1
        finally:
            with self._lock:
                self._allocator.give(to_punch[:punched])
                self._retired.put_back(to_punch[punched:])
        return bool(ready or cooled)

    def _keep_warm(self, run: Run, warm_pages: int) -> bool:
        if run[1] >= LONG_RUN_PAGES or self._allocator.warm + run[1] > warm_pages:
            return False
        self._allocator.keep_warm(run)
        return True

    def cool_down(self) -> bool:
        """Whether nobody took or left a warm page since this was last asked."""
        used, self._allocator.warm_used = self._allocator.warm_used, False
        return not used


def _free_runs(owners: NDArray[np.uint16]) -> tuple[int, list[Run]]:
    """(the page behind the last one in use, runs of free pages below it). A piece at a time: the numbers of all
    pages of a large pool would take four times the memory of the counts."""
    fresh = 1
    runs: list[Run] = []
    for start in range(0, len(owners), _PAGES_AT_A_TIME):
        in_use = owners[start : start + _PAGES_AT_A_TIME] != 0
        in_use[0] |= start == 0  # the header
        edges = np.flatnonzero(in_use[1:] != in_use[:-1]) + 1
        bounds = [start, *(edges + start).tolist(), start + len(in_use)]
        first_in_use = 0 if in_use[0] else 1
        for first, last in zip(bounds[first_in_use:-1:2], bounds[first_in_use + 1 :: 2], strict=True):
            if first > fresh:
                runs.append((fresh, first - fresh))
            fresh = last
    return fresh, runs
