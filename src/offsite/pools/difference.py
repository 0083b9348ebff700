"""The difference of two images, from their page tables alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from offsite.pools.image import Image
from offsite.pools.page_table import HOLE, PAGES_PER_LEAF, Leaf, PageNumbers, PageTable, as_numpy
from offsite.pools.protocol import Extent, ExtentKind

_SAME, _DATA, _CHANGED, _HOLE = 0, 1, 2, 3
_KINDS = {_DATA: ExtentKind.DATA, _CHANGED: ExtentKind.CHANGED, _HOLE: ExtentKind.HOLE}
_NO_PAGES: PageNumbers = np.zeros(PAGES_PER_LEAF, dtype=np.uint32)


def extents(table: PageTable, page_bytes: int, old: Image | None, new: Image, start: int) -> Iterator[Extent]:
    """See Pool.difference. Neighbours of a kind are joined across leaves."""
    end = new.size_bytes
    pending: tuple[int, int, int] | None = None  # offset, end, kind
    for first, last, kind in _runs(table, old, new, start // page_bytes):
        offset, until = max(start, first * page_bytes), min(end, last * page_bytes)
        if offset >= until:
            continue
        if pending and pending[1] == offset and pending[2] == kind:
            pending = pending[0], until, kind
            continue
        if pending:
            yield Extent(pending[0], pending[1] - pending[0], _KINDS[pending[2]])
        pending = offset, until, kind
    if pending:
        yield Extent(pending[0], pending[1] - pending[0], _KINDS[pending[2]])


def _runs(table: PageTable, old: Image | None, new: Image, start: int) -> Iterator[tuple[int, int, int]]:
    """(first page, page behind the last, kind) of each stretch that is not the same."""
    old_nodes = old.nodes if old else type(new.nodes)()
    for index, before, after in table.changed_leaves(old_nodes, new.nodes, start):
        kinds = _compare(_numbers(before), _numbers(after))
        edges = np.flatnonzero(np.diff(kinds)) + 1
        starts = [0, *edges.tolist()]
        ends = [*edges.tolist(), PAGES_PER_LEAF]
        for first, last in zip(starts, ends, strict=True):
            kind = int(kinds[first])
            if kind != _SAME:
                yield index + first, index + last, kind


def _compare(old: PageNumbers, new: PageNumbers) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    kinds = np.full(PAGES_PER_LEAF, _CHANGED, dtype=np.uint8)
    kinds[old == HOLE] = _DATA
    kinds[new == HOLE] = _HOLE
    kinds[old == new] = _SAME
    return kinds


def _numbers(leaf: Leaf | None) -> PageNumbers:
    return _NO_PAGES if leaf is None or leaf.pages is None else as_numpy(leaf.pages)
