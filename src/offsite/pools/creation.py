"""Making a pool: its data file, and the row that names it.

nothing ──► a file with a header ──► the row: the pool is there
                 │ power fails
                 ▼
           left over: made anew at the next try
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from offsite.errors import BadParameter, NameInUse
from offsite.pools.page_store import PageStore, device_bytes, is_left_over
from offsite.pools.protocol import SIZE_BYTES_MAX
from offsite.pools.space import Thresholds
from offsite.store import tables
from offsite.store.database import Database
from offsite.units import KIB, MIB

PAGE_BYTES = 16 * KIB
PAGE_BYTES_MIN, PAGE_BYTES_MAX = 4 * KIB, MIB
PAGES_MIN, PAGES_MAX = 16, 1 << 32


def make_pool(database: Database, name: str, path: Path, size_bytes: int, page_bytes: int, *, overcommit: bool) -> None:
    """See LocalPool.create. Whatever it raises, it leaves neither file nor row."""
    if page_bytes.bit_count() != 1 or not PAGE_BYTES_MIN <= page_bytes <= PAGE_BYTES_MAX:
        raise BadParameter(f"page size {page_bytes} bytes is not a power of two from 4096 to 1048576")
    full_path = database.path.parent / path
    if full_path.is_block_device():
        size_bytes = min(size_bytes or SIZE_BYTES_MAX, device_bytes(full_path))
    pages = size_bytes // page_bytes
    if not PAGES_MIN <= pages <= PAGES_MAX:
        raise BadParameter(
            f"pool size {size_bytes} bytes is {pages} pages of {page_bytes} bytes; "
            f"{PAGES_MIN} to {PAGES_MAX} are allowed"
        )
    pool_uuid = uuid.uuid4()
    thresholds = Thresholds()
    row = insert(tables.pools.pools).values(
        uuid=pool_uuid.hex,
        name=name,
        path=str(path),
        page_bytes=page_bytes,
        size_bytes=pages * page_bytes,
        overcommit=overcommit,
        low_threshold_percent=thresholds.low,
        middle_threshold_percent=thresholds.middle,
        high_threshold_percent=thresholds.high,
        created_at=time.time(),
    )
    if not path.is_absolute() and is_left_over(full_path) and not _is_named(database, path):
        full_path.unlink()
    store = PageStore.create(full_path, pool_uuid.bytes, page_bytes, pages * page_bytes)
    try:
        with database.transaction() as connection:
            connection.execute(row)
    except IntegrityError as error:
        store.remove()
        raise NameInUse(f"there is a pool {name!r} already") from error
    except BaseException:
        store.remove()
        raise
    store.close()


def _is_named(database: Database, path: Path) -> bool:
    """Whether a pool is in that file, by the database."""
    pools = tables.pools.pools
    with database.read() as connection:
        return connection.execute(select(pools.c.id).where(pools.c.path == str(path))).first() is not None
