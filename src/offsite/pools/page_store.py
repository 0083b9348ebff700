"""The data of a pool: one sparse file, or a block device.

Page 0 is the header, which tells the file from any other; all the others are images' pages. A page that is
not in use is a hole. Nothing here knows what a page is used for.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from offsite.errors import PoolFull, StateDirectoryError
from offsite.units import GIB, KIB, MIB

FILL_BYTES = 64 * KIB
PUNCH_BYTES_MAX = 16 * MIB  # at one call: the kernel keeps every writer of the file waiting for as long as it lasts
DEVICE_DISCARD_BYTES_MAX = GIB  # at the start, when nobody uses the device yet

_HEADER = struct.Struct("<16s16sQQ")  # magic, pool uuid, page size in bytes, pool size in bytes
_HEADER_PAGE_BYTES_MAX = 1 << 20
_MAGIC = b"OFFSITE POOL\0\0\0\1"

# fallocate(2), from <linux/falloc.h>
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x01, 0x02, 0x10
_libc = ctypes.CDLL(None, use_errno=True)


class PageStore:
    """An open data file. `descriptor` is for preadv and pwrite on the hot path."""

    def __init__(self, path: Path, descriptor: int, page_bytes: int, size_bytes: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.page_bytes = page_bytes
        self.size_bytes = size_bytes
        self.can_read_nowait = _can_read_nowait(descriptor)
        self._can_discard = True
        self.when_full: Callable[[], None] = lambda: None

    @classmethod
    def create(cls, path: Path, uuid: bytes, page_bytes: int, size_bytes: int) -> PageStore:
        """Makes the file, or takes a block device whose first page is all zero, and writes the header.

        Raises StateDirectoryError, having changed nothing, when something is there already or the disk refuses.
        """
        device = path.is_block_device()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (0 if device else os.O_CREAT | os.O_EXCL), 0o600)
        except FileExistsError:
            raise StateDirectoryError(f"{path} is there already; a pool is made in a new file") from None
        except OSError as error:
            raise StateDirectoryError(f"{path} cannot be made: {error.strerror}") from error
        store = cls(path, descriptor, page_bytes, size_bytes)
        if device and any(os.pread(descriptor, page_bytes, 0)):
            store.close()
            raise StateDirectoryError(
                f"the block device {path} is not empty: its first {page_bytes} bytes are not all zero; "
                "wipe it first if nobody needs what it holds"
            )
        try:
            if not device:
                os.ftruncate(descriptor, size_bytes)
            header = _HEADER.pack(_MAGIC, uuid, page_bytes, size_bytes)
            os.pwrite(descriptor, header.ljust(page_bytes, b"\0"), 0)
            os.fsync(descriptor)
            _sync_directory(path.parent)
        except OSError as error:
            store.remove()
            raise StateDirectoryError(f"{path} cannot hold a pool: {error.strerror}") from error
        return store

    @classmethod
    def open(cls, path: Path, uuid: bytes, page_bytes: int, size_bytes: int) -> PageStore:
        """Raises StateDirectoryError when the file is missing, short, or not that of this pool."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise StateDirectoryError(f"the pool's data file {path} cannot be opened: {error.strerror}") from error
        problem = _header_problem(descriptor, uuid, page_bytes, size_bytes)
        if problem:
            os.close(descriptor)
            raise StateDirectoryError(f"{path} {problem}")
        return cls(path, descriptor, page_bytes, size_bytes)

    def read(self, position: int, buffer: memoryview) -> None:
        """Fills `buffer` from `position`, waiting for the disk if need be."""
        while len(buffer):
            count = os.preadv(self.descriptor, [buffer], position)
            if not count:
                raise OSError(errno.EIO, f"{self.path} ends at {position}; it was cut off")
            position += count
            buffer = buffer[count:]

    def write(self, position: int, data: memoryview | bytes | bytearray) -> None:
        """Raises PoolFull when the file system under the pool is full."""
        try:
            count = os.pwrite(self.descriptor, data, position)
            while count < len(data):
                data = memoryview(data)[count:]
                position += count
                count = os.pwrite(self.descriptor, data, position)
        except OSError as error:
            self.tell_failed(error)

    def tell_failed(self, error: OSError) -> NoReturn:
        """Raises what a failed pwrite means: PoolFull, or the error itself."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.when_full()
            raise PoolFull(f"the file system under {self.path} is full") from error
        raise error

    def fill(self, position: int, data: memoryview) -> None:
        """As write, for new pages. The kernel caches what one call brings in folios as large as that, and in
        large ones every later write of 4 KiB takes longer: 4 µs instead of 2 (ext4, Linux 6.18)."""
        for at in range(0, len(data), FILL_BYTES):
            self.write(position + at, data[at : at + FILL_BYTES])

    def punch(self, first_page: int, count: int) -> None:
        """Gives pages back; they read as zero afterwards. A piece at a time, so that writers get in between."""
        for start, length in _pieces(first_page * self.page_bytes, count * self.page_bytes, PUNCH_BYTES_MAX):
            if self._can_discard and self._discard(start, length):
                continue
            failed = _fallocate(self.descriptor, _KEEP_SIZE | _ZERO_RANGE, start, length)  # the kernel writes zeros
            if failed:
                raise OSError(failed, f"{self.path}: cannot punch holes: {os.strerror(failed)}")

    def discard_from(self, first_page: int) -> bool:
        """Gives all pages from there on back, if that can be had without writing zeros; returns whether it could.

        In a file, only where there is data: most of a large one is a hole, and a call for each piece would take long.
        """
        start = first_page * self.page_bytes
        if self.path.is_block_device():
            pieces = _pieces(start, self.size_bytes - start, DEVICE_DISCARD_BYTES_MAX)
        else:
            pieces = _data(self.descriptor, start, self.size_bytes)
        for at, length in pieces:
            if not self._discard(at, length):
                break
        return self._can_discard

    def _discard(self, start: int, length: int) -> bool:
        if _fallocate(self.descriptor, _KEEP_SIZE | _PUNCH_HOLE, start, length):
            self._can_discard = False
        return self._can_discard

    def sync(self) -> None:
        os.fdatasync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)

    def remove(self) -> None:
        """Undoes `create`, and closes: the file is unlinked, a device is as empty as it was."""
        if self.path.is_block_device():
            os.pwrite(self.descriptor, bytes(self.page_bytes), 0)
        else:
            self.path.unlink()
        os.close(self.descriptor)


def is_left_over(path: Path) -> bool:
    """Whether a file is no more than an interrupted `PageStore.create` may have left: a header at most."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_HEADER_PAGE_BYTES_MAX)
        if any(head[_HEADER.size :]) or (any(head) and not head.startswith(_MAGIC)):
            return False
        try:
            os.lseek(file.fileno(), _HEADER_PAGE_BYTES_MAX, os.SEEK_DATA)
        except OSError as error:
            return error.errno == errno.ENXIO  # no data from there on
    return False


