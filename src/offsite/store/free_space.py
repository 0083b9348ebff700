"""How much room a file system has left, and what it is called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

UNLIMITED_BYTES = 1 << 62


@dataclass(frozen=True, slots=True)
class FileSystem:
    """As statvfs tells it. What only root may use is not counted as free."""

    size_bytes: int
    free_bytes: int
    is_read_only: bool


def file_system(place: Path | int) -> FileSystem:
    """Of a path, or of an open file. One that tells no size (some in a network do not) counts as boundless."""
    found = os.statvfs(place)
    is_read_only = bool(found.f_flag & os.ST_RDONLY)
    if not found.f_blocks:
        return FileSystem(UNLIMITED_BYTES, UNLIMITED_BYTES, is_read_only)
    return FileSystem(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, is_read_only)


def mount_point(path: Path) -> Path:
    """Where the file system that holds `path` is mounted."""
    path = path.absolute()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path
