"""What the tests of pools share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from offsite.pools.local import LocalPool
from offsite.pools.protocol import Create
from tests.pools.pool_bench import PAGE, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
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
