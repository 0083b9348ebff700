"""The data file of a pool on a disk that may fail, and that may lose what was not synced.

The file itself holds what was written; beside it is kept what was written since the last sync, and over what. When
power fails, most of that is lost, block by block.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from offsite.pools.local import page_store
from tests.simulation.faults import Faults
from tests.simulation.patching import Module
from tests.simulation.tasks import Killed

BLOCK_BYTES = 4096  # written whole, or not


@dataclass
class _Write:
    position: int
    old: bytes
    new: bytes


class Disk:
    """Under one open data file."""

    def __init__(self, faults: Faults, random: Random) -> None:
        self._faults = faults
        self._random = random
        self._unsynced: list[_Write] = []
        self.powered = True
        self.is_full = False

    def read(self, descriptor: int, buffers: Sequence[memoryview], position: int, flags: int) -> int:
        self._check("reads that failed", self._faults.read_fault)
        return os.preadv(descriptor, buffers, position, flags)

    def write(self, descriptor: int, data: Any, position: int) -> int:
        self._check("writes that failed", self._faults.write_fault)
        data = bytes(data)
        if self.is_full and self._faults.is_on and not any(os.pread(descriptor, len(data), position)):
            self._faults.counts["writes that a full disk refused"] += 1
            raise OSError(errno.ENOSPC, "simulated")  # it would fill a hole; what has its place is written over
        return self._write(descriptor, data, position)

    def _write(self, descriptor: int, data: bytes, position: int) -> int:
        old = os.pread(descriptor, len(data), position)
        self._unsynced.append(_Write(position, old, data))
        return os.pwrite(descriptor, data, position)

    def punch(self, descriptor: int, position: int, length: int) -> None:
        if not self.powered:
            raise Killed
        old = os.pread(descriptor, length, position)
        if any(old):
            self._write(descriptor, bytes(length), position)

    def sync(self, _descriptor: int) -> None:
        self._check("syncs that failed", self._faults.sync_fault)
        self._unsynced.clear()

    def lose_power(self, descriptor: int) -> None:
        """What was not synced is lost, but for some blocks of it."""
        self.powered = False
        for write in reversed(self._unsynced):
            os.pwrite(descriptor, write.old, write.position)
        for write in self._unsynced:
            for at in range(0, len(write.new), BLOCK_BYTES):
                if self._random.random() > self._faults.lost_at_crash:
                    os.pwrite(descriptor, write.new[at : at + BLOCK_BYTES], write.position + at)
        self._unsynced.clear()

    def _check(self, what: str, rate: float) -> None:
        if not self.powered:
            raise Killed
        if self._faults.strikes(what, rate):
            raise OSError(errno.EIO, "simulated")


disks: dict[int, Disk] = {}
"""By the descriptor of the data file."""


def _preadv(descriptor: int, buffers: Sequence[memoryview], position: int, flags: int = 0) -> int:
    disk = disks.get(descriptor)
    return disk.read(descriptor, buffers, position, flags) if disk else os.preadv(descriptor, buffers, position, flags)


def _pwrite(descriptor: int, data: Any, position: int) -> int:
    disk = disks.get(descriptor)
    return disk.write(descriptor, data, position) if disk else os.pwrite(descriptor, data, position)


def _fdatasync(descriptor: int) -> None:
    disk = disks.get(descriptor)
    if disk:
        disk.sync(descriptor)


_real_fallocate = page_store._fallocate


def _fallocate(descriptor: int, flags: int, start: int, length: int) -> int:
    disk = disks.get(descriptor)
    if disk is None:
        return _real_fallocate(descriptor, flags, start, length)
    disk.punch(descriptor, start, length)
    return 0


SIMULATED_OS = Module(os, preadv=_preadv, pwrite=_pwrite, fdatasync=_fdatasync, fsync=lambda _descriptor: None)


def install() -> None:
    """For page_store, which calls fallocate by itself."""
    page_store.__dict__["_fallocate"] = _fallocate
