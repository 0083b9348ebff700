"""A made-up third kind of pool: images are objects of a store that knows nothing of the database's transactions.

As Ceph does, the store goes on by itself when the system loses power; what was not flushed is lost then. Every step
that a change of images takes can be the last one before power fails.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from offsite.errors import StateDirectoryError
from offsite.events import Report
from offsite.pools import pool_rows, tables
from offsite.pools.backend import Capabilities
from offsite.pools.objects import Objects
from offsite.pools.protocol import ImageInfo, Records
from offsite.store.database import Database
from tests.pools.memory_pool import Image, MemoryBackend, MemoryDisk, MemoryPool


class PowerFailed(BaseException):
    """Nothing catches it."""


@dataclass
class ObjectStore:
    """Objects of all pools, by pool and name. It outlives whoever uses it."""

    objects: dict[str, dict[str, dict[int, bytes]]] = field(default_factory=dict)
    fails_at: int | None = None  # the number of the step before which power fails
    steps: int = 0

    def step(self) -> None:
        if self.steps == self.fails_at:
            raise PowerFailed
        self.steps += 1

    def of(self, pool: str) -> dict[str, dict[int, bytes]]:
        return self.objects.setdefault(pool, {})


class ObjectPool(MemoryPool):
    """See offsite.pools.objects for the order of things."""

    backend = "objects"

    def __init__(self, database: Database, name: str, store: ObjectStore, pages_max: int) -> None:
        self.store = store
        super().__init__(database, name, MemoryDisk(), pages_max)
        self._objects = Objects(database, self.id)

    def _load(self, connection: Connection) -> dict[int, Image]:
        """The database says which images there are."""
        names = Objects(self._database, self.id).by_image(connection)
        rows = connection.execute(select(tables.images).where(tables.images.c.pool_id == self.id)).all()
        return {
            row.id: Image(
                row.id,
                row.uuid,
                row.name,
                row.kind,
                row.parent_id,
                row.size_bytes,
                row.created_at,
                dict(self.store.of(self.name)[names[row.id]]),
                object=names[row.id],
            )
            for row in rows
        }

    def begin(self) -> None:
        """What a change that was cut has left is removed."""
        self._remove(self._objects.unneeded())

    def _commit(self, before: dict[int, Image], records: Records | None, infos: Sequence[ImageInfo]) -> None:
        made = {uuid.uuid4().hex: image for image in self.by_id.values() if image.object is None}
        self.store.step()
        self._objects.intend(made.keys())
        try:
            for name, image in made.items():
                self.store.step()
                self.store.of(self.name)[name] = dict(image.pages)
                image.object = name
            self._sync()
            let_go = {each.object for each in before.values()} - {each.object for each in self.by_id.values()}
            gone = [each for each in let_go if each is not None]
            self.store.step()
            self._write(lambda connection: self._write_more(connection, made, gone, records, infos))
        except Exception:
            self._remove(list(made))
            raise
        with suppress(StateDirectoryError):  # what was asked for is done; the next start removes them
            self._remove(gone)

    def _write_more(
        self,
        connection: Connection,
        made: dict[str, Image],
        gone: list[str],
        records: Records | None,
        infos: Sequence[ImageInfo],
    ) -> None:
        self._objects.commit(connection, {image.id: name for name, image in made.items()}, gone)
        if records:
            records(connection, infos)

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self.store.step()
            self.store.of(self.name).pop(name, None)
        self.store.step()
        self._objects.settle(names)
        self.store.step()

    def _sync(self) -> None:
        for image in self.by_id.values():
            if image.object is not None:
                self.store.of(self.name)[image.object] = dict(image.pages)


class ObjectBackend(MemoryBackend):
    """See PoolBackend."""

    name = "objects"
    capabilities = Capabilities(frozenset({"size"}), joins_transaction=False)

    def __init__(self) -> None:
        super().__init__()
        self.store = ObjectStore()

    def _pool(self, database: Database, name: str, pages_max: int, report: Report) -> ObjectPool:
        del report
        return ObjectPool(database, name, self.store, pages_max)

    def destroy(self, database: Database, pool_id: int) -> None:
        with database.transaction() as connection:
            pool_rows.delete_pool(connection, pool_id)

    def clear_remains(self, database: Database) -> list[str]:
        """The objects of deleted pools; those of a new pool of the same name stay."""
        with database.read() as connection:
            known = {name for name, _ in pool_rows.all_pools(connection)}
        for name in self.store.objects.keys() - known:
            del self.store.objects[name]
        return super().clear_remains(database)


@contextmanager
def power_fails_before(store: ObjectStore, step: int) -> Iterator[None]:
    """Step 0 is the first from now on."""
    store.steps, store.fails_at = 0, step
    try:
        yield
    finally:
        store.fails_at = None