def device_bytes(path: Path) -> int:
    """The size of a block device. Raises StateDirectoryError."""
    try:
        with path.open("rb") as device:
            return device.seek(0, os.SEEK_END)
    except OSError as error:
        raise StateDirectoryError(f"the block device {path} cannot be opened: {error.strerror}") from error


def _header_problem(descriptor: int, uuid: bytes, page_bytes: int, size_bytes: int) -> str:
    header = os.pread(descriptor, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return f"has {len(header)} bytes; it was cut off"
    magic, its_uuid, its_page_bytes, its_size_bytes = _HEADER.unpack(header)
    if magic != _MAGIC:
        return "does not begin with the header of a pool of Offsite"
    if its_uuid != uuid:
        return f"belongs to another pool ({its_uuid.hex()}, not {uuid.hex()})"
    if (its_page_bytes, its_size_bytes) != (page_bytes, size_bytes):
        return (
            f"says it has {its_size_bytes} bytes in pages of {its_page_bytes}, "
            f"and the database says {size_bytes} in pages of {page_bytes}"
        )
    actual = os.lseek(descriptor, 0, os.SEEK_END)
    if actual < size_bytes:
        return f"has {actual} bytes and must have {size_bytes}; it was cut off"
    return ""


def _can_read_nowait(descriptor: int) -> bool:
    """preadv2's RWF_NOWAIT; some file systems do not know it."""
    try:
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def _pieces(start: int, length: int, most: int) -> Iterator[tuple[int, int]]:
    for at in range(start, start + length, most):
        yield at, min(most, start + length - at)


def _data(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(start, length) of where a file has data, in pieces that may be punched at one call."""
    while start < end:
        try:
            start = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from there on
                return
            raise
        stop = min(end, os.lseek(descriptor, start, os.SEEK_HOLE))
        yield from _pieces(start, stop - start, PUNCH_BYTES_MAX)
        start = stop


def _fallocate(descriptor: int, flags: int, start: int, length: int) -> int:
    """0, or EOPNOTSUPP; any other errno is raised."""
    while True:
        if not _libc.fallocate(descriptor, flags, ctypes.c_int64(start), ctypes.c_int64(length)):
            return 0
        error = ctypes.get_errno()
        if error == errno.EOPNOTSUPP:
            return error
        if error != errno.EINTR:
            raise OSError(error, f"fallocate: {os.strerror(error)}")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
