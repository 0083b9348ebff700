"""Reading an image: one thread's handle on it, as far as it changes nothing. For writing: pools.local.open_image.

Looking up takes no lock where it can do without. Between finding a page and using it, another thread may give
this image a new page there, and the old one, now a snapshot's alone, may be written by the snapshot's host. So
what was found is looked up once more: before writing, that it is still ours to write in place; after reading,
that what was read was this image's all the while. It cannot have been away and come back meanwhile: a page
that was let go stays unused as long as we are inside, and only a Replace brings an old one back, from
outside the gate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from offsite.errors import VolumeNotFound
from offsite.pools.gate import IDLE, Visitor
from offsite.pools.local.core import PoolCore
from offsite.pools.local.image import Image
from offsite.pools.local.page_table import HOLE, LEAVES_PER_NODE, NODE_SHIFT, PAGES_PER_LEAF, PAGES_PER_LEAF_SHIFT

_ZERO_BYTES = 1 << 20
ZEROS = memoryview(bytes(_ZERO_BYTES))
_LEAF_MASK = LEAVES_PER_NODE - 1
PAGE_MASK = PAGES_PER_LEAF - 1


class ReadableImage(Visitor):
    """The half of LocalOpenImage that reads."""

    __slots__ = (
        "_descriptor",
        "_epochs",
        "_image",
        "_leaf_shift",
        "_node_shift",
        "_nodes",
        "_offset_mask",
        "_owners",
        "_page_shift",
        "_pool",
        "_read_flags",
        "allocation_bytes",
    )

    def __init__(self, pool: PoolCore, image: Image) -> None:
        super().__init__(image.visitors)
        self._pool = pool
        self._image = image
        self._epochs = pool.free_space
        self._nodes = image.nodes
        self._owners = pool.table.owners_view
        self._descriptor = pool.store.descriptor
        self._read_flags = os.RWF_NOWAIT if pool.store.can_read_nowait else 0
        self.allocation_bytes = pool.store.page_bytes
        self._page_shift = self.allocation_bytes.bit_length() - 1
        self._offset_mask = self.allocation_bytes - 1
        self._leaf_shift = self._page_shift + PAGES_PER_LEAF_SHIFT
        self._node_shift = self._page_shift + NODE_SHIFT

    @property
    def size_bytes(self) -> int:
        return self._image.size_bytes

    def begin(self) -> None:
        self.entered = self._epochs.epoch
        while self.visitors.gate is not None:
            self.wait_for_gate()
            self.entered = self._epochs.epoch
        if self._image.deleted:
            self.end()
            raise VolumeNotFound(f"{self._image.name!r} was deleted")

    def end(self) -> None:
        self.entered = IDLE
        gate = self.visitors.gate
        if gate is not None:
            gate.someone_left()

    def close(self) -> None:
        self.end()
        with self._pool.lock:
            self.visitors.remove(self)

    # -- reading -----------------------------------------------------------------------------------------

    def read_nowait(self, offset: int, buffer: memoryview) -> bool:
        length = len(buffer)
        within = offset & self._offset_mask
        if within + length > self.allocation_bytes:
            return self._read(offset, buffer, nowait=True)
        # The way through the table is written out here: a call for each level would cost a fifth of the read.
        node = self._nodes.get(offset >> self._node_shift)
        leaf = None if node is None else node.leaves[(offset >> self._leaf_shift) & _LEAF_MASK]
        if node is None or leaf is None:
            buffer[:] = ZEROS[:length]
            return True
        pages = leaf.pages
        if pages is None:
            return False
        page = pages[(offset >> self._page_shift) & PAGE_MASK]
        if page == HOLE:
            buffer[:] = ZEROS[:length]
            return True
        try:
            count = os.preadv(self._descriptor, (buffer,), (page << self._page_shift) + within, self._read_flags)
        except BlockingIOError:
            return False
        return (
            count == length
            and self._nodes.get(offset >> self._node_shift) is node
            and node.leaves[(offset >> self._leaf_shift) & _LEAF_MASK] is leaf
            and pages[(offset >> self._page_shift) & PAGE_MASK] == page
        )

    def read(self, offset: int, buffer: memoryview) -> None:
        self._read(offset, buffer, nowait=False)

    def _read(self, offset: int, buffer: memoryview, *, nowait: bool) -> bool:
        while True:
            pieces = list(self._pieces(offset, len(buffer)))
            if not self._read_pieces(pieces, buffer, nowait=nowait):
                return False
            if pieces == list(self._pieces(offset, len(buffer))):
                return True

    def _read_pieces(self, pieces: list[tuple[int, int | None]], buffer: memoryview, *, nowait: bool) -> bool:
        done = 0
        for length, position in pieces:
            piece = buffer[done : done + length]
            done += length
            if position is None:
                _fill_with_zeros(piece)
            elif nowait:
                try:
                    if os.preadv(self._descriptor, (piece,), position, self._read_flags) != length:
                        return False
                except BlockingIOError:
                    return False
            else:
                self._pool.store.read(position, piece)
        return True

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        run, run_has_data = 0, False
        for piece, position in self._pieces(offset, length):
            has_data = position is not None
            if run and has_data != run_has_data:
                yield run, run_has_data
                run = 0
            run, run_has_data = run + piece, has_data
        if run:
            yield run, run_has_data

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int | None]]:
        """(length, position in the data file or None for a hole) of what lies together, in order."""
        end = offset + length
        while offset < end:
            leaf_end = min(end, (offset >> self._leaf_shift) + 1 << self._leaf_shift)
            index = offset >> self._page_shift
            if index >> NODE_SHIFT not in self._nodes:
                leaf_end = min(end, (offset >> self._node_shift) + 1 << self._node_shift)
            leaf = self._pool.table.leaf_at(self._nodes, index)
            if leaf is None or leaf.pages is None:
                yield leaf_end - offset, None
                offset = leaf_end
                continue
            at = index & PAGE_MASK
            pages = leaf.pages[at : at + (leaf_end - 1 >> self._page_shift) - index + 1].tolist()
            for start, count in _runs(pages):
                run_end = min(leaf_end, (index + start + count) << self._page_shift)
                if pages[start] == HOLE:
                    yield run_end - offset, None
                else:
                    yield run_end - offset, (pages[start] << self._page_shift) + (offset & self._offset_mask)
                offset = run_end


def _fill_with_zeros(buffer: memoryview) -> None:
    for at in range(0, len(buffer), _ZERO_BYTES):
        piece = buffer[at : at + _ZERO_BYTES]
        piece[:] = ZEROS[: len(piece)]


def _runs(pages: list[int]) -> Iterator[tuple[int, int]]:
    """(start, count) of stretches of holes and of pages that follow one another."""
    first = pages[0]
    if first != HOLE and pages == list(range(first, first + len(pages))):
        yield 0, len(pages)  # the rule in what was written at one go, and quickly seen
        return
    start = 0
    for at in range(1, len(pages)):
        before = pages[at - 1]
        if pages[at] != (HOLE if before == HOLE else before + 1):
            yield start, at - start
            start = at
    yield start, len(pages) - start
