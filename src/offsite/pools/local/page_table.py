"""The page table: an image is nodes, a node is leaves, a leaf is pages; nodes and leaves are shared.

    image ── nodes[i] ──► Node (4 GiB at 16 KiB pages) ── leaves[j] ──► Leaf ── pages[k] ──► page number

A snapshot copies the dictionary of nodes and nothing else. Whoever writes afterwards copies the one node
and the one leaf on its way (`own_leaf`). The difference of two images skips what is the same object. Each
node and leaf counts its owners, each page the leaves that map it; a page may be written in place only
while everything on the way to it has one owner. The counts are derived: never stored, counted at start.

What is on disk counts as an owner too. An image that lets go of a page which others have as well stays its
owner until that is durable (`leave_page`, `settle`). For should power fail before, its page table names the page
again; had the one other owner written to it in place, this image would show the other's bytes.

Three levels where two would do for lookups, because a leaf has to be small: it is what a flush writes for
one scattered host write after a snapshot. See docs/decisions/0002.

Nothing here locks. Changes are made under the pool's lock; lookups go without, and are safe, since each
change is one store of a reference or of a number. Whoever looks without the lock may find any state between
two stores. So what gets one owner more is counted before the old owner lets go: a count of one is never seen
too early. And what was found is found to be still there afterwards, before it is relied on.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, compress
from operator import is_not

import numpy as np
from numpy.typing import NDArray

PAGES_PER_LEAF_SHIFT = 8
LEAVES_PER_NODE_SHIFT = 10
PAGES_PER_LEAF = 1 << PAGES_PER_LEAF_SHIFT
LEAVES_PER_NODE = 1 << LEAVES_PER_NODE_SHIFT
NODE_SHIFT = PAGES_PER_LEAF_SHIFT + LEAVES_PER_NODE_SHIFT
HOLE = 0  # page 0 holds the pool's header, so no image can map it

PageNumbers = NDArray[np.uint32]


class Leaf:
    """The pages of one stretch of an image. `pages` is None until someone touches it."""

    __slots__ = ("id", "owners", "pages")

    def __init__(self, leaf_id: int, pages: array[int] | None) -> None:
        self.id = leaf_id
        self.owners = 1
        self.pages = pages


class Node:
    """1024 leaves, None for a hole."""

    __slots__ = ("id", "leaves", "owners")

    def __init__(self, node_id: int, leaves: list[Leaf | None]) -> None:
        self.id = node_id
        self.owners = 1
        self.leaves = leaves


_NO_LEAVES: list[Leaf | None] = [None] * LEAVES_PER_NODE


class Nodes(dict[int, Node]):
    """The nodes of one image. `changed` since the image's row was last written."""

    changed = True


Load = Callable[[list[Leaf]], None]
"""Fills `pages` of leaves that were not touched since the start. Safe to call without the pool's lock."""


def empty_pages() -> array[int]:
    return array("I", bytes(4 * PAGES_PER_LEAF))


def pages_to_next_node(index: int) -> int:
    """How many pages from `index` on one node stands for: all of them are holes where there is none."""
    return ((index >> NODE_SHIFT) + 1 << NODE_SHIFT) - index


def as_numpy(pages: array[int]) -> PageNumbers:
    return np.frombuffer(pages, dtype=np.uint32)


