"""File systems of a few hundred MiB that nothing else uses, for root to fill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offsite.units import KIB, MIB

DISK_BYTES = 320 * MIB  # the least that XFS takes is 300
PROGRAMS = ("losetup", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs")
_MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}


@contextmanager
def small_disk(kind: str, directory: Path) -> Iterator[Path]:
    """Mounted in `directory`."""
    place, image = directory / "disk", directory / "image"
    place.mkdir()
    if kind == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place))
    else:
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        run(*_MAKE[kind], str(image))
        run("mount", "-o", "loop", str(image), str(place))
    try:
        yield place
    finally:
        run("umount", "--lazy", str(place))


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, timeout=120, text=True).stdout


def fill_up(place: Path) -> Path:
    """Another program takes all that is left, to the last byte."""
    junk = place / "junk"
    with junk.open("wb", buffering=0) as file:
        for size in (MIB, 64 * KIB, 4 * KIB, 512):
            try:
                while True:
                    file.write(b"j" * size)
                    os.fsync(file.fileno())
            except OSError:
                pass
    return junk
