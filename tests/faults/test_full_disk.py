"""A file system that gets full: what gives space back always works, and nothing that was flushed is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from offsite import events
from offsite.errors import PoolFull
from offsite.pools.local.pool import LocalPool
from offsite.pools.local.room import first_pool_bytes, kept_free_bytes
from offsite.pools.protocol import Create, Delete, Replace, Snapshot
from offsite.store.database import Database
from offsite.store.free_space import file_system
from offsite.units import KIB
from tests.faults.small_disks import DISK_BYTES, PROGRAMS, fill_up, small_disk
from tests.pools.backends import write
from tests.pools.pool_hosts import check_counts, discard, read

pytestmark = [pytest.mark.root, pytest.mark.needs(*PROGRAMS)]

VOLUMES = 4
VOLUME_BYTES = 1 << 30
BLOCK = 16 * KIB
FULL_WRITES_MAX = 3 * DISK_BYTES // BLOCK


@pytest.fixture(params=["tmpfs", "ext4", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with small_disk(request.param, tmp_path) as place:
        yield place


class Site:
    """A database and a pool, of the default size unless told, and what hosts have written to its volumes."""

    def __init__(self, place: Path, kind: str, pool_bytes: int = 0) -> None:
        self.place = place
        self.frees_whole_extents_only = kind == "btrfs"  # a hole in one gives no space back there
        self.told: list[tuple[events.EventKind, str]] = []
        self.random = Random(1)
        self.database = Database(place / "state.db")
        self.database.reserve.keep()
        LocalPool.create(self.database, "A", Path("A.data"), pool_bytes or first_pool_bytes(place)).close()
        self.content: dict[int, dict[int, bytes]] = {}
        self._load()
        self.volumes = [
            info.id for info in self.pool.apply([Create(f"v{number}", VOLUME_BYTES) for number in range(VOLUMES)])
        ]
        self.content = {volume: {} for volume in self.volumes}

    def _load(self) -> None:
        self.pool = LocalPool.load(self.database, "A", lambda kind, message: self.told.append((kind, message)))

    def reopen(self) -> None:
        self.pool.close()
        self.database.close()
        self.database = Database(self.place / "state.db")
        self._load()

    def write_anywhere(self, volume: int) -> None:
        at, data = self.random.randrange(VOLUME_BYTES // BLOCK) * BLOCK, self.random.randbytes(64) * (BLOCK // 64)
        write(self.pool, volume, at, data)
        self.content[volume][at] = data

    def write_in_place(self, volume: int) -> None:
        at = self.random.choice(list(self.content[volume]))
        write(self.pool, volume, at, b"again " * 10)
        self.content[volume][at] = b"again " * 10 + self.content[volume][at][60:]

    def fill(self) -> None:
        """Every host writes at random until it is refused."""
        left = set(self.volumes)
        for _ in range(FULL_WRITES_MAX):
            for volume in sorted(left):
                try:
                    self.write_anywhere(volume)
                except PoolFull:
                    left.discard(volume)
            if not left:
                return
        pytest.fail("the disk did not get full")

    def check(self) -> None:
        for volume, content in self.content.items():
            for at, data in content.items():
                assert read(self.pool, volume, at, len(data)) == data, (volume, at)
        check_counts(self.pool)

    def kinds(self) -> list[events.EventKind]:
        return [kind for kind, _ in self.told]

    def close(self) -> None:
        self.pool.close()
        self.database.close()


@pytest.fixture
def site(disk: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(disk, request.node.callspec.params["disk"])
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def site_of_a_large_pool(disk: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Its disk gets full before it."""
    made = Site(disk, request.node.callspec.params["disk"], VOLUME_BYTES)
    try:
        yield made
    finally:
        made.close()


def everything_that_gives_space_back_works(site: Site) -> None:
    for volume in site.volumes:
        site.write_in_place(volume)
        site.pool.flush()
    discarded = site.volumes[0]
    discard(site.pool, discarded, 0, VOLUME_BYTES)
    site.content[discarded].clear()
    site.pool.flush()
    deleted = site.volumes.pop()
    site.pool.apply([Delete(deleted)])
    del site.content[deleted]
    site.pool.flush()
    site.check()
    if site.frees_whole_extents_only:
        site.pool.apply([Delete(volume) for volume in site.volumes])
        site.content.clear()
        site.volumes = [site.pool.apply([Create("new", VOLUME_BYTES)])[0].id]
        site.content[site.volumes[0]] = {}
    for _ in range(10):
        for volume in site.volumes:
            site.write_anywhere(volume)
    site.pool.flush()
    site.check()
    site.reopen()
    site.check()


# Not where another program leaves btrfs nothing at all: there SQLite's index of the WAL, which is mapped into memory,
# may end the process (docs/guide.md).
@pytest.mark.parametrize("disk", ["tmpfs", "ext4", "xfs", "btrfs"], indirect=True)
def test_a_pool_of_the_default_size_fills_its_disk_and_goes_on(site: Site) -> None:
    """Seen: after ENOSPC every flush of every host failed, nothing could be deleted, and a stop lost data."""
    site.fill()
    assert events.POOL_FULL in site.kinds()
    site.pool.flush()
    everything_that_gives_space_back_works(site)


def test_pages_that_were_written_in_part_are_filled_on_a_full_disk(site_of_a_large_pool: Site) -> None:
    """Their rest once took the room of the database, and its reserve with it."""
    site, part = site_of_a_large_pool, b"part" * KIB
    with pytest.raises(PoolFull, match="file system"):
        for at in range(0, VOLUME_BYTES, BLOCK):
            for volume in site.volumes:
                write(site.pool, volume, at, part)
                site.content[volume][at] = part
    site.reopen()
    site.database.reserve.keep()
    for volume, content in site.content.items():
        for at in content:
            write(site.pool, volume, at + len(part), part * (BLOCK // len(part) - 1))
            content[at] = part * (BLOCK // len(part))
    site.pool.flush()
    disk = file_system(site.place)
    assert disk.free_bytes >= kept_free_bytes(disk) * 3 // 4
    site.database.reserve.keep_again()  # XFS counts far more as taken until it is synced
    assert site.database.reserve.kept_bytes
    everything_that_gives_space_back_works(site)


def test_a_disk_that_another_program_fills_to_the_last_byte(site: Site) -> None:
    for _ in range(2500):
        for volume in site.volumes:
            site.write_anywhere(volume)
    site.pool.flush()
    for _ in range(50):
        for volume in site.volumes:
            site.write_anywhere(volume)
    fill_up(site.place)
    for volume in site.volumes:
        with pytest.raises(PoolFull, match="file system"):
            for _ in range(100_000):
                site.write_anywhere(volume)
    site.pool.flush()
    everything_that_gives_space_back_works(site)


def test_what_is_unflushed_is_not_lost_by_a_stop_on_a_full_disk(site: Site) -> None:
    site.fill()
    fill_up(site.place)
    site.reopen()
    site.check()


def test_a_full_disk_allows_rollback_and_the_deleting_of_snapshots(site: Site) -> None:
    for volume in site.volumes:
        for _ in range(200):
            site.write_anywhere(volume)
    target = site.volumes[0]
    before = dict(site.content[target])
    snapshot = site.pool.apply([Snapshot(target, "before")])[0].id
    site.fill()
    fill_up(site.place)
    site.pool.apply([Replace(target, snapshot)])
    site.content[target] = before
    site.pool.apply([Delete(snapshot)])
    site.check()
    for volume in site.volumes:
        site.write_anywhere(volume)
    site.pool.flush()
    site.reopen()
    site.check()
