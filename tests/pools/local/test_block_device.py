"""A pool on a block device: a loop device here."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.errors import BadParameter, DeviceNotEmpty, NameInUse, StateDirectoryError
from offsite.pools.local import free_space, page_store
from offsite.pools.local.header import Generation, Header
from offsite.pools.local.page_store import PageStore
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create, Snapshot
from offsite.units import MIB
from tests.pools.backends import write
from tests.pools.pool_bench import PAGE, Bench
from tests.pools.pool_hosts import check_counts, discard, read

pytestmark = [pytest.mark.root, pytest.mark.needs("losetup")]

DEVICE_BYTES = 4 * MIB + 512  # not a whole number of pages


def losetup(*arguments: str) -> str:
    return subprocess.run(
        ["losetup", *arguments], check=True, capture_output=True, text=True, timeout=30
    ).stdout.strip()


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    file = tmp_path / "device"
    with file.open("wb") as new:
        new.truncate(DEVICE_BYTES)
    return file


@pytest.fixture
def device(backing: Path) -> Iterator[Path]:
    name = losetup("--find", "--show", str(backing))
    yield Path(name)
    losetup("--detach", name)


def test_a_pool_takes_the_whole_device(bench: Bench, device: Path) -> None:
    pool = LocalPool.create(bench.database, "A", device, 0, PAGE)
    bench.pools.append(pool)
    assert pool.capacity().size_bytes == 4 * MIB - PAGE
    v = pool.apply([Create("v", 700 * PAGE)])[0].id
    write(pool, v, 100, b"v" * 600 * PAGE)
    s = pool.apply([Snapshot(v, "s")])[0].id
    write(pool, v, 0, b"w" * 512)
    discard(pool, v, 300 * PAGE, 200 * PAGE)
    pool = bench.reopen(pool)
    assert read(pool, v, 0, PAGE) == b"w" * 512 + b"v" * (PAGE - 512)
    assert read(pool, s, 0, PAGE) == bytes(100) + b"v" * (PAGE - 100)
    check_counts(pool)


def test_what_is_freed_reads_as_zero_and_goes_back_to_the_file_below(bench: Bench, device: Path, backing: Path) -> None:
    pool = LocalPool.create(bench.database, "A", device, 0, PAGE)
    bench.pools.append(pool)
    v = pool.apply([Create("v", 700 * PAGE)])[0].id
    write(pool, v, 0, b"v" * 700 * PAGE)
    pool.flush()
    os.sync()
    used = backing.stat().st_blocks
    discard(pool, v, 0, 700 * PAGE)
    pool.flush()
    pool.reclaim()
    os.sync()
    assert backing.stat().st_blocks < used // 4
    for page in range(900):  # through space never used, and then through what was freed
        write(pool, v, page % 700 * PAGE, b"n" * 512)
        discard(pool, v, (page - 300) % 700 * PAGE, PAGE)
        if page % 100 == 0:
            pool.flush()
            pool.reclaim()
    assert not read(pool, v, 0, 700 * PAGE).replace(b"n" * 512 + bytes(PAGE - 512), b"").strip(b"\0")
    check_counts(pool)


def test_a_device_that_cannot_discard_is_zeroed_where_it_comes_to_be_used(
    bench: Bench, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some disks know no discard: what a host gave back, and what lay on the device before, must still read as
    zero; and to open the pool must not mean to write the whole disk."""
    real, zeroed = page_store._fallocate, list[int]()

    def without_discard(descriptor: int, flags: int, start: int, length: int) -> int:
        if flags & 0x02:  # FALLOC_FL_PUNCH_HOLE
            return errno.EOPNOTSUPP
        zeroed.append(length)
        return real(descriptor, flags, start, length)

    monkeypatch.setattr(page_store, "_fallocate", without_discard)
    monkeypatch.setattr(free_space, "ZERO_AHEAD_BYTES", 64 * PAGE)
    device.write_bytes(bytes(PAGE) + b"old" * ((DEVICE_BYTES - PAGE) // 3))
    pool = LocalPool.create(bench.database, "A", device, 0, PAGE, overwrite=True)
    bench.pools.append(pool)
    assert zeroed == []
    v = pool.apply([Create("v", 900 * PAGE)])[0].id
    write(pool, v, 0, b"v" * 512)
    assert 0 < sum(zeroed) <= 129 * PAGE
    for page in range(1, 900):
        write(pool, v, page * PAGE, b"v" * 512)
    assert read(pool, v, 0, 900 * PAGE) == (b"v" * 512 + bytes(PAGE - 512)) * 900
    discard(pool, v, 0, 900 * PAGE)
    pool.flush()
    pool.reclaim()
    pool = bench.reopen(pool)
    for page in range(900):
        write(pool, v, page * PAGE + PAGE - 512, b"w" * 512)
    assert read(pool, v, 0, 900 * PAGE) == (bytes(PAGE - 512) + b"w" * 512) * 900
    check_counts(pool)


def test_a_device_that_holds_something_is_refused_untouched(bench: Bench, device: Path, backing: Path) -> None:
    content = b"someone's" + bytes(DEVICE_BYTES - 9)
    device.write_bytes(content)
    with pytest.raises(DeviceNotEmpty, match="not empty"):
        LocalPool.create(bench.database, "A", device, 0, PAGE)
    os.sync()
    assert device.read_bytes() == content
    del backing


def test_a_refused_pool_leaves_the_device_empty(bench: Bench, device: Path) -> None:
    bench.make("A")
    with pytest.raises(NameInUse):
        LocalPool.create(bench.database, "A", device, 0, PAGE)
    assert not any(device.read_bytes())
    with pytest.raises(BadParameter, match="16 to"):
        LocalPool.create(bench.database, "B", device, 0, 1 << 20)
    assert not any(device.read_bytes())


def test_a_device_that_became_smaller_is_refused(bench: Bench, backing: Path) -> None:
    name = losetup("--find", "--show", str(backing))
    LocalPool.create(bench.database, "A", Path(name), 0, PAGE).close()
    os.truncate(backing, 2 * MIB)
    losetup("--set-capacity", name)
    try:
        with pytest.raises(StateDirectoryError, match="cut off"):
            LocalPool.load(bench.database, "A")
    finally:
        losetup("--detach", name)


def test_a_device_that_is_gone_is_told(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(StateDirectoryError, match="cannot be created"):
        PageStore.create(tmp_path / "nowhere" / "device", Header(bytes(16), PAGE, MIB, Generation.first()))
    del bench
