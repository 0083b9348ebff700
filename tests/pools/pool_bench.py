"""Small pools for the tests of this folder: pages of 4 KiB, so that edges are near and runs are quick."""

from __future__ import annotations

from pathlib import Path

from offsite.pools.local.pool import LocalPool
from offsite.store.database import Database
from offsite.units import KIB

PAGE = 4 * KIB


class Bench:
    """A database and its pools, that are closed at the end of the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = Database(directory / "state.db")
        self.pools: list[LocalPool] = []
        self.crashed: list[tuple[Bench, LocalPool]] = []

    def make(self, name: str = "A", pages: int = 1024, page_bytes: int = PAGE, **options: object) -> LocalPool:
        path = Path(f"pool-{name}.data")
        pool = LocalPool.create(self.database, name, path, pages * page_bytes, page_bytes, **options)  # type: ignore[arg-type]
        self.pools.append(pool)
        return pool

    def reopen(self, pool: LocalPool) -> LocalPool:
        """Closes `pool` in good order and loads it again."""
        pool.close()
        self.pools.remove(pool)
        again = LocalPool.load(self.database, pool.name)
        self.pools.append(again)
        return again

    def close(self) -> None:
        for crashed, pool in self.crashed:
            pool.close()
            crashed.close()
        for pool in self.pools:
            pool.close()
        self.database.close()
