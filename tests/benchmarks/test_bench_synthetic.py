"""An image that counts as written in full must be one to the engine as well."""

from __future__ import annotations

from pathlib import Path

from benchmarks.synthetic import map_whole_image
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create, ExtentKind
from offsite.store.database import Database

SIZE_BYTES = 65 << 20


def test_every_page_is_mapped_and_stays_so(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    pool = LocalPool.create(database, "A", Path("pool-A.data"), 100 << 20)
    image_id = pool.apply([Create("Full", SIZE_BYTES)])[0].id
    map_whole_image(pool, image_id)
    pool.close()

    pool = LocalPool.load(database, "A")
    try:
        assert pool.image(image_id).allocated_bytes == SIZE_BYTES
        assert pool.capacity().allocated_bytes == SIZE_BYTES
        (extent,) = pool.difference(None, image_id)
        assert (extent.offset, extent.length, extent.kind) == (0, SIZE_BYTES, ExtentKind.DATA)
    finally:
        pool.close()
        database.close()
