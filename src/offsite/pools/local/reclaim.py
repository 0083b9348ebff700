"""Pages that were freed, until nobody can see them any more. The whole way is told in free_space.py."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from offsite.pools.gate import Visitors
from offsite.pools.local.allocator import Run
from offsite.pools.local.page_table import PageNumbers


def runs_of(pages: PageNumbers) -> list[Run]:
    """Sorted page numbers joined to runs."""
    if not len(pages):
        return []
    breaks = np.flatnonzero(np.diff(pages) != 1) + 1
    starts = np.concatenate(([0], breaks))
    ends = np.concatenate((breaks, [len(pages)]))
    return list(zip(pages[starts].tolist(), (ends - starts).tolist(), strict=True))


SomePages = PageNumbers | list[int]
"""Numbers of pages that were freed together, or one by one."""


def gathered(parts: Sequence[SomePages]) -> PageNumbers:
    """Sorted numbers of all these pages."""
    joined = np.concatenate([np.asarray(part, dtype=np.uint32) for part in parts])
    joined.sort()
    return joined


class Retired:
    """Runs of pages that no page table names, durably, waiting for the last who might still see them."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, deque[Run]]] = deque()
        self.pages = 0

    def add(self, epoch: int, runs: list[Run]) -> None:
        """`epoch`: whoever entered in it or before may still see these pages."""
        self._waiting.append((epoch, deque(runs)))
        self.pages += sum(count for _, count in runs)

    def put_back(self, runs: list[Run]) -> None:
        """Runs of `take_ready` that could not be made free after all."""
        if runs:
            self._waiting.appendleft((0, deque(runs)))
            self.pages += sum(count for _, count in runs)

    def take_ready(self, images: Callable[[], Iterable[Visitors]], runs_most: int, pages_most: int) -> list[Run]:
        """Some runs that nobody can see any more, with so many pages together at most."""
        if not self._waiting:
            return []
        entered = [v.entered for visitors in images() for v in visitors.inside if v.entered]
        oldest = min(entered, default=None)
        ready: list[Run] = []
        room = pages_most
        while self._waiting and room and len(ready) < runs_most:
            epoch, runs = self._waiting[0]
            if oldest is not None and epoch >= oldest:
                break
            if not runs:
                self._waiting.popleft()
                continue
            first, count = runs.popleft()
            if count > room:
                runs.appendleft((first + room, count - room))
                count = room
            ready.append((first, count))
            room -= count
        self.pages -= pages_most - room
        return ready
