"""A whole pool in memory, behind the real protocol: for tests that crash it.

What is durable lives in a MemoryDisk, which outlives the pool as a disk outlives a process: to crash a
system, forget its MemoryPool and its database connection, and open both again.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update
from sqlalchemy.exc import IntegrityError

from offsite.errors import BadParameter, InUse, PoolFull, VolumeNotFound
from offsite.events import Report, ignore
from offsite.pools import pool_rows, tables
from offsite.pools.backend import Capabilities, NewPool
from offsite.pools.checks import check_image_size, check_overcommit, check_promise, name_in_use
from offsite.pools.gate import Visitor, Visitors, close_gate, open_gate
from offsite.pools.health import Health
from offsite.pools.image_rows import delete_image, insert_image, rename_image
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
from offsite.pools.space import Thresholds
from offsite.store.database import Database

PAGE_BYTES = 16384
PAGES_MAX = 1 << 30  # without a limit
GATE_DEADLINE_SECONDS = 30.0
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
    deleted: bool = False
    visitors: Visitors = field(default_factory=Visitors)
    object: str | None = None  # that holds its content, where a backend has such

    def copy(self) -> Image:
        return replace(self, pages=dict(self.pages))

    def fresh(self) -> Image:
        """As it is found at the next start."""
        return replace(self, pages=dict(self.pages), visitors=Visitors())


@dataclass
class MemoryDisk:
    images: dict[int, Image] = field(default_factory=dict)


class MemoryPool:
    """See Pool. What a subclass does otherwise: how a change becomes durable (`_commit`), and a flush (`_sync`)."""

    backend = "memory"

    def __init__(self, database: Database, name: str, disk: MemoryDisk, pages_max: int = PAGES_MAX) -> None:
        self.name = name
        self.disk = disk
        self.pages_max = pages_max
        self.lock = threading.RLock()
        self._database = database
        self._changing = threading.Lock()  # one list of changes at a time
        with database.transaction() as connection:
            row = self._find_or_insert(connection)
            self.id = int(row["id"])
            self.last_id = self.id << 32
            self._thresholds, self._overcommit = pool_rows.settings_of(row)
            self.by_id = self._load(connection)

    def _find_or_insert(self, connection: Connection) -> RowMapping:
        if self.name not in dict(pool_rows.all_pools(connection)):
            pool_rows.insert_pool(
                connection,
                backend=self.backend,
                uuid=uuid.uuid4().hex,
                name=self.name,
                path="memory",
                page_bytes=PAGE_BYTES,
                size_bytes=self.pages_max * PAGE_BYTES,
                overcommit=True,
            )
        return pool_rows.read_pool(connection, self.name)

    def _load(self, connection: Connection) -> dict[int, Image]:
        """All images as they were made durable."""
        del connection
        return {i: image.fresh() for i, image in self.disk.images.items()}

    # -- images ------------------------------------------------------------------------------------------------

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
        with self._changing:
            with self.lock:
                visitors = [self.find(i).visitors for change in changes for i in _touched(change) if i >= 0]
            gate = close_gate(visitors, GATE_DEADLINE_SECONDS)
            try:
                with self.lock:
                    return self._apply(changes, records)
            finally:
                open_gate(gate, visitors)

    def _apply(self, changes: Sequence[Change], records: Records | None) -> list[ImageInfo]:
        before = {i: image.copy() for i, image in self.by_id.items()}
        made: list[Image] = []
        try:
            for change in changes:
                made.append(self._make(change, made))
            results = [self._info(image) for image in made]
            self._commit(before, records, results)
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
            self.by_id.pop(i).deleted = True

    def _make(self, change: Change, made: list[Image]) -> Image:
        def resolve(image_id: int) -> Image:
            if image_id >= 0:
                return self.find(image_id)
            if -image_id > len(made):
                raise BadParameter(f"image {image_id} stands for a change that is not there")
            return self.find(made[-image_id - 1].id)

        match change:
            case Create(name, size, kind):
                check_image_size(self.name, size, PAGE_BYTES)
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
                return self._replace(resolve(target), resolve(source))
            case Resize(image_id, size):
                return self._resize(resolve(image_id), size)
            case Rename(image_id, name):
                self._check_name(name)
                resolve(image_id).name = name
                return resolve(image_id)
            case Delete(image_id):
                return self._delete(resolve(image_id))

    def _add(self, name: str, kind: Kind, parent: int | None, size: int, pages: dict[int, bytes]) -> Image:
        self._check_name(name)
        if kind == "volume":
            self._check_promise(size)
        self.last_id = max(self.last_id, max(self.by_id, default=0)) + 1
        image = Image(self.last_id, uuid.uuid4().hex, name, kind, parent, size, time.time(), pages)
        self.by_id[image.id] = image
        return image

    def _replace(self, target: Image, source: Image) -> Image:
        if target.kind == "volume":
            self._check_promise(source.size_bytes - target.size_bytes)
        target.pages, target.size_bytes, target.object = dict(source.pages), source.size_bytes, None
        return target

    def _resize(self, image: Image, size: int) -> Image:
        check_image_size(self.name, size, PAGE_BYTES)
        if image.kind == "volume":
            self._check_promise(size - image.size_bytes)
        if size < image.size_bytes:
            MemoryOpenImage(self, image).discard(size, image.size_bytes - size)
        image.size_bytes, image.object = size, None
        return image

    def _delete(self, image: Image) -> Image:
        for child in self.by_id.values():
            child.parent_id = None if child.parent_id == image.id else child.parent_id
        image.deleted = True
        return self.by_id.pop(image.id)

    def _check_name(self, name: str) -> None:
        if any(image.name == name for image in self.by_id.values()):
            raise name_in_use(name)

    def _check_promise(self, more_bytes: int) -> None:
        if not self._overcommit and more_bytes > 0:
            check_promise(self.name, self._provisioned_bytes(), more_bytes, self.pages_max * PAGE_BYTES)

    # -- durability --------------------------------------------------------------------------------------------

    def _commit(self, before: dict[int, Image], records: Records | None, infos: Sequence[ImageInfo]) -> None:
        del before
        self._write(lambda connection: records(connection, infos) if records else None)
        self.disk.images = {i: image.fresh() for i, image in self.by_id.items()}

    def _write(self, more: Any) -> None:
        """The rows of images, and more, in one transaction."""
        try:
            with self._database.transaction() as connection:
                connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
                self._write_rows(connection)
                more(connection)
        except IntegrityError as error:
            raise InUse("an image is needed by something else in the database") from error

    def _write_rows(self, connection: Connection) -> None:
        images = tables.images
        rows = connection.execute(select(images.c.id, images.c.name).where(images.c.pool_id == self.id)).all()
        there = {row.id: row.name for row in rows}
        for gone in there.keys() - self.by_id.keys():
            delete_image(connection, gone)
        for image in self.by_id.values():
            if image.id not in there:
                insert_image(connection, self.id, self._info(image))
            elif image.name != there[image.id]:
                rename_image(connection, image.id, image.name)
            connection.execute(update(images).where(images.c.id == image.id).values(size_bytes=image.size_bytes))

    def flush(self, records: Records | None = None) -> None:
        with self.lock:
            self._sync()
            if records:
                with self._database.transaction() as connection:
                    records(connection, ())

    def _sync(self) -> None:
        """What was written is durable."""
        self.disk.images = {i: image.fresh() for i, image in self.by_id.items()}

    # -- space and life ----------------------------------------------------------------------------------------

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

    def capacity(self) -> Capacity:
        with self.lock:
            size, used = self.pages_max * PAGE_BYTES, self.pages_used() * PAGE_BYTES
            return Capacity(size, used, size - used, PAGE_BYTES, self._provisioned_bytes())

    def _provisioned_bytes(self) -> int:
        return sum(image.size_bytes for image in self.by_id.values() if image.kind == "volume")

    def is_full(self) -> bool:
        return self.pages_max < PAGES_MAX and self.pages_used() >= self.pages_max

    def pages_used(self) -> int:
        return len({id(page) for image in self.by_id.values() for page in image.pages.values()})

    @property
    def thresholds(self) -> Thresholds:
        return self._thresholds

    @property
    def overcommit(self) -> bool:
        return self._overcommit

    def configure(self, thresholds: Thresholds, *, overcommit: bool) -> None:
        check_overcommit(self.name, self.capacity(), overcommit=overcommit)
        with self._database.transaction() as connection:
            pool_rows.write_settings(connection, self.id, thresholds, overcommit)
        self._thresholds, self._overcommit = thresholds, overcommit

    @property
    def health(self) -> tuple[Health, str]:
        return Health.OK, ""

    def begin(self) -> None: ...

    def close(self) -> None:
        self.flush()

    def abandon(self) -> None: ...


class MemoryOpenImage(Visitor):
    def __init__(self, pool: MemoryPool, image: Image) -> None:
        super().__init__(image.visitors)
        image.visitors.add(self)
        self._pool = pool
        self._image = image
        self.allocation_bytes = PAGE_BYTES

    @property
    def size_bytes(self) -> int:
        return self._image.size_bytes

    def begin(self) -> None:
        self.entered = 1
        while self.visitors.gate is not None:
            self.wait_for_gate()
            self.entered = 1
        if self._image.deleted or self._image.id not in self._pool.by_id:
            self.end()
            raise VolumeNotFound(f"{self._image.name!r} was deleted")

    def end(self) -> None:
        self.entered = 0
        if (gate := self.visitors.gate) is not None:
            gate.someone_left()

    def close(self) -> None:
        self.visitors.remove(self)

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


def _touched(change: Change) -> list[int]:
    """Ids of the images whose content has to stand still."""
    return [getattr(change, field) for field in ("source", "target", "image_id") if hasattr(change, field)]


class MemoryBackend:
    """See PoolBackend."""

    name = "memory"
    capabilities = Capabilities(frozenset({"size"}), joins_transaction=True)

    def __init__(self) -> None:
        self.disks: dict[str, MemoryDisk] = {}  # by the pool's name

    def location(self, database: Database, new: NewPool) -> str:
        del database
        if new.size_bytes is None:
            raise BadParameter("give a size")
        return f"the {self.name} of this process"

    def contents(self, database: Database, new: NewPool) -> str:
        del database, new
        return ""

    def first_size_bytes(self, directory: Path) -> int:
        del directory
        return 1 << 30

    def create(self, database: Database, new: NewPool, report: Report = ignore) -> MemoryPool:
        with database.read() as connection:
            pool_rows.check_new_pool(connection, new.name)
        self.location(database, new)
        pool = self._pool(database, new.name, (new.size_bytes or 0) // PAGE_BYTES, report)
        pool.configure(pool.thresholds, overcommit=new.overcommit)
        pool.begin()
        return pool

    def _pool(self, database: Database, name: str, pages_max: int, report: Report) -> MemoryPool:
        del report
        return MemoryPool(database, name, self.disks.setdefault(name, MemoryDisk()), pages_max)

    def private_files(self, directory: Path, row: Mapping[str, Any]) -> list[Path]:
        del directory, row
        return []

    def attach(self, directory: Path, row: Mapping[str, Any], system_uuid: str | None) -> None:
        del directory, row, system_uuid

    def open(self, database: Database, name: str, report: Report = ignore, attached: object = None) -> MemoryPool:
        del attached
        with database.read() as connection:
            row = pool_rows.read_pool(connection, name)
        return self._pool(database, name, row["size_bytes"] // row["page_bytes"], report)

    def destroy(self, database: Database, pool_id: int) -> None:
        with database.transaction() as connection:
            name = connection.execute(select(tables.pools.c.name).where(tables.pools.c.id == pool_id)).scalar_one()
            pool_rows.delete_pool(connection, pool_id)
        self.disks.pop(name, None)

    def clear_remains(self, database: Database) -> list[str]:
        for row in pool_rows.remains(database, self.name):
            pool_rows.forget_remains(database, row.uuid)
        return []
