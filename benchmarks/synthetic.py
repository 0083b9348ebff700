"""Images that count as written in full, made by building their page tables instead of writing terabytes.

The pages are mapped, in order, to a stretch of the sparse data file that nobody wrote: they read as zero. To the
engine that is what any other data is; only the disk is spared.
"""

from __future__ import annotations

from offsite.pools.local import LocalPool


def map_whole_image(pool: LocalPool, image_id: int) -> None:
    """Maps every page of an image that is all hole. Raises PoolFull, with a part of it mapped."""
    with pool.lock:
        image = pool.find(image_id)
        count, index = -(-image.size_bytes // pool.store.page_bytes), 0
        while index < count:
            first, taken = pool.take(count - index)
            image.mapped_pages += taken - pool.table.set_pages(image.nodes, index, taken, first)
            index += taken
