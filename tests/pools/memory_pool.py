"""A whole pool in memory, behind the real protocol: for tests that crash it, and for the simulator.

What is durable lives in a MemoryDisk, which outlives the pool as a disk outlives a process: to crash a
system, forget its MemoryPool and its database connection, and open both again.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, delete, insert, select, update

from offsite.errors import NameInUse, PoolFull, VolumeNotFound
from offsite.pools import tables
from offsite.pools.protocol import (
    Capacity,
    Change,
    Clone,
    Create,
    Delete,
    Extent,
    ExtentKind,
    ImageInfo,
    Kind,
    Records,
    Rename,
    Replace,
    Resize,
    Snapshot,
)
from offsite.store.database import Database

PAGE_BYTES = 16384
PAGES_MAX = 1 << 30  # without a limit
_ZERO_PAGE = bytes(PAGE_BYTES)


@dataclass
class Image:
    """Pages are immutable, so that copying the dictionary copies the image."""

    id: int
    uuid: str
    name: str
    kind: Kind
    parent_id: int | None
    size_bytes: int
    created_at: float
    pages: dict[int, bytes] = field(default_factory=dict)

    def copy(self) -> Image:
        return replace(self, pages=dict(self.pages))


@dataclass
class MemoryDisk:
    images: dict[int, Image] = field(default_factory=dict)


class MemoryPool:
    def __init__(self, database: Database, name: str, disk: MemoryDisk, pages_max: int = PAGES_MAX) -> None:
        self.name = name
        self.disk = disk
        self.pages_max = pages_max
        self.lock = threading.RLock()
        self._database = database
        self.id = self._find_or_insert()
        self.by_id = {i: image.copy() for i, image in disk.images.items()}

    def _find_or_insert(self) -> int:
        pools = tables.pools
        with self._database.transaction() as connection:
            found = connection.execute(select(pools.c.id).where(pools.c.name == self.name)).scalar()
            if found is not None:
                return int(found)
            values = {"uuid": str(uuid.uuid4()), "name": self.name, "path": "memory", "overcommit": True}
            sizes = {"page_bytes": PAGE_BYTES, "size_bytes": self.pages_max * PAGE_BYTES, "created_at": 0.0}
            thresholds = {f"{level}_threshold_percent": 50.0 for level in ("low", "middle", "high")}
            statement = insert(pools).values(values | sizes | thresholds).returning(pools.c.id)
            return int(connection.execute(statement).scalar_one())

    def images(self) -> list[ImageInfo]:
        with self.lock:
            return [self._info(image) for image in self.by_id.values()]

    def image(self, image_id: int) -> ImageInfo:
        with self.lock:
            return self._info(self.find(image_id))

    def find(self, image_id: int) -> Image:
        if image_id not in self.by_id:
            raise VolumeNotFound(f"there is no image {image_id} in pool {self.name}")
        return self.by_id[image_id]

    def _info(self, image: Image) -> ImageInfo:
        return ImageInfo(
            image.id,
            image.uuid,
            self.name,
            image.name,
            image.kind,
            image.parent_id,
            image.size_bytes,
            image.created_at,
            len(image.pages) * PAGE_BYTES,
        )

    def open(self, image_id: int) -> MemoryOpenImage:
        with self.lock:
            return MemoryOpenImage(self, self.find(image_id))

    def apply(self, changes: Sequence[Change], records: Records | None = None) -> list[ImageInfo]:
        with self.lock:
            before = {i: image.copy() for i, image in self.by_id.items()}
            made: list[Image] = []
            try:
                for change in changes:
                    made.append(self._make(change, made))
                results = [self._info(image) for image in made]
                self._commit(records, results)
            except BaseException:
                self._take_back(before)
                raise
            return results

    def _take_back(self, before: dict[int, Image]) -> None:
        for i, image in before.items():
            if i in self.by_id:  # whoever has it open goes on seeing it
                self.by_id[i].__dict__.update(image.__dict__)
            else:
                self.by_id[i] = image
        for i in self.by_id.keys() - before.keys():
            del self.by_id[i]

    def _make(self, change: Change, made: list[Image]) -> Image:
        def resolve(image_id: int) -> Image:
            return made[-image_id - 1] if image_id < 0 else self.find(image_id)

        match change:
            case Create(name, size, kind):
                return self._add(name, kind, None, size, {})
            case Snapshot(source, name, kind, parent, created_at):
                image = resolve(source)
                parent_id = resolve(source if parent is None else parent).id
                made_image = self._add(name, kind, parent_id, image.size_bytes, dict(image.pages))
                made_image.created_at = made_image.created_at if created_at is None else created_at
                return made_image
            case Clone(source, name, kind):
                image = resolve(source)
                return self._add(name, kind, None, image.size_bytes, dict(image.pages))
            case Replace(target, source):
                image = resolve(target)
                image.pages, image.size_bytes = dict(resolve(source).pages), resolve(source).size_bytes
                return image
            case Resize(image_id, size):
                image = resolve(image_id)
                shrunk = image.size_bytes - size
                if shrunk > 0:
                    MemoryOpenImage(self, image).discard(size, shrunk)
                image.size_bytes = size
                return image
            case Rename(image_id, name):
                self._check_name(name)
                resolve(image_id).name = name
                return resolve(image_id)
            case Delete(image_id):
                return self.by_id.pop(resolve(image_id).id)

    def _add(self, name: str, kind: Kind, parent: int | None, size: int, pages: dict[int, bytes]) -> Image:
        self._check_name(name)
        self.last_id = max(getattr(self, "last_id", self.id << 32), max(self.by_id, default=0)) + 1
        image = Image(self.last_id, str(uuid.uuid4()), name, kind, parent, size, time.time(), pages)
        self.by_id[image.id] = image
        return image

    def _check_name(self, name: str) -> None:
        images = tables.images
        with self._database.read() as connection:
            other = connection.execute(
                select(images.c.id).where(images.c.name == name, images.c.pool_id != self.id)
            ).first()
        if other or any(image.name == name for image in self.by_id.values()):
            raise NameInUse(f"the name {name!r} is in use")

    def _commit(self, records: Records | None, infos: Sequence[ImageInfo]) -> None:
        with self._database.transaction() as connection:
            self._write_rows(connection)
            if records:
                records(connection, infos)
        self.disk.images = {i: image.copy() for i, image in self.by_id.items()}

    def _write_rows(self, connection: Connection) -> None:
        images = tables.images
        there = set(connection.execute(select(images.c.id).where(images.c.pool_id == self.id)).scalars())
        for gone in there - self.by_id.keys():
            connection.execute(delete(images).where(images.c.id == gone))
        for image in self.by_id.values():
            values = {k: v for k, v in image.__dict__.items() if k != "pages"} | {
                "pool_id": self.id,
                "nodes": b"",
            }
            statement = update(images).where(images.c.id == image.id) if image.id in there else insert(images)
            connection.execute(statement.values(values))

    def difference(self, old: int | None, new: int, start: int = 0) -> Iterator[Extent]:
        with self.lock:
            before = self.find(old).pages if old is not None else {}
            after, size = self.find(new).pages, self.find(new).size_bytes
        pending: Extent | None = None
        for page in sorted(before.keys() | after.keys()):
            if before.get(page) is after.get(page) or (page + 1) * PAGE_BYTES <= start:
                continue
            kind = ExtentKind.HOLE if page not in after else ExtentKind.CHANGED if page in before else ExtentKind.DATA
            offset, end = max(start, page * PAGE_BYTES), min(size, (page + 1) * PAGE_BYTES)
            if offset >= end:
                continue
            if pending and pending.kind is kind and pending.offset + pending.length == offset:
                pending = Extent(pending.offset, end - pending.offset, kind)
                continue
            if pending:
                yield pending
            pending = Extent(offset, end - offset, kind)
        if pending:
            yield pending

    def flush(self, records: Records | None = None) -> None:
        with self.lock:
            self._commit(records, [])

    def capacity(self) -> Capacity:
        with self.lock:
            provisioned = sum(image.size_bytes for image in self.by_id.values() if image.kind == "volume")
            size, used = self.pages_max * PAGE_BYTES, self.pages_used() * PAGE_BYTES
            return Capacity(size, used, size - used, PAGE_BYTES, provisioned)

    def is_full(self) -> bool:
        return self.pages_max < PAGES_MAX and self.pages_used() >= self.pages_max

    def pages_used(self) -> int:
        return len({id(page) for image in self.by_id.values() for page in image.pages.values()})

    def close(self) -> None:
        self.flush()


class MemoryOpenImage:
    def __init__(self, pool: MemoryPool, image: Image) -> None:
        self._pool = pool
        self._image = image
        self.allocation_bytes = PAGE_BYTES
        self.size_bytes = image.size_bytes

    def begin(self) -> None:
        if self._image.id not in self._pool.by_id:
            raise VolumeNotFound(f"{self._image.name!r} was deleted")

    def end(self) -> None: ...

    def close(self) -> None: ...

    def read_nowait(self, offset: int, buffer: memoryview) -> bool:
        self.read(offset, buffer)
        return True

    def read(self, offset: int, buffer: memoryview) -> None:
        done = 0
        for page, within, length in _pieces(offset, len(buffer)):
            content = self._image.pages.get(page, _ZERO_PAGE)
            buffer[done : done + length] = content[within : within + length]
            done += length

    def write(self, offset: int, data: memoryview) -> None:
        done = 0
        with self._pool.lock:
            for page, within, length in _pieces(offset, len(data)):
                if page not in self._image.pages and self._pool.is_full():
                    raise PoolFull("no free page is left")
                content = bytearray(self._image.pages.get(page, _ZERO_PAGE))
                content[within : within + length] = data[done : done + length]
                self._image.pages[page] = bytes(content)
                done += length

    def write_zeroes(self, offset: int, length: int, *, allocate: bool = False) -> None:
        with self._pool.lock:
            touched = [p for p in self._image.pages if p * PAGE_BYTES < offset + length]
            for page in touched:
                first = max(offset, page * PAGE_BYTES)
                last = min(offset + length, (page + 1) * PAGE_BYTES, self.size_bytes)
                if first >= last:
                    continue
                whole = last - first == min(PAGE_BYTES, self.size_bytes - page * PAGE_BYTES)
                if whole and not allocate:
                    del self._image.pages[page]
                else:
                    self.write(first, memoryview(bytes(last - first)))

    def discard(self, offset: int, length: int) -> None:
        self.write_zeroes(offset, length)

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        run, kind = 0, False
        for page, _, piece in _pieces(offset, length):
            has_data = page in self._image.pages
            if run and has_data != kind:
                yield run, kind
                run = 0
            run, kind = run + piece, has_data
        if run:
            yield run, kind


def _pieces(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """(page, offset in it, length) of what lies in one page."""
    end = offset + length
    while offset < end:
        page, within = divmod(offset, PAGE_BYTES)
        piece = min(PAGE_BYTES - within, end - offset)
        yield page, within, piece
        offset += piece
