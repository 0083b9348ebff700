"""What a host does to an image, in one line, and what must hold in a pool at any time."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection

from offsite.pools.local.page_table import HOLE, Leaf, Node
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import ImageInfo
from tests.pools.backends import inside
from tests.pools.pool_bench import PAGE, Bench
from tests.pools.pool_files import copy_sparse


def discard(pool: LocalPool, image_id: int, offset: int, length: int) -> None:
    with inside(pool, image_id) as opened:
        opened.discard(offset, length)


def read(pool: LocalPool, image_id: int, offset: int, length: int) -> bytes:
    """Reads twice, by either way, and both have to agree."""
    slow, quick = bytearray(b"\xee" * length), bytearray(b"\xee" * length)
    with inside(pool, image_id) as opened:
        opened.read(offset, memoryview(slow))
        if opened.read_nowait(offset, memoryview(quick)):
            assert slow == quick
    return bytes(slow)


def check_counts(pool: LocalPool) -> None:
    """P6: every count that the pool keeps equals a count from scratch. Only while no operation is under way."""
    with pool._commit_lock, pool.lock:  # not in the middle of what the tidier commits
        assert not pool._unneeded, "the tidier has not let go yet of what was deleted"
        table = pool.table
        node_owners: Counter[Node] = Counter(node for image in pool.by_id.values() for node in image.nodes.values())
        leaf_owners: Counter[Leaf] = Counter(leaf for node in node_owners for leaf in node.leaves if leaf is not None)
        leaf_owners.update(table.left_leaves)  # what was let go is still owned, until that is durable
        pages_of = _pages(pool, leaf_owners)
        page_owners: Counter[int] = Counter([*table.left_pages, *(int(p) for a in table.left_arrays for p in a)])
        mapped: dict[Leaf, int] = {}
        for leaf in leaf_owners:
            pages = [page for page in pages_of[leaf] if page != HOLE]
            page_owners.update(pages)
            mapped[leaf] = len(pages)
            assert len(set(pages)) == len(pages), "a leaf maps a page twice"
        assert {node: node.owners for node in node_owners} == node_owners
        assert {leaf: leaf.owners for leaf in leaf_owners} == leaf_owners
        counted = {int(page): int(table.owners[page]) for page in table.owners.nonzero()[0]}
        assert counted == page_owners
        assert table.used == len(page_owners)
        assert pool.capacity().allocated_bytes == len(page_owners) * pool.store.page_bytes
        for image in pool.by_id.values():
            leaves = [leaf for node in image.nodes.values() for leaf in node.leaves if leaf is not None]
            assert image.mapped_pages == sum(mapped[leaf] for leaf in leaves), image.name
        assert pool.names == {image.name: image.id for image in pool.by_id.values()}


def _pages(pool: LocalPool, leaves: Iterable[Leaf]) -> dict[Leaf, array[int]]:
    """The pages of each leaf, without loading those that are not: loading on demand is under test too."""
    pages = {}
    with pool.database.read() as connection:
        for leaf in leaves:
            rows = connection.exec_driver_sql("SELECT pages FROM leaves WHERE id = ?", (leaf.id,))
            pages[leaf] = leaf.pages if leaf.pages is not None else array("I", rows.scalar_one())
    return pages


def check_free_pages_are_holes(pool: LocalPool) -> None:
    """Frees what can be freed; then no data may be left but the header's and that of pages in use, and all the
    rest must be free to be taken."""
    pool.flush()
    pool.reclaim()
    page_bytes = pool.store.page_bytes
    position, end = 0, os.lseek(pool.store.descriptor, 0, os.SEEK_END)
    while position < end:
        try:
            start = os.lseek(pool.store.descriptor, position, os.SEEK_DATA)
        except OSError:  # ENXIO: no data from here on
            break
        position = os.lseek(pool.store.descriptor, start, os.SEEK_HOLE)
        for page in range(start // page_bytes, -(-position // page_bytes)):
            assert page == 0 or pool.table.owners[page], f"free page {page} holds data"
    assert pool.free_space.zeroed_pages == len(pool.table.owners) - 1 - pool.table.used


def state(pool: LocalPool) -> object:
    """All that a refused change must leave as it was."""
    contents = {}
    for info in pool.images():
        contents[info.id] = read(pool, info.id, 0, min(info.size_bytes, 64 * PAGE))
    return sorted(pool.images(), key=lambda info: info.id), contents, pool.capacity()


def fail(_connection: Connection, _images: Sequence[ImageInfo]) -> None:
    raise ZeroDivisionError("records that cannot be written")


def after_a_crash(bench: Bench) -> LocalPool:
    """The pool as it is found when power fails now: nothing more gets to the disk."""
    copy_sparse(bench.directory, bench.directory / "crashed")
    crashed = Bench(bench.directory / "crashed")
    pool = LocalPool.load(crashed.database, "A")
    bench.crashed.append((crashed, pool))
    return pool
