"""Writing an image: one thread's handle on it. For reading: pools.local.image_reading.

A write to a page that only this image owns goes straight to its place. Any other goes to a new page:

    look up, pin the old page, take a new one      under the pool's lock
    write (for a part of a page: the rest is copied from the old one)
    still the same old page there? map the new     under the lock; else give back and start over

The pin is one owner more, so that while we copy nobody else finds the old page their own and writes to it.

What was looked up without a lock is looked up once more before writing in place: that it is still ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from offsite.errors import BadParameter, PoolFull, StateDirectoryFull
from offsite.pools.local.image_reading import PAGE_MASK, ZEROS, ReadableImage
from offsite.pools.local.page_table import HOLE, LEAVES_PER_NODE, NODE_SHIFT, PAGES_PER_LEAF

_LEAF_MASK = LEAVES_PER_NODE - 1
_ZERO_BYTES = len(ZEROS)


class LocalOpenImage(ReadableImage):
    """See OpenImage. Not to be shared by threads."""

    __slots__ = ()

    def write(self, offset: int, data: memoryview) -> None:
        length = len(data)
        within = offset & self._offset_mask
        if within + length <= self.allocation_bytes:
            node = self._nodes.get(offset >> self._node_shift)
            if node is not None and node.owners == 1:
                leaf = node.leaves[(offset >> self._leaf_shift) & _LEAF_MASK]
                if leaf is not None and leaf.owners == 1 and leaf.pages is not None:
                    page = leaf.pages[(offset >> self._page_shift) & PAGE_MASK]
                    if (
                        page != HOLE
                        and self._owners[page] == 1
                        and self._nodes.get(offset >> self._node_shift) is node
                        and node.leaves[(offset >> self._leaf_shift) & _LEAF_MASK] is leaf
                        and leaf.pages[(offset >> self._page_shift) & PAGE_MASK] == page
                    ):
                        position = (page << self._page_shift) + within
                        try:
                            if os.pwrite(self._descriptor, data, position) < length:
                                self._pool.store.write(position, data)  # it was cut short: once more, to the end
                        except PoolFull as refusal:
                            self._pool.report_full(refusal)
                            raise
                        except OSError as error:
                            self._tell_failed(error)
                        return
            self._with_space(self._write_within_page, offset, data)
            return
        self._write_across_pages(offset, data)

    def _tell_failed(self, error: OSError) -> NoReturn:
        try:
            self._pool.store.tell_failed(error)
        except PoolFull as refusal:
            self._pool.report_full(refusal)
            raise

    def _write_across_pages(self, offset: int, data: memoryview) -> None:
        head = -offset & self._offset_mask
        if head:
            self.write(offset, data[:head])
        whole_end = len(data) - (offset + len(data) & self._offset_mask)
        at = head
        while at < whole_end:
            at += self._with_space(self._write_whole_pages, offset + at, data[at:whole_end])
        if whole_end < len(data):
            self.write(offset + whole_end, data[whole_end:])

    def _write_whole_pages(self, offset: int, data: memoryview) -> int:
        """Writes one or more pages that lie together; returns how many bytes that were."""
        pool, index = self._pool, offset >> self._page_shift
        with pool.lock:
            count, position = self._alike(index, len(data) >> self._page_shift)
        if position is not None:
            pool.store.write(position, data[: count << self._page_shift])
            return count << self._page_shift
        first, count = pool.take(count)
        length = count << self._page_shift
        try:
            pool.store.fill(first << self._page_shift, data[:length])
        except BaseException:
            pool.give_back(first, count)
            raise
        with pool.lock:
            self._image.mapped_pages += count - pool.table.set_pages(self._nodes, index, count, first)
        return length

    def _write_within_page(self, offset: int, data: memoryview) -> int:
        if not len(data):
            return 0
        pool, index = self._pool, offset >> self._page_shift
        within = offset & self._offset_mask
        while True:
            with pool.lock:
                old = pool.table.page_at(self._nodes, index)
                owned = old != HOLE and pool.table.is_owned(self._nodes, index, old)
                if not owned and old != HOLE:
                    pool.table.hold_page(old)
            if owned:
                pool.store.write((old << self._page_shift) + within, data)
                return len(data)
            try:
                new, _ = pool.take(1, to_overwrite=old != HOLE or len(data) == self.allocation_bytes)
                self._fill(new, old, within, data)
            except BaseException:
                with pool.lock:
                    if old != HOLE:
                        pool.table.drop_page(old)
                raise
            with pool.lock:
                done = pool.table.page_at(self._nodes, index) == old
                if done:
                    pool.table.set_page(self._nodes, index, new)
                    self._image.mapped_pages += old == HOLE
                if old != HOLE:
                    pool.table.drop_page(old)
            if done:
                return len(data)
            pool.give_back(new, 1)

    def _fill(self, new: int, old: int, within: int, data: memoryview) -> None:
        """Writes `data` to a new page, and around it what the old page holds."""
        store = self._pool.store
        try:
            if old == HOLE or len(data) == self.allocation_bytes:
                store.write((new << self._page_shift) + within, data)
                return
            copy = memoryview(bytearray(self.allocation_bytes))
            store.read(old << self._page_shift, copy)
            copy[within : within + len(data)] = data
            store.write(new << self._page_shift, copy)
        except BaseException:
            self._pool.give_back(new, 1)
            raise

    def _alike(self, index: int, count: int) -> tuple[int, int | None]:
        """How many pages from `index` on can be written alike: (pages, position) of those that are this
        image's own and lie together, or (pages, None) of those that need new pages. Under the pool's lock."""
        count = min(count, PAGES_PER_LEAF - (index & PAGE_MASK))
        leaf = self._pool.table.leaf_at(self._nodes, index)
        if leaf is None or leaf.pages is None or leaf.owners != 1 or self._nodes[index >> NODE_SHIFT].owners != 1:
            return count, None
        at = index & PAGE_MASK
        pages = leaf.pages[at : at + count].tolist()
        owned = [page != HOLE and self._owners[page] == 1 for page in pages]
        if not owned[0]:
            return (owned.index(True) if True in owned else count), None
        run = 1
        while run < count and owned[run] and pages[run] == pages[0] + run:
            run += 1
        return run, pages[0] << self._page_shift

    def _with_space(
        self, write: Callable[[int, memoryview], int], offset: int, data: memoryview, *, is_told: bool = True
    ) -> int:
        """Does `write`. Should the pool be full while pages are on their way to be free, waits for these, and does
        it once more, from the start: what it had found may have changed meanwhile. Tells the operator of a refusal,
        if that `is_told`."""
        pool = self._pool
        try:
            if len(pool.table.dirty_leaves) >= pool.dirty_leaves_max:
                self._wait_outside(pool.flush)
            try:
                return write(offset, data)
            except PoolFull:
                if not pool.has_pages_to_reclaim():
                    raise
            self._wait_outside(pool.make_space)
            return write(offset, data)
        except PoolFull as refusal:
            if is_told:
                pool.report_full(refusal)
            raise

    def _wait_outside(self, work: Callable[[], None]) -> None:
        """Pages are not freed while we stand inside, since we might still see them. Raises PoolFull when the disk is
        so full that not even that could be done."""
        size_bytes = self.size_bytes
        self.end()
        try:
            work()
        except StateDirectoryFull as error:
            raise PoolFull(str(error)) from error
        finally:
            self.begin()
        if self.size_bytes < size_bytes:
            raise BadParameter(f"{self._image.name!r} was shrunk while a write to it waited for space")

    # -- giving back ---------------------------------------------------------------------------------------

    def write_zeroes(self, offset: int, length: int, *, allocate: bool = False) -> None:
        if allocate:
            for at in range(0, length, _ZERO_BYTES):
                self.write(offset + at, ZEROS[: min(_ZERO_BYTES, length - at)])
            return
        end = offset + length
        whole_start = min(end, offset + self._offset_mask & ~self._offset_mask)
        self._zero_part(offset, whole_start, self.write)
        self._zero_part(self._unmap(whole_start, end), end, self.write)

    def discard(self, offset: int, length: int) -> None:
        """The whole pages first: a full pool has to take a discard, though zeros at its ends may need new pages."""
        end = offset + length
        whole_start = min(end, offset + self._offset_mask & ~self._offset_mask)
        whole_end = self._unmap(whole_start, end)
        for start, stop in ((offset, whole_start), (whole_end, end)):
            with suppress(PoolFull):
                self._zero_part(start, stop, self._write_untold)

    def _write_untold(self, offset: int, data: memoryview) -> None:
        """Within a page. That there is no space for it is no trouble that the operator should hear of."""
        self._with_space(self._write_within_page, offset, data, is_told=False)

    def _unmap(self, offset: int, end: int) -> int:
        """Makes holes of the whole pages from `offset`, where one begins, to `end`; returns where what is left of the
        last page begins, or `end`."""
        pool = self._pool
        while offset < end:
            if offset >> self._node_shift not in self._nodes:
                offset = (offset >> self._node_shift) + 1 << self._node_shift
                continue
            if len(pool.table.dirty_leaves) >= pool.dirty_leaves_max:
                self._wait_for_commit()
            # A leaf at a time, or a discard of terabytes would keep everyone from the lock.
            stop = min(self._whole_end(end), (offset >> self._leaf_shift) + 1 << self._leaf_shift)
            if stop <= offset:
                break
            first, count = offset >> self._page_shift, stop - offset >> self._page_shift
            with pool.lock:
                self._image.mapped_pages -= pool.table.set_pages(self._nodes, first, count, None)
            offset = stop
        return min(offset, end)

    def _whole_end(self, end: int) -> int:
        """Where the last page ends that lies before `end` whole. Behind the end of the image, which may have grown
        while we waited, lies nothing."""
        return (end + self._offset_mask if end == self._image.size_bytes else end) & ~self._offset_mask

    def _wait_for_commit(self) -> None:
        try:
            self._wait_outside(self._pool.flush)
        except PoolFull as refusal:
            self._pool.report_full(refusal)
            raise

    def _zero_part(self, offset: int, end: int, write: Callable[[int, memoryview], None]) -> None:
        """Zeros in parts of at most two pages; a hole stays one."""
        while offset < end:
            piece = min(end - offset, self.allocation_bytes - (offset & self._offset_mask))
            if self._pool.table.page_at(self._nodes, offset >> self._page_shift) != HOLE:
                write(offset, ZEROS[:piece])
            offset += piece
