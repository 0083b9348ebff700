"""Pages that were freed, until nobody can see them any more. The whole way is told in free_space.py."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from offsite.pools.allocator import Run
from offsite.pools.gate import Visitors
from offsite.pools.page_table import PageNumbers


def runs_of(pages: PageNumbers) -> list[Run]:
    """Sorted page numbers joined to runs."""
    if not len(pages):
        return []
    breaks = np.flatnonzero(np.diff(pages) != 1) + 1
    starts = np.concatenate(([0], breaks))
    ends = np.concatenate((breaks, [len(pages)]))
    return list(zip(pages[starts].tolist(), (ends - starts).tolist(), strict=True))


def gathered(pages: list[int], arrays: list[PageNumbers]) -> PageNumbers:
    """Sorted numbers of pages that were freed one by one and by the array."""
    joined = np.concatenate([np.array(pages, dtype=np.uint32), *arrays])
    joined.sort()
    return joined


class Retired:
    """Runs of pages that no page table names, durably, waiting for the last who might still see them."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, list[Run]]] = deque()
        self.pages = 0

    def add(self, epoch: int, runs: list[Run]) -> None:
        """`epoch`: whoever entered in it or before may still see these pages."""
        self._waiting.append((epoch, runs))
        self.pages += sum(count for _, count in runs)

    def put_back(self, runs: list[Run]) -> None:
        """Runs of `take_ready` that could not be made free after all."""
        if runs:
            self._waiting.appendleft((0, runs))
            self.pages += sum(count for _, count in runs)

    def take_ready(self, images: Callable[[], Iterable[Visitors]], at_most: int) -> list[Run]:
        """Some runs, about `at_most`, that nobody can see any more."""
        if not self._waiting:
            return []
        entered = [v.entered for visitors in images() for v in visitors.inside if v.entered]
        oldest = min(entered, default=None)
        ready: list[Run] = []
        while self._waiting and len(ready) < at_most and (oldest is None or self._waiting[0][0] < oldest):
            epoch, runs = self._waiting.popleft()
            room = at_most - len(ready)
            ready += runs[:room]
            if len(runs) > room:
                self._waiting.appendleft((epoch, runs[room:]))
        self.pages -= sum(count for _, count in ready)
        return ready
