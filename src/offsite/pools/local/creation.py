"""Making a pool: its data file, and the row that names it; and deleting one.

nothing ──► a file with a header ──► the row: the pool is there ──► a row of remains ──► no file ──► nothing
                 │ power fails                                           │ power fails
                 ▼                                                       ▼
           left over: made anew at the next try                    removed at the next start, or at the next try
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from sqlalchemy import select

from offsite.errors import BadParameter, InUse, StateDirectoryError
from offsite.pools import pool_rows, tables
from offsite.pools.local.devices import NewDevice, device_bytes, found_on, wipe_ends
from offsite.pools.local.header import HEADER_BYTES, Generation, Header
from offsite.pools.local.page_store import PageStore, is_left_over, open_device
from offsite.pools.protocol import SIZE_BYTES_MAX
from offsite.store.database import Database
from offsite.store.tables import system as system_table
from offsite.units import KIB, MIB

BACKEND = "local"
PAGE_BYTES = 16 * KIB
PAGE_BYTES_MIN, PAGE_BYTES_MAX = 4 * KIB, MIB
PAGES_MIN, PAGES_MAX = 16, 1 << 32

_pools = tables.pools


def make_pool(
    database: Database,
    name: str,
    path: Path,
    size_bytes: int,
    page_bytes: int,
    *,
    overcommit: bool,
    overwrite: bool = False,
) -> PageStore:
    """See LocalPool.create. Whatever it raises, it leaves neither file nor row, and a device as it was."""
    if page_bytes.bit_count() != 1 or not PAGE_BYTES_MIN <= page_bytes <= PAGE_BYTES_MAX:
        raise BadParameter(f"page size {page_bytes} bytes is not a power of two from 4096 to 1048576")
    full_path = database.path.parent / path
    is_device = full_path.is_block_device()
    if is_device:
        size_bytes = min(size_bytes or SIZE_BYTES_MAX, device_bytes(full_path))
    pages = size_bytes // page_bytes
    if not PAGES_MIN <= pages <= PAGES_MAX:
        raise BadParameter(
            f"pool size {size_bytes} bytes is {pages} pages of {page_bytes} bytes; "
            f"{PAGES_MIN} to {PAGES_MAX} are allowed"
        )
    with database.read() as connection:
        pool_rows.check_new_pool(connection, name)
    header = _new_header(database, name, page_bytes, pages * page_bytes)
    if is_device:
        return _on_device(database, full_path, path, header, overcommit, overwrite)
    return _in_file(database, full_path, path, header, overcommit)


def _in_file(database: Database, full_path: Path, path: Path, header: Header, overcommit: bool) -> PageStore:
    clear_remains(database, full_path)
    if not path.is_absolute() and is_left_over(full_path) and not _is_named(database, path):
        full_path.unlink()
    store = PageStore.create(full_path, header)
    try:
        _insert(database, path, header, overcommit)
    except BaseException:
        full_path.unlink()
        store.close()
        raise
    return store


def _on_device(
    database: Database, full_path: Path, path: Path, header: Header, overcommit: bool, overwrite: bool
) -> PageStore:
    device = NewDevice(full_path, header, lambda found: _is_of_no_pool(database, found), overwrite=overwrite)
    try:
        _insert(database, path, header, overcommit)
    except BaseException:
        device.put_back()
        raise
    try:
        device.settle()
    except OSError as error:
        device.store.close()
        unmake_pool(database, header)
        raise StateDirectoryError(f"the block device {full_path} cannot hold a pool: {error.strerror}") from error
    return device.store


def contents_of_device(database: Database, path: Path) -> str:
    """What a pool on the device would overwrite; empty if nothing is there. Raises InUse, or StateDirectoryError."""
    return found_on(path, lambda found: _is_of_no_pool(database, found))


def _new_header(database: Database, name: str, page_bytes: int, size_bytes: int) -> Header:
    with database.read() as connection:
        system = connection.execute(select(system_table)).first()
    system_uuid, system_name = (uuid.UUID(system.uuid).bytes, system.name) if system else (bytes(16), "")
    return Header(uuid.uuid4().bytes, page_bytes, size_bytes, Generation.first(), system_uuid, name, system_name)


def _insert(database: Database, path: Path, header: Header, overcommit: bool) -> None:
    assert header.generation is not None
    with database.transaction() as connection:
        pool_rows.insert_pool(
            connection,
            backend=BACKEND,
            uuid=header.pool.hex(),
            name=header.pool_name,
            path=str(path),
            page_bytes=header.page_bytes,
            size_bytes=header.size_bytes,
            overcommit=overcommit,
            generation=header.generation.text,
            previous_generation=header.generation.text,
        )


def _is_named(database: Database, path: Path) -> bool:
    """Whether a pool is in that file, by the database."""
    with database.read() as connection:
        return connection.execute(select(_pools.c.id).where(_pools.c.path == str(path))).first() is not None


def _is_of_no_pool(database: Database, header: Header) -> bool:
    """Whether this system has made the header, for a pool that there was never or is not any more."""
    with database.read() as connection:
        system = connection.execute(select(system_table.c.uuid)).scalar()
        known = connection.execute(select(_pools.c.id).where(_pools.c.uuid == header.pool.hex())).first()
    return system is not None and uuid.UUID(system).bytes == header.system and known is None


def unmake_pool(database: Database, header: Header) -> None:
    """Of a pool that could not be opened as soon as it was made, and that is closed: no row stays, and no file. Should
    the database fail as well, it stays as an empty pool, and the file for the next try."""
    with suppress(StateDirectoryError):
        with database.transaction() as connection:
            row = connection.execute(select(_pools).where(_pools.c.uuid == header.pool.hex())).one()
            pool_rows.delete_pool(connection, row.id)
        clear_remains(database, database.path.parent / row.path)


# -- deletion ------------------------------------------------------------------------------------------------


def clear_remains(database: Database, only: Path | None = None) -> list[str]:
    """Removes the files of deleted pools; returns a sentence for each that cannot be removed now."""
    problems = []
    for row in pool_rows.remains(database, BACKEND):
        path = database.path.parent / row.path
        if only is not None and path != only:
            continue
        try:
            _remove(path, bytes.fromhex(row.uuid))
            pool_rows.forget_remains(database, row.uuid)
        except (OSError, InUse, StateDirectoryError) as error:
            problems.append(f"{path}, the file of a deleted pool, cannot be removed: {error}")
    return problems


def _remove(path: Path, pool_uuid: bytes) -> None:
    """Only what still is that pool's: somebody may have put another file there. It can be repeated."""
    if path.is_block_device():
        descriptor = open_device(path)
        try:
            if _pool_of(descriptor) == pool_uuid:
                wipe_ends(descriptor)
        finally:
            os.close(descriptor)
    elif path.is_file():
        with path.open("rb") as file:
            is_its = _pool_of(file.fileno()) == pool_uuid
        if is_its:
            path.unlink()


def _pool_of(descriptor: int) -> bytes | None:
    header = Header.unpacked(os.pread(descriptor, HEADER_BYTES, 0))
    return header.pool if isinstance(header, Header) else None
