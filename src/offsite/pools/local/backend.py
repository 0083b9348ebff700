"""The backend whose pools are on local files and block devices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offsite.errors import RESTORE_WHOLE, BadParameter, StateDirectoryError
from offsite.escaping import shown
from offsite.events import Report, ignore
from offsite.pools import pool_rows
from offsite.pools.backend import Capabilities, NewPool
from offsite.pools.local.creation import (
    BACKEND,
    PAGE_BYTES,
    PAGE_BYTES_MAX,
    PAGE_BYTES_MIN,
    clear_remains,
    contents_of_device,
)
from offsite.pools.local.header import Expected
from offsite.pools.local.page_store import PageStore
from offsite.pools.local.pool import LocalPool
from offsite.pools.local.room import first_pool_bytes
from offsite.store.database import Database
from offsite.units import format_size


class LocalBackend:
    """See PoolBackend."""

    name = BACKEND
    capabilities = Capabilities(frozenset({"size", "device", "page-size", "overwrite"}), joins_transaction=True)

    def location(self, database: Database, new: NewPool) -> str:
        del database
        return str(_path(new))

    def contents(self, database: Database, new: NewPool) -> str:
        path = _path(new)
        return contents_of_device(database, path) if new.device is not None and new.overwrite else ""

    def first_size_bytes(self, directory: Path) -> int:
        return first_pool_bytes(directory)

    def create(self, database: Database, new: NewPool, report: Report = ignore) -> LocalPool:
        path, page_bytes = _path(new), new.allocation_bytes or PAGE_BYTES
        return LocalPool.create(
            database,
            new.name,
            path,
            new.size_bytes or 0,
            page_bytes,
            overcommit=new.overcommit,
            overwrite=new.overwrite,
            report=report,
        )

    def private_files(self, directory: Path, row: Mapping[str, Any]) -> list[Path]:
        path = directory / row["path"]
        if not path.exists():
            raise StateDirectoryError(
                f"{path}, the data of pool {row['name']}, is missing; {RESTORE_WHOLE}; nothing was changed"
            )
        return [] if path.is_block_device() else [path]  # a device belongs to the machine

    def attach(self, directory: Path, row: Mapping[str, Any], system_uuid: str | None) -> PageStore:
        return PageStore.open(directory / row["path"], Expected.of_row(row, system_uuid))

    def open(
        self, database: Database, name: str, report: Report = ignore, attached: PageStore | None = None
    ) -> LocalPool:
        return LocalPool.opened(database, name, report, attached)

    def destroy(self, database: Database, pool_id: int) -> None:
        with database.transaction() as connection:
            pool_rows.delete_pool(connection, pool_id)

    def clear_remains(self, database: Database) -> list[str]:
        return clear_remains(database)


def _path(new: NewPool) -> Path:
    """Of the data file, in the state directory; or of the device. Raises BadParameter."""
    if (new.size_bytes is None) == (new.device is None):
        raise BadParameter("give either size, for a pool in a file, or device, but not both")
    if new.overwrite and new.device is None:
        raise BadParameter("overwrite requires device; a pool without one is created in a new file")
    page_bytes = new.allocation_bytes or PAGE_BYTES
    if page_bytes.bit_count() != 1 or not PAGE_BYTES_MIN <= page_bytes <= PAGE_BYTES_MAX:
        raise BadParameter(
            f"page-size {page_bytes} bytes is not a power of two from {format_size(PAGE_BYTES_MIN)} to "
            f"{format_size(PAGE_BYTES_MAX)}"
        )
    if new.device is None:
        return Path(f"pool-{new.name}.data")
    path = Path(new.device)
    if not path.is_absolute() or not path.is_block_device():
        raise BadParameter(f"device {shown(new.device)} is not the absolute path of a block device")
    return path
