"""Real file systems on a volume: made, written, snapshotted under load, replicated; the copy mounts and is sound.

nbdfuse turns an export into a file, a loop device turns that into a disk: so the kernel's ext4, XFS and btrfs are
the host.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.systems import System, run, two_systems, wait_until

MIB = 1 << 20
CHECKS = {
    "ext4": ["e2fsck", "-f", "-n"],
    "xfs": ["xfs_repair", "-n"],
    "btrfs": ["btrfs", "check", "--readonly"],
}
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}


@contextmanager
def block_device(system: System, export: str, directory: Path) -> Iterator[Path]:
    """The export as a loop device."""
    directory.mkdir()
    with ExitStack() as stack:
        fuse = subprocess.Popen(["nbdfuse", f"{directory}/", system.nbd_uri(export)])
        stack.callback(fuse.wait, 20)
        stack.callback(run, "umount", str(directory))
        wait_until("nbdfuse shows the file", lambda: (directory / "nbd").exists(), 20)
        device = run("losetup", "--find", "--show", str(directory / "nbd")).strip()
        stack.callback(run, "losetup", "--detach", device)
        yield Path(device)


@contextmanager
def mounted(device: Path, directory: Path, *options: str) -> Iterator[Path]:
    directory.mkdir(exist_ok=True)
    run("mount", *options, str(device), str(directory))
    try:
        yield directory
    finally:
        run("umount", str(directory))


def files_of(directory: Path) -> dict[str, str]:
    """Path and digest of every file."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "lost+found" not in path.parts
    }


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, System]]:
    with two_systems(tmp_path_factory.mktemp("fs")) as pair:
        yield pair


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.needs("nbdfuse", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "losetup")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_file_system_survives_snapshots_under_load_and_replication(
    kind: str, systems: tuple[System, System], tmp_path: Path
) -> None:
    """P2, R1: every snapshot taken while files are written, here and of the secondary, is a sound file system."""
    london, newark = systems
    london.ask("create", "volume", "pool", "A", "size", "512MiB", kind)
    london.map(kind)
    set_name = f"{kind}-DR"
    london.ask("create", "replication-set", "peer-connection", "Newark", "primary-volume", kind, set_name)
    with block_device(london, kind, tmp_path / "disk") as device:
        run(*MAKE[kind], str(device))
        with mounted(device, tmp_path / "mnt") as root:
            (root / "steady").mkdir()
            for number in range(20):
                (root / "steady" / f"{number}.bin").write_bytes(os.urandom(200_000))
            os.sync()
            steady = files_of(root / "steady")
            with load(root):
                run(*london.command("replicate", set_name, "--wait"))
                london.ask("create", "snapshots", "volumes", kind, f"{kind}-load")
                run(*london.command("replicate", set_name, "--wait"))
            os.sync()
            final = files_of(root)
    run(*london.command("replicate", set_name, "--wait"))
    assert london.digest(kind) == newark.digest(kind)
    newark.ask("create", "snapshots", "volumes", kind, f"{kind}-copy")
    assert files_in(newark, f"{kind}-copy", kind, tmp_path / "copy") == final
    under_load = files_in(london, f"{kind}-load", kind, tmp_path / "load")
    assert {name: under_load.get(f"steady/{name}") for name in steady} == steady


def files_in(system: System, snapshot: str, kind: str, directory: Path) -> dict[str, str]:
    """Mounts a snapshot, which lets the file system replay its journal; reads it, and has it checked."""
    system.map(snapshot)
    with block_device(system, snapshot, directory) as device:
        with mounted(device, directory.with_suffix(".mnt")) as root:
            found = files_of(root)
        run(*CHECKS[kind], str(device))
    return found


@contextmanager
def load(root: Path) -> Iterator[None]:
    """Files made, overwritten, synced and removed until the end of the block."""
    stop = threading.Event()
    failures: list[OSError] = []

    def write() -> None:
        number = 0
        try:
            while not stop.is_set():
                path = root / f"load-{number % 40}"
                with path.open("wb") as file:
                    file.write(os.urandom(64_000))
                    if number % 5 == 0:
                        os.fsync(file.fileno())
                if number % 7 == 0:
                    path.unlink()
                number += 1
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not failures, failures
    assert not thread.is_alive()
