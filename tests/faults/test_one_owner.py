"""Data files are of one process and of one system: real second starts, which are refused before they do anything."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.demo.disk import Disk
from tests.systems import System, loopback, run

pytestmark = [pytest.mark.slow, pytest.mark.needs("nbdcopy")]

MIB = 1 << 20
VOLUME_BYTES = 16 * MIB


@pytest.fixture
def london(tmp_path: Path) -> Iterator[System]:
    system = System("London", loopback(1), tmp_path / "london", "256MiB")
    system.start()
    yield system
    if system.is_running():
        system.kill()


def serve(directory: Path) -> subprocess.CompletedProcess[str]:
    """A second system, at another address, that is expected to end by itself."""
    command = [sys.executable, "-m", "offsite", "serve", str(directory), "--listen", loopback(9)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def fill(system: System) -> dict[int, bytes]:
    """Acknowledged writes, of which many are in the database's log and in pages that no durable leaf names yet."""
    system.ask("create", "volume", "pool", "A", "size", "16MiB", "Sales")
    system.map("Sales")
    written = {}
    with Disk(system.nbd_socket, "Sales") as disk:
        for at in range(0, VOLUME_BYTES, 256 << 10):
            written[at] = os.urandom(64 << 10)
            disk.write(at, written[at])
        disk.flush()
        for at in range(128 << 10, VOLUME_BYTES, MIB):
            written[at] = os.urandom(64 << 10)
            disk.write(at, written[at])  # acknowledged, not flushed
    return written


def check(system: System, written: dict[int, bytes]) -> None:
    copy = system.directory.with_name("copy")
    run("nbdcopy", system.nbd_uri("Sales"), str(copy))
    content = copy.read_bytes()
    for at, data in written.items():
        assert content[at : at + len(data)] == data, f"at {at}"


def test_a_second_start_takes_nothing_from_the_first_though_the_lock_was_deleted(london: System) -> None:
    written = fill(london)
    (london.directory / "lock").unlink()
    done = serve(london.directory)
    assert done.returncode == 1
    assert "is in use by process" in done.stderr
    check(london, written)
    london.stop()
    london.start()
    check(london, written)


@pytest.mark.parametrize("how", ["hard links", "a symbolic link to the data"])
def test_a_second_directory_on_the_data_of_the_first_is_refused(london: System, tmp_path: Path, how: str) -> None:
    written = fill(london)
    second = tmp_path / "second"
    shutil.copytree(london.directory, second, ignore=shutil.ignore_patterns("*.sock", "*.data"))
    data = second / "pool-A.data"
    if how == "hard links":
        data.hardlink_to(london.directory / "pool-A.data")
    else:
        data.symlink_to(london.directory / "pool-A.data")
    done = serve(second)
    assert done.returncode == 1
    assert "pool-A.data is in use by another process" in done.stderr
    check(london, written)


def test_a_start_that_is_refused_for_one_pool_has_touched_no_other(london: System, tmp_path: Path) -> None:
    """Of the second a data file of another time was put back: the first is not punched, and nothing is written."""
    london.ask("create", "pool", "size", "64MiB", "B")
    fill(london)
    london.stop()
    shutil.copy(london.directory / "pool-B.data", tmp_path / "older")
    london.start()
    london.kill()
    shutil.copy(tmp_path / "older", london.directory / "pool-B.data")
    before = digests(london.directory)
    done = serve(london.directory)
    assert done.returncode == 1
    assert "the data of pool B is older than the database" in done.stderr
    assert digests(london.directory) == before


def test_page_tables_of_all_pools_are_read_before_any_pool_is_used(london: System) -> None:
    fill(london)
    london.ask("create", "pool", "size", "64MiB", "B")
    london.ask("create", "volume", "pool", "B", "size", "1MiB", "Wages")
    london.map("Wages")
    with Disk(london.nbd_socket, "Wages") as disk:
        disk.write(0, b"w" * 65536)
        disk.flush()
    london.stop()
    with sqlite3.connect(london.directory / "state.db") as connection:
        connection.execute("DELETE FROM leaves WHERE id > (SELECT id FROM pools WHERE name = 'B') << 48")
    connection.close()
    before = digests(london.directory)
    done = serve(london.directory)
    assert done.returncode == 1
    assert "lacks leaf" in done.stderr
    after = digests(london.directory)
    assert (after["pool-A.data"], after["pool-B.data"]) == (before["pool-A.data"], before["pool-B.data"])


def digests(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Content and allocated blocks of every file: a hole that is punched shows, too."""
    return {
        file.name: (file.read_bytes(), file.stat().st_blocks)
        for file in directory.iterdir()
        if file.is_file() and not file.name.endswith("-shm")
    }
