"""A real ext4 file system without root: made, changed, checked and read by e2fsprogs in a file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

TIMEOUT_SECONDS = 60
_PROGRAMS = ("mkfs.ext4", "debugfs", "e2fsck")


class MissingProgram(Exception):
    """A program of e2fsprogs that is not installed."""


def find_programs() -> dict[str, str]:
    """Where the programs are; an ordinary user's PATH often lacks /usr/sbin. Raises MissingProgram."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = {name: shutil.which(name, path=path) for name in _PROGRAMS}
    missing = [name for name, where in found.items() if where is None]
    if missing:
        raise MissingProgram(f"{', '.join(missing)} not found; install e2fsprogs (sudo apt-get install e2fsprogs)")
    return {name: where for name, where in found.items() if where is not None}


class Ext4:
    """An ext4 file system in a file."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self._programs = find_programs()

    def make(self, size_bytes: int, files: Path) -> None:
        """With all that is in the directory `files`."""
        with self.image.open("wb") as file:
            file.truncate(size_bytes)
        self._run("mkfs.ext4", "-q", "-F", "-L", "sales", "-d", str(files), str(self.image))

    def add(self, file: Path, name: str) -> None:
        self._run("debugfs", "-w", "-R", f"write {file} {name}", str(self.image))

    def read(self, name: str) -> bytes:
        return self._run("debugfs", "-R", f"cat {name}", str(self.image))

    def names(self) -> list[str]:
        """What lies in the root of the file system."""
        listing = self._run("debugfs", "-R", "ls -p /", str(self.image)).decode()
        names = [line.split("/")[5] for line in listing.splitlines() if line.count("/") >= 6]
        return [name for name in names if name not in (".", "..", "lost+found", "")]

    def check(self) -> str:
        """What e2fsck says of it, changing nothing. Raises CalledProcessError when it finds a fault."""
        return self._run("e2fsck", "-f", "-n", str(self.image)).decode().strip().splitlines()[-1]

    def _run(self, program: str, *arguments: str) -> bytes:
        return subprocess.run(
            [self._programs[program], *arguments], check=True, capture_output=True, timeout=TIMEOUT_SECONDS
        ).stdout