class PageTable:
    """All nodes and leaves of a pool, how many own what, and what changed since the last flush."""

    def __init__(self, page_count: int, load: Load) -> None:
        self.owners = np.zeros(page_count, dtype=np.uint16)  # leaves that map each page
        self.owners_view = self.owners.data
        self.used = 0  # pages with at least one owner
        self.freed: list[int] = []  # pages that lost their last owner since the last flush
        self.freed_arrays: list[PageNumbers] = []
        self.left_pages: list[int] = []  # let go by one of several owners since the last flush, and still counted
        self.left_arrays: list[PageNumbers] = []
        self.left_leaves: list[Leaf] = []
        self.dirty_leaves: set[Leaf] = set()
        self.dirty_nodes: set[Node] = set()
        self.dead_leaves: list[int] = []
        self.dead_nodes: list[int] = []
        self.next_leaf_id = 1
        self.next_node_id = 1
        self._load = load

    # -- lookups ----------------------------------------------------------------------------------------

    def leaf_at(self, nodes: Nodes, index: int) -> Leaf | None:
        """The loaded leaf that maps page `index` of an image, or None for a hole."""
        node = nodes.get(index >> NODE_SHIFT)
        if node is None:
            return None
        leaf = node.leaves[(index >> PAGES_PER_LEAF_SHIFT) & (LEAVES_PER_NODE - 1)]
        if leaf is not None and leaf.pages is None:
            self._load([leaf])
        return leaf

    def page_at(self, nodes: Nodes, index: int) -> int:
        leaf = self.leaf_at(nodes, index)
        if leaf is None or leaf.pages is None:
            return HOLE
        return leaf.pages[index & (PAGES_PER_LEAF - 1)]

    def is_owned(self, nodes: Nodes, index: int, page: int) -> bool:
        """Whether `page`, found at `index`, may be written in place."""
        node = nodes[index >> NODE_SHIFT]
        leaf = node.leaves[(index >> PAGES_PER_LEAF_SHIFT) & (LEAVES_PER_NODE - 1)]
        return node.owners == 1 and leaf is not None and leaf.owners == 1 and self.owners_view[page] == 1

    # -- changes: under the pool's lock --------------------------------------------------------------------

    def own_leaf(self, nodes: Nodes, index: int) -> Leaf:
        """The leaf for page `index`, made or copied so that this image alone owns it; marked as changed."""
        node = self._own_node(nodes, index)
        at = (index >> PAGES_PER_LEAF_SHIFT) & (LEAVES_PER_NODE - 1)
        leaf = node.leaves[at]
        if leaf is None:
            leaf = node.leaves[at] = self._new_leaf(empty_pages())
            self.dirty_nodes.add(node)
        elif leaf.owners > 1:
            shared, pages = leaf, self.loaded(leaf)
            numbers = as_numpy(pages)
            self.owners[numbers[numbers != HOLE]] += 1
            leaf = node.leaves[at] = self._new_leaf(pages[:])
            shared.owners -= 1
            self.dirty_nodes.add(node)
        else:
            self.loaded(leaf)
            self.dirty_leaves.add(leaf)
        return leaf

    def set_page(self, nodes: Nodes, index: int, page: int) -> int:
        """Maps `page` at `index` and leaves what was there; returns what was there."""
        pages = self.loaded(self.own_leaf(nodes, index))
        old = pages[index & (PAGES_PER_LEAF - 1)]
        self.hold_page(page)
        pages[index & (PAGES_PER_LEAF - 1)] = page
        if old != HOLE:
            self.leave_page(old)
        return old

    def set_pages(self, nodes: Nodes, index: int, count: int, first_page: int | None) -> int:
        """Maps `count` pages from `first_page` on (None: holes) at `index` and on; returns how many were mapped."""
        was_mapped = 0
        while count:
            at = index & (PAGES_PER_LEAF - 1)
            piece = min(count, PAGES_PER_LEAF - at)
            if first_page is None and index >> NODE_SHIFT not in nodes:
                piece = min(count, pages_to_next_node(index))
            elif first_page is None and piece == PAGES_PER_LEAF:
                was_mapped += self._leave_leaf(nodes, index)
            elif first_page is not None or self.leaf_at(nodes, index) is not None:
                pages = as_numpy(self.loaded(self.own_leaf(nodes, index)))[at : at + piece]
                old = pages[pages != HOLE]
                was_mapped += len(old)
                if first_page is not None:
                    self.owners[first_page : first_page + piece] = 1
                    self.used += piece
                    pages[:] = np.arange(first_page, first_page + piece, dtype=np.uint32)
                else:
                    pages[:] = HOLE
                self.leave_pages(old)
            index += piece
            count -= piece
            if first_page is not None:
                first_page += piece
        return was_mapped

    def hold_page(self, page: int) -> None:
        """One more owner: a leaf, or a copy in progress that must not see the page change under it."""
        count = self.owners_view[page]
        self.owners_view[page] = count + 1
        if count == 0:
            self.used += 1

    def leave_page(self, page: int) -> None:
        """An image lets go of a page: at once if it is the only owner, else once that is durable."""
        if self.owners_view[page] == 1:
            self.drop_page(page)
        else:
            self.left_pages.append(page)

    def leave_pages(self, pages: PageNumbers) -> None:
        """As leave_page for many; no page may be in `pages` twice."""
        counts = self.owners[pages]
        self.drop_pages(pages[counts == 1])
        shared = pages[counts > 1]
        if len(shared):
            self.left_arrays.append(shared)

    def settle_pages(self, pages: PageNumbers) -> list[PageNumbers]:
        """Takes off the owners that had left before a commit, which is durable by now. Returns the pages that
        have no owner any more: no page table names them, in memory or on disk."""
        np.subtract.at(self.owners, pages, np.uint16(1))
        gone = np.unique(pages[self.owners[pages] == 0])
        self.used -= len(gone)
        return [gone]

    def settle_leaves(self, leaves: list[Leaf]) -> list[PageNumbers]:
        """As settle_pages, for whole leaves."""
        freed, self.freed_arrays = self.freed_arrays, []
        self.drop_leaves(leaves)
        gone, self.freed_arrays = self.freed_arrays, freed
        return gone

    @property
    def has_let_go(self) -> bool:
        """Whether a flush would free pages."""
        return bool(self.freed or self.freed_arrays or self.left_pages or self.left_arrays or self.left_leaves)

    @property
    def has_dead_rows(self) -> bool:
        """Whether a flush would delete rows that nobody names any more."""
        return bool(self.dead_leaves or self.dead_nodes)

    def drop_page(self, page: int) -> None:
        """One owner less, at once: for an owner that is not on disk."""
        count = self.owners_view[page]
        self.owners_view[page] = count - 1
        if count == 1:
            self.used -= 1
            self.freed.append(page)

    def drop_pages(self, pages: PageNumbers) -> None:
        """As drop_page for many; no page may be in `pages` twice."""
        left = self.owners[pages] - 1
        self.owners[pages] = left
        gone = pages[left == 0]
        if len(gone):
            self.used -= len(gone)
            self.freed_arrays.append(gone)

    def share(self, nodes: Nodes) -> Nodes:
        """What a snapshot is: the same nodes, each with one owner more."""
        for node in nodes.values():
            node.owners += 1
        return Nodes(nodes)

    def load_last_owned(self, leaves: Iterable[Leaf | None]) -> None:
        """Those that nobody has but one: whoever drops them has to know their pages.

        Raises StateDirectoryError when one cannot be loaded.
        """
        self._load_all(leaf for leaf in leaves if leaf is not None and leaf.owners == 1)

    def drop_node(self, node: Node, start: int = 0) -> None:
        """One owner less; the last one takes the leaves and the pages that nobody else has along. Only for nodes
        that no image on disk has any more, or ever had. Leaves before `start` were dropped before.

        Raises StateDirectoryError, with nothing changed, when a leaf cannot be loaded.
        """
        leaves = [leaf for leaf in node.leaves[start:] if leaf is not None]
        if node.owners == 1:
            self.load_last_owned(leaves)
        node.owners -= 1
        if node.owners:
            return
        self.dirty_nodes.discard(node)
        self.dead_nodes.append(node.id)
        self.drop_leaves(leaves)

    def drop_leaves(self, leaves: Iterable[Leaf]) -> None:
        """One owner less of each. Those that have no other are loaded."""
        self._drop_leaves(leaves, self.drop_pages)

    def loaded(self, leaf: Leaf) -> array[int]:
        if leaf.pages is None:
            self._load([leaf])
        assert leaf.pages is not None
        return leaf.pages

    def _own_node(self, nodes: Nodes, index: int) -> Node:
        node = nodes.get(index >> NODE_SHIFT)
        if node is None:
            node = nodes[index >> NODE_SHIFT] = self._new_node([None] * LEAVES_PER_NODE)
            nodes.changed = True
        elif node.owners > 1:
            shared = node
            for leaf in shared.leaves:
                if leaf is not None:
                    leaf.owners += 1
            node = nodes[index >> NODE_SHIFT] = self._new_node(list(shared.leaves))
            shared.owners -= 1
            nodes.changed = True
        return node

    def _leave_leaf(self, nodes: Nodes, index: int) -> int:
        """Makes the whole leaf at `index` a hole; returns how many pages it mapped."""
        leaf = self.leaf_at(nodes, index)
        if leaf is None:
            return 0
        node = self._own_node(nodes, index)
        node.leaves[(index >> PAGES_PER_LEAF_SHIFT) & (LEAVES_PER_NODE - 1)] = None
        self.dirty_nodes.add(node)
        mapped = int(np.count_nonzero(as_numpy(self.loaded(leaf))))
        if leaf.owners == 1:
            self._drop_leaves([leaf], self.leave_pages)
        else:
            self.left_leaves.append(leaf)
        return mapped

    def _drop_leaves(self, leaves: Iterable[Leaf], let_go: Callable[[PageNumbers], None]) -> None:
        """One owner less; `let_go` is for the pages of those that had no other. They are loaded."""
        last = []
        for leaf in leaves:
            leaf.owners -= 1
            if not leaf.owners:
                last.append(leaf)
        for leaf in last:
            self.dirty_leaves.discard(leaf)
            self.dead_leaves.append(leaf.id)
            numbers = as_numpy(self.loaded(leaf))
            let_go(numbers[numbers != HOLE])

    def _new_node(self, leaves: list[Leaf | None]) -> Node:
        node = Node(self.next_node_id, leaves)
        self.next_node_id += 1
        self.dirty_nodes.add(node)
        return node

    def _new_leaf(self, pages: array[int]) -> Leaf:
        leaf = Leaf(self.next_leaf_id, pages)
        self.next_leaf_id += 1
        self.dirty_leaves.add(leaf)
        return leaf

    # -- differences -----------------------------------------------------------------------------------------

    def changed_leaves(
        self, old: Nodes, new: Nodes, start: int = 0
    ) -> Iterator[tuple[list[int], list[Leaf | None], list[Leaf | None]]]:
        """The leaves that are not shared, some thousand at a time: first page of each, old leaf, new leaf.

        By rising page, from the leaf on that holds page `start`. All are loaded.
        """
        firsts: list[int] = []
        olds: list[Leaf | None] = []
        news: list[Leaf | None] = []
        for number in sorted(n for n in old.keys() | new.keys() if n >= start >> NODE_SHIFT):
            a, b = old.get(number), new.get(number)
            if a is b:
                continue
            before = a.leaves if a else _NO_LEAVES
            after = b.leaves if b else _NO_LEAVES
            # In C from end to end: of the leaves of 1 TiB a few thousand may differ, and all are looked at.
            for at in compress(range(LEAVES_PER_NODE), map(is_not, before, after)):
                first = (number << NODE_SHIFT) + (at << PAGES_PER_LEAF_SHIFT)
                if first + PAGES_PER_LEAF > start:
                    firsts.append(first)
                    olds.append(before[at])
                    news.append(after[at])
            if len(firsts) >= LEAVES_PER_NODE:
                self._load_all(chain(olds, news))
                yield firsts, olds, news
                firsts, olds, news = [], [], []
        self._load_all(chain(olds, news))
        yield firsts, olds, news

    def _load_all(self, leaves: Iterable[Leaf | None]) -> None:
        missing = [leaf for leaf in leaves if leaf is not None and leaf.pages is None]
        if missing:
            self._load(missing)
