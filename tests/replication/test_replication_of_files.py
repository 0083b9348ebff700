"""Two whole systems with real pools on files: holes, snapshots of the secondary, restarts, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.management.needs import needs_of_all_floors
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Clone, Delete, Pool, Snapshot
from offsite.replication.runs.hooks import HookDirectory
from offsite.replication.service import Replication
from offsite.store.database import Database
from tests.replication.sites import Site, pair, random_bytes

MIB = 1 << 20


class FileSite(Site):
    """A Site whose pool is a file in its directory."""

    def open(self) -> None:
        self.database = Database(self.directory / "state.db")
        path = Path("pool-A.data")
        if (self.directory / path).exists():
            self.file_pool = LocalPool.load(self.database, "A")
        else:
            self.file_pool = LocalPool.create(self.database, "A", path, 256 * MIB)
        pool: Pool = self.file_pool
        self.pools = {"A": pool}
        self.needs = needs_of_all_floors(self.database)
        self.replication = Replication(
            self.database,
            self.pools,
            self.needs,
            self.authority,
            self.identity,
            ("127.0.0.1", self.port),
            self.authenticate,
            HookDirectory(self.directory / "hooks"),
            lambda kind, message: self.events.append((kind, message)),
        )

    def stop(self) -> None:
        self.replication.stop()
        self.file_pool.close()
        self.database.close()


@pytest.fixture
def file_sites(tmp_path: Path) -> Iterator[tuple[FileSite, FileSite]]:
    london, newark = FileSite(tmp_path / "london", "London"), FileSite(tmp_path / "newark", "Newark")
    london.start()
    newark.start()
    pair(london, newark)
    yield london, newark
    london.stop()
    newark.stop()


def allocated(site: FileSite) -> int:
    """Bytes of the pool in use."""
    return site.file_pool.capacity().allocated_bytes


def test_a_life_of_a_set(file_sites: tuple[FileSite, FileSite]) -> None:
    london, newark = file_sites
    volume = london.create_volume("Sales", 64 * MIB + 4096)
    london.write(volume, 10 * MIB, random_bytes(8 * MIB))
    london.write(volume, 64 * MIB, b"the very end")
    london.create_set("SalesDR", volume, "Newark")
    assert london.run_to_end("SalesDR").state == "success"
    assert newark.content("Sales") == london.content("Sales")
    assert allocated(newark) == allocated(london), "holes stay holes, and all copies share their pages"
    first = london.content("Sales")

    # A snapshot of the secondary can be taken, written and read at any time; runs do not mind.
    monday, drill = newark.pools["A"].apply([Snapshot(newark.image_id("Sales"), "Monday"), Clone(-1, "Drill")])
    newark.write(drill.id, 12 * MIB, b"a drill writes where it likes")
    london.write(volume, 12 * MIB + 512, random_bytes(70_000, 1))
    image = london.pools["A"].open(volume)
    image.begin()
    image.discard(14 * MIB, 2 * MIB)
    image.end()
    image.close()
    assert london.run_to_end("SalesDR").state == "success"
    assert newark.content("Sales") == london.content("Sales")
    assert newark.content("Monday") == first
    assert newark.content("Drill")[12 * MIB :].startswith(b"a drill writes")

    for site in file_sites:
        site.stop()
        site.open()
        site.start()
    london.write(volume, 0, b"after a restart")
    ended = london.run_to_end("SalesDR")
    assert (ended.state, ended.changed_bytes) == ("success", 4096)
    assert newark.content("Sales") == london.content("Sales")

    london.replication.sets.delete("SalesDR")
    newark.pools["A"].apply([Delete(monday.id), Delete(drill.id)])
    for site in file_sites:
        assert [image.name for image in site.pools["A"].images()] == ["Sales"]
    assert allocated(newark) == allocated(london)
    assert newark.pools["A"].image(newark.image_id("Sales")).allocated_bytes == allocated(newark)


def test_a_run_over_a_full_pool_leaves_the_volume_and_goes_on_later(file_sites: tuple[FileSite, FileSite]) -> None:
    london, newark = file_sites
    volume = london.create_volume("Sales", 64 * MIB)
    london.create_set("SalesDR", volume, "Newark")
    ballast = newark.create_volume("Ballast", 256 * MIB)
    for at in range(0, 240 * MIB, MIB):
        newark.write(ballast, at, b"\x55" * MIB)
    london.write(volume, 0, random_bytes(32 * MIB))
    failed = london.run_to_trouble("SalesDR")
    assert failed.error is not None and failed.error.startswith("Newark: pool A is full: ")
    assert newark.content("Sales") == bytes(64 * MIB)

    newark.pools["A"].apply([Delete(ballast)])
    newark.file_pool.reclaim()
    assert london.await_end("SalesDR", failed.run).state == "success", "by itself"
    assert newark.content("Sales") == london.content("Sales")
