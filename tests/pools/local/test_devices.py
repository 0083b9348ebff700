"""What is found on a block device before a pool is made on it. Loop devices here, with real file systems."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from offsite.errors import DeviceNotEmpty, InUse, StateDirectoryError
from offsite.pools.local import devices
from offsite.pools.local.creation import contents_of_device
from offsite.pools.local.page_store import PageStore
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create
from offsite.units import MIB
from tests.pools.backends import write
from tests.pools.pool_bench import PAGE, Bench
from tests.pools.pool_hosts import read

pytestmark = [pytest.mark.root, pytest.mark.needs("losetup", "blkid", "wipefs")]

DEVICE_BYTES = 512 * MIB


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    file = tmp_path / "backing"
    with file.open("wb") as new:
        new.truncate(DEVICE_BYTES)
    return file


@pytest.fixture
def device(backing: Path) -> Iterator[Path]:
    name = run("losetup", "--find", "--show", str(backing))
    yield Path(name)
    run("losetup", "--detach", name)


def ends(device: Path) -> bytes:
    """All that a file system would miss: what is at either end, and what lies in between by samples."""
    with device.open("rb") as file:
        return b"".join(os.pread(file.fileno(), MIB, at * MIB) for at in (0, 64, DEVICE_BYTES // MIB - 1))


def put(device: Path, at: int, data: bytes) -> None:
    with device.open("r+b") as file:
        os.pwrite(file.fileno(), data, at)
        os.fsync(file.fileno())


def mbr(device: Path) -> None:
    """One partition, from 1 MiB on."""
    entry = struct.pack("<B3sB3sII", 0, b"\0" * 3, 0x83, b"\0" * 3, 2048, DEVICE_BYTES // 512 - 2048)
    put(device, 446, entry.ljust(64, b"\0") + b"\x55\xaa")


ON_IT: dict[str, tuple[Callable[[Path], object], str]] = {
    "btrfs": (lambda d: run("mkfs.btrfs", "-q", str(d)), "btrfs"),
    "ext4": (lambda d: run("mkfs.ext4", "-q", "-L", "wages", str(d)), "ext4 labelled wages"),
    "xfs": (lambda d: run("mkfs.xfs", "-q", str(d)), "xfs"),
    "swap": (lambda d: run("mkswap", str(d)), "swap"),
    "partitions": (mbr, "dos"),
    "LUKS": (lambda d: put(d, 0, b"LUKS\xba\xbe\0\1".ljust(592, b"\0")), "LUKS"),
    "LVM": (lambda d: put(d, 512, b"LABELONE" + bytes(16) + b"LVM2 001"), "data in its first MiB"),
    "RAID 1.0, at the end": (lambda d: put(d, DEVICE_BYTES - 8192, struct.pack("<II", 0xA92B4EFC, 1)), "its last MiB"),
    "a byte at 64 KiB": (lambda d: put(d, 64 << 10, b"\1"), "data in its first MiB"),
    "a byte at the end of the first MiB": (lambda d: put(d, MIB - 1, b"\1"), "data in its first MiB"),
    "the last byte": (lambda d: put(d, DEVICE_BYTES - 1, b"\1"), "data in its last MiB"),
}


@pytest.mark.needs("mkfs.btrfs", "mkfs.ext4", "mkfs.xfs", "mkswap")
@pytest.mark.parametrize("what", ON_IT)
def test_a_device_that_has_something_is_refused_untouched(bench: Bench, device: Path, what: str) -> None:
    make, told = ON_IT[what]
    make(device)
    before = ends(device)
    with pytest.raises(DeviceNotEmpty, match=told):
        LocalPool.create(bench.database, "A", device, 0)
    os.sync()
    assert ends(device) == before
    assert told in contents_of_device(bench.database, device)
    assert ends(device) == before


@pytest.mark.needs("mkfs.btrfs")
@pytest.mark.parametrize("what", ["btrfs", "the last byte"])
def test_it_is_found_where_no_program_can_look(
    bench: Bench, device: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The superblock of btrfs lies at 64 KiB."""
    ON_IT[what][0](device)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    before = ends(device)
    with pytest.raises(DeviceNotEmpty, match="data in its"):
        LocalPool.create(bench.database, "A", device, 0)
    assert ends(device) == before


@pytest.mark.needs("mkfs.btrfs", "mkfs.ext4")
@pytest.mark.parametrize("how", ["btrfs", "ext4"])
def test_a_mounted_device_is_refused_whatever_is_said(bench: Bench, device: Path, tmp_path: Path, how: str) -> None:
    run(f"mkfs.{how}", "-q", str(device))
    there = tmp_path / "there"
    there.mkdir()
    run("mount", str(device), str(there))
    try:
        (there / "thesis").write_bytes(b"years of work" * 1000)
        os.sync()
        link = tmp_path / "link"
        link.symlink_to(device)
        node = tmp_path / "node"
        os.mknod(node, 0o60600, device.stat().st_rdev)
        for path in (device, link, node):
            for overwrite in (False, True):
                with pytest.raises(InUse, match="is in use"):
                    LocalPool.create(bench.database, "A", path, 0, overwrite=overwrite)
        run("umount", str(there))
        run("mount", str(device), str(there))
        assert (there / "thesis").read_bytes() == b"years of work" * 1000
    finally:
        run("umount", str(there))


