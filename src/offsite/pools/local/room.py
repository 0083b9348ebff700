"""How many more pages the file system under a pool takes: a sparse file can be larger than what is left for it.

A part of what is free is not for data. It is for the database, which has to grow with every commit, and for whatever
the file system itself needs to give space back: without it, a disk full of data could not be emptied again.
"""

from __future__ import annotations

from pathlib import Path

from offsite.pools.local.page_store import PageStore
from offsite.store.free_space import UNLIMITED_BYTES, FileSystem, file_system, mount_point
from offsite.store.reserve import RESERVE_BYTES
from offsite.units import GIB, MIB, format_size

KEPT_FREE_BYTES_MAX = 64 * MIB
PAGE_TABLES_SHARE = 16  # a row of 1 KiB for each page of 16 KiB at worst, and the database's own overhead
FIRST_POOL_BYTES_MAX = 32 << 40
_SMALL_SHARE = 8  # of a small disk, one part in so many is kept free


def kept_free_bytes(disk: FileSystem) -> int:
    """What data leaves free of it."""
    return min(KEPT_FREE_BYTES_MAX, disk.size_bytes // _SMALL_SHARE)


def first_pool_bytes(directory: Path) -> int:
    """For a new system: what is free on the file system, without what the database needs: what data always leaves free
    there, the reserve, and a share for the page tables of snapshots. In whole GiB, or MiB where there is less."""
    disk = file_system(directory)
    free = disk.free_bytes - kept_free_bytes(disk) - RESERVE_BYTES
    free -= free // PAGE_TABLES_SHARE
    step = GIB if free >= GIB else MIB
    return max(0, min(free // step * step, FIRST_POOL_BYTES_MAX))


class Room:
    """Asks the file system. A block device has all the room that it is long."""

    def __init__(self, store: PageStore) -> None:
        self._store = store
        self._is_device = store.path.is_block_device()

    def bytes_left(self, promised_bytes: int, unsynced_bytes: int) -> int:
        """For new pages, when so many bytes of pages are in use, and so many of them have not been synced yet.

        Pages that were written in part only, which the file has holes for, take the rest of their room later, and
        nobody looks then: a write in place has to find it. So what is promised and not stored counts as taken.

        What is unsynced counts twice on most file systems, which is put right by a sync; but others (NFS) tell that
        they have no space only then, when data has been acknowledged and is lost.
        """
        if self._is_device:
            return UNLIMITED_BYTES
        disk = file_system(self._store.descriptor)
        owed_bytes = max(self._missing_bytes(promised_bytes), unsynced_bytes)
        return max(0, disk.free_bytes - kept_free_bytes(disk) - owed_bytes)

    def _missing_bytes(self, promised_bytes: int) -> int:
        stored_bytes = self._store.stored_bytes()
        return 0 if stored_bytes is None else max(0, promised_bytes - stored_bytes)

    @property
    def is_read_only(self) -> bool:
        return file_system(self._store.descriptor).is_read_only

    def full_sentence(self, promised_bytes: int) -> str:
        disk, missing_bytes = file_system(self._store.descriptor), self._missing_bytes(promised_bytes)
        rest = f", and {format_size(missing_bytes)} to the rest of pages written in part" if missing_bytes else ""
        return (
            f"the file system at {self.place} is full ({format_size(disk.free_bytes)} of "
            f"{format_size(disk.size_bytes)} are free, and data leaves {format_size(kept_free_bytes(disk))} to the "
            f"database{rest})"
        )

    @property
    def place(self) -> Path:
        return mount_point(self._store.path)
