"""Which pages are free, and which to use next.

Every free page is a hole in the data file: it reads as zero. So a write of a part of a new page needs no
filling up, and no host can ever be shown what a page held before (P5).

All but the warm ones: single pages that were freed a moment ago, and still lie in the page cache with their
old content. They are given only to who overwrites a whole page: the first write to a page after a snapshot
copies it, and overwriting a cached page takes a sixth of the time of filling a hole. Where snapshots come and
go, as replication makes them, the pages of the last one serve the next.

Order of use: the run at hand, then freed runs of at least 64 pages, then space never used, and crumbs last,
so that what is written together lies together for as long as there is room.
"""

from __future__ import annotations

from offsite.errors import PoolFull

Run = tuple[int, int]
"""First page and how many."""

LONG_RUN_PAGES = 64


class Allocator:
    """Not locked: called under the pool's lock."""

    def __init__(self, fresh: int, end: int) -> None:
        """Pages from `fresh` up to `end` were never used; what is free below is given by `give`."""
        self._at = self._until = 0  # the run at hand
        self._fresh = fresh
        self._end = end
        self._long: list[Run] = []
        self._short: list[Run] = []
        self._given_since_join = 0
        self._warm: list[Run] = []
        self.warm = 0  # pages in _warm; not counted in `free`
        self.warm_used = False  # since the tidier last looked
        self.free = end - fresh

    def take(self, wanted: int) -> Run:
        """A run of 1 to `wanted` free pages. Raises PoolFull when there is none."""
        if self._at == self._until:
            self._next_run(wanted)
        start = self._at
        count = min(wanted, self._until - start)
        self._at += count
        self.free -= count
        return start, count

    def give(self, runs: list[Run]) -> None:
        """Runs that are holes in the data file and that nobody can see any more."""
        for run in runs:
            (self._long if run[1] >= LONG_RUN_PAGES else self._short).append(run)
            self.free += run[1]
        self._given_since_join += len(runs)

    def take_warm(self) -> int | None:
        """A page with old content, to be overwritten whole."""
        if not self._warm:
            return None
        start, count = self._warm.pop()
        if count > 1:
            self._warm.append((start, count - 1))
        self.warm -= 1
        self.warm_used = True
        return start + count - 1

    def keep_warm(self, run: Run) -> None:
        """A run that nobody can see any more, not punched."""
        self._warm.append(run)
        self.warm += run[1]
        self.warm_used = True

    def cool(self, at_most: int) -> list[Run]:
        """Up to `at_most` warm runs, to be punched and then given."""
        cooled, self._warm = self._warm[:at_most], self._warm[at_most:]
        self.warm -= sum(count for _, count in cooled)
        return cooled

    def _next_run(self, wanted: int) -> None:
        if self._long:
            start, count = self._long.pop()
        elif self._fresh < self._end:
            start = self._fresh
            count = min(max(wanted, LONG_RUN_PAGES), self._end - start)
            self._fresh += count
        elif self._short:
            self._join_short()
            start, count = self._long.pop() if self._long else self._short.pop()
        else:
            raise PoolFull("no free page is left in the pool; add space to it, or delete volumes or snapshots")
        self._at, self._until = start, start + count

    def _join_short(self) -> None:
        """Crumbs that were freed at different times may lie side by side.

        Only once enough new ones have come, or each page taken would cost a sort of all that is left.
        """
        if self._given_since_join < max(2 * LONG_RUN_PAGES, len(self._short) // 2):
            return
        self._given_since_join = 0
        runs, self._short = sorted(self._short), []
        joined = [runs[0]]
        for start, count in runs[1:]:
            first, length = joined[-1]
            if first + length == start:
                joined[-1] = (first, length + count)
            else:
                joined.append((start, count))
        for run in joined:
            (self._long if run[1] >= LONG_RUN_PAGES else self._short).append(run)
