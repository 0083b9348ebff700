"""The difference of two images, from their page tables alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from offsite.pools.local.image import Image
from offsite.pools.local.page_table import (
    HOLE,
    PAGES_PER_LEAF,
    PAGES_PER_LEAF_SHIFT,
    Leaf,
    Nodes,
    PageNumbers,
    PageTable,
    empty_pages,
)
from offsite.pools.protocol import Extent, ExtentKind

_SAME, _DATA, _CHANGED, _HOLE = 0, 1, 2, 3
_KINDS = {_DATA: ExtentKind.DATA, _CHANGED: ExtentKind.CHANGED, _HOLE: ExtentKind.HOLE}
_NO_PAGES = empty_pages()

_Run = tuple[int, int, int]
"""First page, page behind the last, kind."""


def extents(table: PageTable, page_bytes: int, old: Image | None, new: Image, start: int) -> Iterator[Extent]:
    """See Pool.difference. Neighbours of a kind are joined across leaves."""
    end = new.size_bytes
    pending: _Run | None = None  # in bytes
    for first, last, kind in _runs(table, old, new, start // page_bytes):
        offset, until = max(start, first * page_bytes), min(end, last * page_bytes)
        if offset >= until:
            continue
        if pending and pending[1] == offset and pending[2] == kind:
            pending = pending[0], until, kind
            continue
        if pending:
            yield _extent(pending)
        pending = offset, until, kind
    if pending:
        yield _extent(pending)


def _extent(run: _Run) -> Extent:
    return Extent(run[0], run[1] - run[0], _KINDS[run[2]])


def _runs(table: PageTable, old: Image | None, new: Image, start: int) -> Iterator[_Run]:
    """Stretches that are not the same, by rising page; neighbours of a kind are mostly joined."""
    old_nodes = old.nodes if old else Nodes()
    for indexes, before, after in table.changed_leaves(old_nodes, new.nodes, start):
        kinds = _compare(_numbers(before), _numbers(after))
        # Many leaves are compared at once: thousands of calls for 256 pages each would cost ten times as much.
        differing = np.flatnonzero(kinds)
        if not len(differing):
            continue
        firsts = np.array(indexes, dtype=np.int64)
        pages = firsts[differing >> PAGES_PER_LEAF_SHIFT] + (differing & (PAGES_PER_LEAF - 1))
        found = kinds[differing]
        breaks = np.flatnonzero((np.diff(pages) != 1) | (found[1:] != found[:-1])) + 1
        starts = np.concatenate(([0], breaks))
        ends = np.concatenate((breaks, [len(pages)])) - 1
        yield from zip(pages[starts].tolist(), (pages[ends] + 1).tolist(), found[starts].tolist(), strict=True)


def _compare(old: PageNumbers, new: PageNumbers) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    kinds = np.full(len(new), _CHANGED, dtype=np.uint8)
    kinds[old == HOLE] = _DATA
    kinds[new == HOLE] = _HOLE
    kinds[old == new] = _SAME
    return kinds


def _numbers(leaves: Sequence[Leaf | None]) -> PageNumbers:
    """The pages of leaves, one leaf behind the other."""
    parts = [_NO_PAGES if leaf is None or leaf.pages is None else leaf.pages for leaf in leaves]
    return np.frombuffer(b"".join(parts), dtype=np.uint32)
