"""Space on the disk of the state directory that is kept for what frees space.

    absent ──keep, while there is room──► kept ──give_up: another program has filled the disk──► absent

A full disk takes no commit, and without a commit nothing can be deleted. So a file that holds nothing keeps some space
from everyone else, and is given up when the database needs it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from offsite.store.free_space import file_system
from offsite.units import KIB, MIB

RESERVE_BYTES = 16 * MIB
LOW_BYTES = 4 * MIB  # less than this is not left free while there is a reserve
ROOM_TO_KEEP_BYTES = 16 * MIB  # free beside it when it is taken, so that it is not given up at once
_SMALL_SHARE = 32  # of a small disk it takes no more than one part in so many
NAME = "reserve"
_TRIED_BYTES = 64 * KIB  # more than SQLite writes at once
_libc = ctypes.CDLL(None)


class Reserve:
    """Safe to use from any thread."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._lock = threading.Lock()
        self._is_wanted = False
        self.tell: Callable[[bool], None] = lambda _is_kept: None
        """Told True when it is kept again, False when it was given up. Must not wait for anything."""

    @property
    def kept_bytes(self) -> int:
        try:
            return self._path.stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def keep(self) -> None:
        """From now on there is one: whenever `keep_again` finds room for it."""
        self._is_wanted = True
        self._take()

    def keep_again(self) -> None:
        """Called now and then: takes what was given up once there is room."""
        if self._is_wanted and self._take():
            self.tell(True)

    def is_room(self, needed_bytes: int = 0) -> bool:
        """Whether so many bytes can be written without it, with something left."""
        try:
            return file_system(self._path.parent).free_bytes >= LOW_BYTES + needed_bytes
        except OSError:  # the directory is gone, or the disk: whoever writes will be told
            return True

    def make_room(self) -> None:
        """Gives it up if hardly anything is free."""
        if not self.is_room():
            self.give_up()

    def give_up(self) -> bool:
        """Whether there was one."""
        with self._lock:
            if not self.kept_bytes:
                return False
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.ftruncate(descriptor, 0)  # not unlinked: that could need space on some file systems
                    _libc.syncfs(descriptor)  # btrfs has the space only then
                finally:
                    os.close(descriptor)
            except OSError:
                return False
        self.tell(False)
        return True

    def _take(self) -> bool:
        """Whether it was taken just now."""
        with self._lock:
            disk = file_system(self._path.parent)
            wanted = min(RESERVE_BYTES, disk.size_bytes // _SMALL_SHARE)
            if self.kept_bytes >= wanted or disk.is_read_only or disk.free_bytes < wanted + ROOM_TO_KEEP_BYTES:
                return False
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(descriptor, 0, wanted)
                finally:
                    os.close(descriptor)
            except OSError:  # full after all, or a file system that cannot: the next time, perhaps
                return False
            return self.kept_bytes >= wanted


def takes_no_more(directory: Path) -> bool:
    """Whether a write there fails for lack of space, or hardly any is left; not when it fails for another reason. A
    quota that is used up shows itself only by trying."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            os.posix_fallocate(file.fileno(), 0, _TRIED_BYTES)
            os.fsync(file.fileno())  # some file systems in a network tell only now
        return file_system(directory).free_bytes < LOW_BYTES
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
