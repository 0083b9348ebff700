"""Every kind of pool, as the tests that all of them have to pass use them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from offsite.pools.backend import NewPool, PoolBackend
from offsite.pools.local.backend import LocalBackend
from offsite.pools.protocol import OpenImage, Pool
from offsite.store.database import Database
from tests.pools.memory_pool import MemoryBackend
from tests.pools.object_pool import ObjectBackend
from tests.pools.pool_files import copy_sparse

UNIT = 16384  # of allocation
KINDS: dict[str, Callable[[], PoolBackend]] = {
    "local": LocalBackend,
    "memory": MemoryBackend,
    "objects": ObjectBackend,
}


class World:
    """A database and its pools, of one backend."""

    def __init__(self, backend: PoolBackend, directory: Path, empty_database: Path | None = None) -> None:
        self.backend = backend
        self.directory = directory
        if empty_database is not None:
            shutil.copy(empty_database, directory / "state.db")
        self.database = Database(directory / "state.db")
        self.pools: list[Pool] = []
        self.later: list[World] = []

    def create(self, name: str = "A", units: int = 1024, *, overcommit: bool = True) -> Pool:
        pool = self.backend.create(self.database, NewPool(name, units * UNIT, overcommit=overcommit))
        self.pools.append(pool)
        return pool

    def open(self, name: str = "A") -> Pool:
        pool = self.backend.open(self.database, name)
        self.pools.append(pool)
        pool.begin()
        return pool

    def reopen(self, pool: Pool) -> Pool:
        pool.close()
        self.pools.remove(pool)
        return self.open(pool.name)

    def destroy(self, pool: Pool) -> None:
        self.backend.destroy(self.database, pool.id)
        self.pools.remove(pool)
        pool.abandon()

    def crashed(self) -> World:
        """What there is if power fails now. The world before it may go on to exist."""
        directory = self.directory / f"crashed-{len(self.later)}"
        copy_sparse(self.directory, directory)
        world = World(self.backend, directory)
        self.later.append(world)
        return world

    def close(self) -> None:
        for world in self.later:
            world.close()
        for pool in self.pools:
            pool.abandon()
        self.database.close()


@contextmanager
def inside(pool: Pool, image_id: int) -> Iterator[OpenImage]:
    opened = pool.open(image_id)
    try:
        opened.begin()
        try:
            yield opened
        finally:
            opened.end()
    finally:
        opened.close()


def write(pool: Pool, image_id: int, offset: int, data: bytes) -> None:
    with inside(pool, image_id) as opened:
        opened.write(offset, memoryview(data))


def read(pool: Pool, image_id: int, offset: int, length: int) -> bytes:
    buffer = bytearray(b"\xee" * length)
    with inside(pool, image_id) as opened:
        opened.read(offset, memoryview(buffer))
    return bytes(buffer)


def content(pool: Pool, image_id: int) -> bytes:
    return read(pool, image_id, 0, pool.image(image_id).size_bytes)


def state(pool: Pool) -> object:
    """All that a refused change must leave as it was."""
    images = sorted(pool.images(), key=lambda each: each.id)
    return images, [content(pool, each.id) for each in images], pool.capacity()
