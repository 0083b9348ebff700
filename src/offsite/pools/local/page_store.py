"""The data of a pool: one sparse file, or a block device.

Page 0 is the header, which tells the file from any other; all the others are images' pages. A page that is
not in use is a hole. Nothing here knows what a page is used for.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from offsite.errors import DoNotBelongTogether, InUse, PoolFull, StateDirectoryError
from offsite.pools.local.header import HEADER_BYTES, HEADER_BYTES_MAX, Expected, Header, is_header
from offsite.store.free_space import mount_point
from offsite.units import GIB, KIB, MIB

FILL_BYTES = 64 * KIB
HEADER_WRITTEN_BYTES = 4 * KIB  # a disk writes so much whole, or not
PUNCH_BYTES_MAX = 16 * MIB  # at one call: the kernel keeps every writer of the file waiting for as long as it lasts
DEVICE_DISCARD_BYTES_MAX = GIB  # at the start, when nobody uses the device yet

# fallocate(2), from <linux/falloc.h>
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x01, 0x02, 0x10
_libc = ctypes.CDLL(None, use_errno=True)


class PageStore:
    """An open data file, which nobody else has until it is closed. `descriptor` is for preadv and pwrite on the hot
    path."""

    def __init__(self, path: Path, descriptor: int, header: Header) -> None:
        self.path = path
        self.descriptor = descriptor
        self.header = header
        self.page_bytes = header.page_bytes
        self.size_bytes = header.size_bytes
        self.can_read_nowait = _can_read_nowait(descriptor)
        self._can_discard = True

    @classmethod
    def create(cls, path: Path, header: Header) -> PageStore:
        """Makes the file and writes the header.

        Raises StateDirectoryError, having changed nothing, when something is there already or the disk refuses.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise StateDirectoryError(f"{path} exists already; a pool is created in a new file") from None
        except OSError as error:
            raise StateDirectoryError(f"{path} cannot be created: {error.strerror}") from error
        store = cls(path, descriptor, header)
        try:
            os.fchmod(descriptor, 0o600)
            _lock(descriptor, path)
            os.ftruncate(descriptor, header.size_bytes)
            store.write_header(header)
            os.fsync(descriptor)
            _sync_directory(path.parent)
        except (OSError, InUse) as error:
            path.unlink()
            store.close()
            why = error.strerror if isinstance(error, OSError) else error
            raise StateDirectoryError(f"{path} cannot hold a pool: {why}") from error
        return store

    @classmethod
    def open(cls, path: Path, expected: Expected) -> PageStore:
        """Changes nothing. Raises StateDirectoryError when the file is missing or in use, DoNotBelongTogether when it
        is not what the database expects."""
        try:
            descriptor = _open_for_itself(path)
        except OSError as error:
            raise StateDirectoryError(
                f"{path}, the data of pool {expected.name}, cannot be opened: {error.strerror}"
            ) from error
        except InUse as error:
            raise StateDirectoryError(str(error)) from error
        try:
            header = Header.unpacked(os.pread(descriptor, HEADER_BYTES, 0))
            problem = expected.problem(header, os.lseek(descriptor, 0, os.SEEK_END))
            if problem:
                raise DoNotBelongTogether(f"{path} {problem}; nothing was changed")
            assert isinstance(header, Header)
            return cls(path, descriptor, header)
        except BaseException:
            os.close(descriptor)
            raise

    def write_header(self, header: Header) -> None:
        """Durable with the next sync."""
        os.pwrite(self.descriptor, header.packed().ljust(HEADER_WRITTEN_BYTES, b"\0"), 0)
        self.header = header

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
            raise PoolFull(f"the file system at {mount_point(self.path)}, or a quota on it, is full") from error
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

    def stored_bytes(self) -> int | None:
        """What the file takes of its file system; none for one that does not tell."""
        return os.fstat(self.descriptor).st_blocks * 512 or None  # the header alone would be some

    def sync(self) -> None:
        os.fdatasync(self.descriptor)

    def sync_file_system(self) -> None:
        """All of it, with what it knows of free space. Errors are told by the next `sync`."""
        _libc.syncfs(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)


def open_device(path: Path) -> int:
    """Opens a block device for this process alone, until it is closed. Raises InUse, or StateDirectoryError."""
    try:
        return _open_for_itself(path)
    except OSError as error:
        raise StateDirectoryError(f"the block device {path} cannot be opened: {error.strerror}") from error


def _open_for_itself(path: Path) -> int:
    """Raises InUse when anybody has it, by whatever name, and OSError.

    A block device is claimed from the kernel, which knows of mounts, partitions, RAID and other programs that did
    the same. It is not locked with flock as well: for udev that means that the device is just being changed, and it
    would put off all its events for as long as the pool is in use.
    """
    device = path.is_block_device()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if device else 0))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InUse(
                f"the block device {path} is in use: it or a part of it is mounted, belongs to a volume manager or a "
                "RAID, or is open in another program"
            ) from error
        raise
    if not device:
        try:
            _lock(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _lock(descriptor: int, path: Path) -> None:
    """Ends with the process, however that ends. It holds for the file, whatever its name and wherever it is seen."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "it is neither a file nor a block device")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InUse(f"{path} is in use by another process; stop that process first") from error


def is_left_over(path: Path) -> bool:
    """Whether a file is no more than an interrupted `PageStore.create` may have left: a header at most."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        try:
            _lock(file.fileno(), path)
        except InUse:
            return False  # somebody is just making it
        head = file.read(HEADER_BYTES_MAX)
        if any(head[HEADER_BYTES:]) or (any(head) and not is_header(head)):
            return False
        try:
            os.lseek(file.fileno(), HEADER_BYTES_MAX, os.SEEK_DATA)
        except OSError as error:
            return error.errno == errno.ENXIO  # no data from there on
    return False


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
