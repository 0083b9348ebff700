"""btrfs send | btrfs receive: two file systems, each in a file on the disk under test, mounted through loop devices.

Both files are sparse, as Offsite's pools are; mkfs.btrfs and mount get no options. What is timed is what a run of
Offsite does: snapshot, send, receive, and a sync of the receiving file system, which reaches the disk.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.processes import CannotMeasure, require, run, wait_until
from offsite.units import GIB

_FILE_SYSTEM_BYTES = 12 * GIB
_UNMOUNT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Pair:
    """`volume` is the subvolume that hosts write; what is received stands in `destination`."""

    source: Path
    destination: Path

    @property
    def volume(self) -> Path:
        return self.source / "volume"

    def replicate(self, snapshot: str, parent: str | None = None) -> float:
        """Seconds from before the snapshot until it is durable on the other side."""
        increment = ["-p", str(self.source / parent)] if parent else []
        start = time.perf_counter()
        run(["btrfs", "subvolume", "snapshot", "-r", self.volume, self.source / snapshot])
        send = " ".join(["btrfs", "send", "-q", *increment, str(self.source / snapshot)])
        # pipefail: a send that fails must not look like a short stream
        run(["bash", "-c", f"set -o pipefail; {send} | btrfs receive -q {self.destination}"], timeout_seconds=300)
        run(["btrfs", "filesystem", "sync", self.destination])
        return time.perf_counter() - start

    def forget(self, snapshot: str) -> None:
        """Deletes it on both sides and waits until its space is given back."""
        for side in (self.source, self.destination):
            run(["btrfs", "subvolume", "delete", "-c", side / snapshot])
            run(["btrfs", "subvolume", "sync", side])


@contextmanager
def pair(bench: Bench) -> Iterator[Pair]:
    """Raises CannotMeasure without root, btrfs or loop devices."""
    require("btrfs", "mkfs.btrfs", "mount")
    if os.geteuid() != 0:
        raise CannotMeasure("loop-mounted btrfs needs root: run `make bench` as root")
    with _mounted(bench, "source") as source, _mounted(bench, "destination") as destination:
        run(["btrfs", "subvolume", "create", source / "volume"])
        yield Pair(source, destination)


@contextmanager
def _mounted(bench: Bench, name: str) -> Iterator[Path]:
    image, mount_point = bench.directory / f"{name}.btrfs", bench.directory / name
    with image.open("wb") as file:
        file.truncate(_FILE_SYSTEM_BYTES)
    run(["mkfs.btrfs", "-q", image])
    mount_point.mkdir()
    try:
        run(["mount", "-o", "loop", image, mount_point])  # the loop device goes with the mount
        yield mount_point
    finally:
        wait_until(lambda: _is_unmounted(mount_point), _UNMOUNT_SECONDS, f"{mount_point} cannot be unmounted")


def _is_unmounted(mount_point: Path) -> bool:
    """Unmounts, unless someone just looks into it: then it has to be tried again."""
    return not mount_point.is_mount() or not subprocess.run(["umount", mount_point], check=False).returncode
