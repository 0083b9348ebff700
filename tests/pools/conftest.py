"""What the tests of pools share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create
from offsite.store.database import Database
from tests.pools.pool_bench import PAGE, Bench


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that was just made: making one takes longer than most tests here."""
    path = tmp_path_factory.mktemp("empty") / "state.db"
    Database(path).close()
    return path


@pytest.fixture
def bench(tmp_path: Path, empty_database: Path) -> Iterator[Bench]:
    shutil.copy(empty_database, tmp_path)
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def pool(bench: Bench) -> LocalPool:
    return bench.make()


@pytest.fixture
def volume(pool: LocalPool) -> Callable[[str, int], int]:
    """Makes a volume of so many pages; returns its id."""

    def make(name: str, pages: int) -> int:
        return pool.apply([Create(name, pages * PAGE)])[0].id

    return make
