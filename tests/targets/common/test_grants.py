"""Who may use which image, by name and by LUN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from offsite.access.maps import Maps
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create, ImageInfo, Rename
from offsite.store.database import Database
from offsite.targets.common.grants import Grants
from offsite.units import MIB

WEB, DB = "tls:web", "tls:db"


class Bench:
    def __init__(self, directory: Path) -> None:
        self.database = Database(directory / "state.db")
        self.pool = LocalPool.create(self.database, "A", Path("pool-A.data"), 64 * MIB, 16 << 10)
        self.maps = Maps(self.database)
        self.grants = Grants({"A": self.pool}, self.maps)

    def volume(self, name: str) -> ImageInfo:
        return self.pool.apply([Create(name, MIB)])[0]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.pool.close()
    bench.database.close()


def test_by_lun_is_what_was_mapped_with_one(bench: Bench) -> None:
    sales, orders = bench.volume("Sales"), bench.volume("Orders")
    bench.maps.map(sales.id, WEB, "read-only", 7)
    bench.maps.map(orders.id, WEB, "read-write")
    assert {lun: (each.name, each.read_only) for lun, each in bench.grants.by_lun(WEB).items()} == {7: ("Sales", True)}
    assert [each.name for each in bench.grants.by_name(WEB)] == ["Orders", "Sales"]
    assert bench.grants.by_lun(DB) == {}


def test_at_a_lun_a_map_of_ones_own_goes_before_the_default_one(bench: Bench) -> None:
    everyones, own, hidden = bench.volume("everyone's"), bench.volume("own"), bench.volume("hidden")
    bench.maps.map(own.id, WEB, "read-write", 1)
    bench.maps.map(everyones.id, None, "read-write", 1)
    bench.maps.map(hidden.id, None, "read-write", 2)
    bench.maps.map(hidden.id, WEB, "no-access")
    assert {lun: each.name for lun, each in bench.grants.by_lun(WEB).items()} == {1: "own"}
    assert {lun: each.name for lun, each in bench.grants.by_lun(DB).items()} == {1: "everyone's", 2: "hidden"}


def test_a_grant_by_lun_ends_when_its_lun_changes_and_one_by_name_does_not(bench: Bench) -> None:
    sales = bench.volume("Sales")
    bench.maps.map(sales.id, WEB, "read-write", 1)
    by_lun, by_name = bench.grants.by_lun(WEB)[1], bench.grants.find("Sales", WEB)
    assert by_name is not None
    bench.pool.apply([Rename(sales.id, "renamed")])
    assert bench.grants.still_granted(by_lun, WEB)
    bench.maps.map(sales.id, WEB, "read-write", 2)
    assert not bench.grants.still_granted(by_lun, WEB)
    assert bench.grants.still_granted(by_name, WEB)
    assert not bench.grants.still_granted(replace(by_name, read_only=True), WEB)
    bench.maps.unmap(sales.id, WEB)
    assert not bench.grants.still_granted(by_name, WEB)