@pytest.mark.needs("mkfs.ext4", "addpart", "delpart")
def test_a_disk_of_which_a_partition_is_mounted_is_refused(bench: Bench, backing: Path, tmp_path: Path) -> None:
    disk = run("losetup", "--find", "--show", str(backing))
    run("addpart", disk, "1", "2048", str(DEVICE_BYTES // 512 - 2048))
    there = tmp_path / "there"
    there.mkdir()
    try:
        partition = Path(f"{disk}p1")
        if not partition.exists():  # as in a container, where nobody makes the node
            major, minor = Path(f"/sys/class/block/{partition.name}/dev").read_text().split(":")
            partition = tmp_path / "p1"
            os.mknod(partition, 0o60600, os.makedev(int(major), int(minor)))
        run("mkfs.ext4", "-q", str(partition))
        run("mount", str(partition), str(there))
        try:
            for path in (Path(disk), partition):
                with pytest.raises(InUse, match="a part of it is mounted"):
                    LocalPool.create(bench.database, "A", path, 0, overwrite=True)
        finally:
            run("umount", str(there))
    finally:
        run("delpart", disk, "1")
        run("losetup", "--detach", disk)


@pytest.mark.needs("mkfs.btrfs")
def test_an_explicit_word_overwrites_and_nothing_of_it_is_found_afterwards(bench: Bench, device: Path) -> None:
    run("mkfs.btrfs", "-q", str(device))
    pool = LocalPool.create(bench.database, "A", device, 0, overwrite=True)
    bench.pools.append(pool)
    assert run("wipefs", "--no-act", "--parsable", str(device)).count("btrfs") <= 1  # its third copy, at 64 MiB
    v = pool.apply([Create("v", 8 * MIB)])[0].id
    assert not read(pool, v, 0, 8 * MIB).strip(b"\0")
    write(pool, v, 0, b"v" * MIB)
    pool = bench.reopen(pool)
    assert read(pool, v, 0, MIB) == b"v" * MIB


def test_what_was_there_comes_back_when_the_row_cannot_be_written(
    bench: Bench, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(device, 0, b"someone's".ljust(8192, b"x"))
    before = ends(device)
    monkeypatch.setattr(bench.database, "transaction", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LocalPool.create(bench.database, "A", device, 0, overwrite=True)
    os.sync()
    assert ends(device) == before


def test_a_device_whose_old_content_cannot_be_wiped_is_refused_and_given_up(
    bench: Bench, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(device, 0, b"someone's".ljust(8192, b"x"))

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(devices, "wipe_ends", fails)
        with pytest.raises(StateDirectoryError, match="cannot hold a pool: Input/output error"):
            LocalPool.create(bench.database, "A", device, 0, overwrite=True)
    bench.pools.append(LocalPool.create(bench.database, "A", device, 0, overwrite=True))


def test_a_device_that_cannot_be_put_back_is_given_up(
    bench: Bench, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(bench.database, "transaction", lambda: 1 / 0)
        patch.setattr(devices.NewDevice, "_write_back", fails)
        with pytest.raises(OSError, match="Input/output error"):
            LocalPool.create(bench.database, "A", device, 0)
    bench.pools.append(LocalPool.create(bench.database, "A", device, 0, overwrite=True))


def test_a_device_that_cannot_be_written_is_refused(
    bench: Bench, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_store: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(PageStore, "sync", fails)
        with pytest.raises(StateDirectoryError, match="cannot hold a pool: Input/output error"):
            LocalPool.create(bench.database, "A", device, 0)
    assert not ends(device).strip(b"\0")


def test_a_pool_of_another_system_is_named(bench: Bench, device: Path, tmp_path: Path) -> None:
    with bench.database.transaction() as connection:
        connection.exec_driver_sql(f"INSERT INTO system VALUES (1, '{'12' * 16}', 'London', 0)")
    pool = LocalPool.create(bench.database, "Backups", device, 0)
    (tmp_path / "other").mkdir()
    other = Bench(tmp_path / "other")
    try:
        for overwrite in (False, True):  # as long as it runs
            with pytest.raises(InUse, match="is in use"):
                LocalPool.create(other.database, "A", device, 0, overwrite=overwrite)
        pool.close()
        with pytest.raises(DeviceNotEmpty, match="pool Backups of system London"):
            LocalPool.create(other.database, "A", device, 0)
        with pytest.raises(DeviceNotEmpty, match="pool Backups of system London"):
            LocalPool.create(bench.database, "A", device, 0)  # also by the same system: the pool is one of its own
        bench.pools.append(LocalPool.load(bench.database, "Backups"))
    finally:
        other.close()


def test_a_program_that_does_not_answer_or_cannot_look_is_a_finding(
    bench: Bench, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "fake"
    monkeypatch.setattr(shutil, "which", lambda name, **_: str(fake) if name == "wipefs" else None)
    monkeypatch.setattr(devices, "PROBE_SECONDS", 1.0)
    for script, told in (
        ("#!/bin/sh\nexec sleep 60\n", "timed out after 1 s"),
        ("#!/bin/sh\necho 'no \x1bpermission' >&2\nexit 1\n", r"wipefs reports no \?permission"),
        ("#!/bin/sh\nexit 3\n", "wipefs reports status 3"),
        ("no program at all", "wipefs cannot be started"),
    ):
        fake.write_text(script)
        fake.chmod(0o700)
        with pytest.raises(DeviceNotEmpty, match=told):
            LocalPool.create(bench.database, "A", device, 0)


def test_a_cut_creation_is_made_anew_and_a_cut_deletion_removed(bench: Bench, device: Path) -> None:
    with bench.database.transaction() as connection:
        connection.exec_driver_sql(f"INSERT INTO system VALUES (1, '{'12' * 16}', 'London', 0)")
    LocalPool.create(bench.database, "A", device, 0, PAGE).close()
    with bench.database.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM pools")  # as if the row had never been written
    bench.pools.append(LocalPool.create(bench.database, "A", device, 0, PAGE))
