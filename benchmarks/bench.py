"""What every figure is given: its sizes and lengths, a place on the disk, and a way to say how far it is."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import file_system
from benchmarks.processes import CannotMeasure
from offsite.units import GIB, MIB, TIB, format_size

_IN_MEMORY = ("tmpfs", "ramfs")
_COPY_BYTES = 4 * MIB


@dataclass(frozen=True, slots=True)
class Settings:
    """How much and how long. `quick` is for developing: its values are too short to be believed."""

    repeat: int = 3
    quick: bool = False

    @property
    def volume_bytes(self) -> int:
        return 128 * MIB if self.quick else GIB

    @property
    def large_volume_bytes(self) -> int:
        return 64 * GIB if self.quick else TIB

    @property
    def window_seconds(self) -> float:
        return 0.5 if self.quick else 3.0

    @property
    def ramp_seconds(self) -> float:
        return 0.2 if self.quick else 0.5

    @property
    def free_bytes_needed(self) -> int:
        """Each round leaves what it sent until its figure is done: deleting it would disturb the next one."""
        return (8 + 3 * self.repeat) * self.volume_bytes

    @property
    def scattered_writes(self) -> int:
        return 1000 if self.quick else 5000


@dataclass(frozen=True, slots=True)
class Bench:
    """`directory` lies on the disk under test. `sockets` has a short path: a Unix socket's may have 107 bytes."""

    settings: Settings
    directory: Path
    sockets: Path

    def say(self, text: str) -> None:
        print(f"   {text}", file=sys.stderr, flush=True)

    @contextmanager
    def room(self, name: str) -> Iterator[Bench]:
        """The same bench with directories of its own, that are gone afterwards."""
        with (
            tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self.directory) as directory,
            tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self.sockets) as sockets,
        ):
            yield Bench(self.settings, Path(directory), Path(sockets))


@contextmanager
def opened(settings: Settings, parent: Path) -> Iterator[Bench]:
    """A bench in a new directory in `parent`, which is made when it is not there, and left as it was."""
    parent = parent.absolute()  # tools resolve names against places of their own
    was_there = parent.is_dir()
    parent.mkdir(parents=True, exist_ok=True)
    try:
        if file_system(parent) in _IN_MEMORY:
            raise CannotMeasure(f"{parent} lies in memory; name a directory on a disk with --directory")
        free_bytes = os.statvfs(parent).f_bavail * os.statvfs(parent).f_frsize
        needed_bytes = settings.free_bytes_needed
        if free_bytes < needed_bytes:
            raise CannotMeasure(f"{parent} has {format_size(free_bytes)} free; {format_size(needed_bytes)} are needed")
        with (
            tempfile.TemporaryDirectory(prefix="run-", dir=parent) as directory,
            tempfile.TemporaryDirectory(prefix="offsite-bench-") as sockets,
        ):
            yield Bench(settings, Path(directory), Path(sockets))
    finally:
        if not was_there:
            parent.rmdir()


def write_random(path: Path, size_bytes: int) -> None:
    """A file of random bytes, on the disk and in the page cache."""
    generator = np.random.default_rng()
    with path.open("wb") as file:
        for at in range(0, size_bytes, _COPY_BYTES):
            file.write(generator.bytes(min(_COPY_BYTES, size_bytes - at)))
        file.flush()
        os.fsync(file.fileno())
