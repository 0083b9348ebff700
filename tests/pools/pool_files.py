"""Copies of a state directory, as a crash would leave it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def copy_sparse(source: Path, target: Path) -> None:
    """Copies a directory's files; holes stay holes."""
    target.mkdir()
    for file in source.iterdir():
        if file.is_dir():
            continue
        if file.suffix == ".data":
            _copy_file(file, target / file.name)
        elif not file.name.endswith("-shm"):
            shutil.copyfile(file, target / file.name)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        end = reader.seek(0, os.SEEK_END)
        writer.truncate(end)
        position = 0
        while position < end:
            try:
                start = os.lseek(reader.fileno(), position, os.SEEK_DATA)
            except OSError:  # ENXIO: no data from here on
                return
            position = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            os.pwrite(writer.fileno(), os.pread(reader.fileno(), position - start, start), start)
