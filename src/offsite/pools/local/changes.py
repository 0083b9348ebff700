"""What each change does to the images in memory, and how to take it back.

A change is made in memory at its instant, then written. Should writing fail, every change is taken back
in reverse order, so that memory says again what the database says. Until it is known which of the two it is,
nobody gets into an image that is new, replaced, resized or deleted: a host's write would be lost, or refused for
nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

from sqlalchemy import Connection

from offsite.errors import BadParameter, VolumeNotFound
from offsite.pools.checks import check_image_size, check_promise, name_in_use
from offsite.pools.gate import Visitors
from offsite.pools.image_rows import delete_image, insert_image, rename_image
from offsite.pools.local.core import PoolCore
from offsite.pools.local.image import Image
from offsite.pools.local.page_table import HOLE, Node, Nodes
from offsite.pools.protocol import (
    Change,
    Clone,
    Create,
    Delete,
    Kind,
    Rename,
    Replace,
    Resize,
    Snapshot,
)

IMAGES_MAX = 16384  # owners of a page are counted in 16 bits


class Applying:
    """The changes of one call. Everything here happens under the pool's lock, but for `write`."""

    def __init__(self, pool: PoolCore, now: float) -> None:
        self._pool = pool
        self._now = now
        self._undo: list[Callable[[], None]] = []
        self._let_go: list[Nodes] = []  # what nobody needs once the changes are durable
        self._rows: list[Callable[[Connection], object]] = []
        self.results: list[Image] = []
        self.unsettled: list[Visitors] = []  # of images that nobody gets into before this is durable

    def make(self, change: Change) -> None:
        match change:
            case Create(name, size_bytes, kind):
                self.results.append(self._add(name, kind, None, self._checked_size(size_bytes), Nodes(), 0))
            case Snapshot(source, name, kind, parent, created_at):
                parent_id = self._find(source if parent is None else parent).id
                self.results.append(self._copy(self._find(source), name, kind, parent_id, created_at))
            case Clone(source, name, kind):
                self.results.append(self._copy(self._find(source), name, kind, None))
            case Replace(target, source):
                self.results.append(self._replace(self._find(target), self._find(source)))
            case Resize(image_id, size_bytes):
                self.results.append(self._resize(self._find(image_id), self._checked_size(size_bytes)))
            case Rename(image_id, name):
                self.results.append(self._rename(self._find(image_id), name))
            case Delete(image_id):
                self.results.append(self._delete(self._find(image_id)))

    def write(self, connection: Connection) -> None:
        """Writes the rows of images. References between tables are checked at the end of the transaction."""
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        for row in self._rows:
            row(connection)

    def take_back(self) -> None:
        for step in reversed(self._undo):
            step()

    def unneeded(self) -> Iterator[Node]:
        """What was replaced and deleted, to be let go once the changes are durable."""
        for nodes in self._let_go:
            yield from nodes.values()

    def _find(self, image_id: int) -> Image:
        if image_id >= 0:
            return self._pool.find(image_id)
        if -image_id > len(self.results):
            raise BadParameter(
                f"image {image_id} stands for change {-image_id}, and only {len(self.results)} came before"
            )
        image = self.results[-image_id - 1]
        if image.deleted:
            raise VolumeNotFound(f"image {image_id} ({image.name!r}) was deleted by an earlier change of the same call")
        return image

    def _checked_size(self, size_bytes: int) -> int:
        check_image_size(self._pool.name, size_bytes, self._pool.store.page_bytes)
        return size_bytes

    def _check_name(self, name: str) -> None:
        if name in self._pool.names:
            raise name_in_use(name)

    def _check_provisioned(self, more_bytes: int) -> None:
        pool = self._pool
        if not pool.overcommit:
            check_promise(pool.name, pool.provisioned_bytes(), more_bytes, pool.store.size_bytes)

    def _add(
        self,
        name: str,
        kind: Kind,
        parent_id: int | None,
        size_bytes: int,
        nodes: Nodes,
        mapped_pages: int,
        created_at: float | None = None,
    ) -> Image:
        self._check_name(name)
        if kind == "volume":
            self._check_provisioned(size_bytes)
        pool = self._pool
        if len(pool.by_id) >= IMAGES_MAX:
            raise BadParameter(f"pool {pool.name} has {IMAGES_MAX} images, which is the maximum")
        image = Image(
            id=pool.take_image_id(),
            uuid=uuid.uuid4().hex,
            name=name,
            kind=kind,
            parent_id=parent_id,
            size_bytes=size_bytes,
            created_at=self._now if created_at is None else created_at,
            nodes=nodes,
            mapped_pages=mapped_pages,
        )
        pool.by_id[image.id] = image
        pool.names[name] = image.id
        self.unsettled.append(image.visitors)

        def undo() -> None:
            del pool.by_id[image.id], pool.names[name]
            image.deleted = True
            for node in image.nodes.values():
                pool.table.drop_node(node)

        self._undo.append(undo)
        # The flush that is a part of this change writes its nodes.
        info = image.info(pool.name, pool.store.page_bytes)
        self._rows.append(lambda connection: insert_image(connection, pool.id, info))
        return image

    def _copy(
        self, source: Image, name: str, kind: Kind, parent_id: int | None, created_at: float | None = None
    ) -> Image:
        self._check_name(name)
        nodes = self._pool.table.share(source.nodes)
        try:
            return self._add(name, kind, parent_id, source.size_bytes, nodes, source.mapped_pages, created_at)
        except BadParameter:
            for node in nodes.values():
                self._pool.table.drop_node(node)
            raise

    def _replace(self, target: Image, source: Image) -> Image:
        if target.kind == "volume" and source.size_bytes > target.size_bytes:
            self._check_provisioned(source.size_bytes - target.size_bytes)
        before, size_bytes, mapped_pages = Nodes(target.nodes), target.size_bytes, target.mapped_pages
        after = self._pool.table.share(source.nodes)
        self._swap(target, after, source.size_bytes, source.mapped_pages)
        self._let_go.append(before)

        def undo() -> None:
            self._swap(target, before, size_bytes, mapped_pages)
            for node in after.values():
                self._pool.table.drop_node(node)

        self._undo.append(undo)
        return target

    def _swap(self, target: Image, nodes: Nodes, size_bytes: int, mapped_pages: int) -> None:
        # In place: open images hold on to the dictionary.
        self.unsettled.append(target.visitors)
        target.nodes.clear()
        target.nodes.update(nodes)
        target.nodes.changed = True
        target.size_bytes, target.mapped_pages = size_bytes, mapped_pages

    def _resize(self, image: Image, size_bytes: int) -> Image:
        before = image.size_bytes
        if size_bytes < before:
            return self._cut(image, size_bytes)
        if image.kind == "volume":
            self._check_provisioned(size_bytes - before)
        self.unsettled.append(image.visitors)
        image.size_bytes = size_bytes
        image.nodes.changed = True

        def undo() -> None:
            image.size_bytes = before

        self._undo.append(undo)
        return image

    def _cut(self, image: Image, size_bytes: int) -> Image:
        """Cuts a copy, so that the whole can be put back."""
        table, page_bytes = self._pool.table, self._pool.store.page_bytes
        before, before_bytes, before_mapped = Nodes(image.nodes), image.size_bytes, image.mapped_pages
        after = table.share(image.nodes)
        first, last = -(-size_bytes // page_bytes), -(-before_bytes // page_bytes)
        try:
            cut = table.set_pages(after, first, last - first, None)
            self._zero_tail(after, size_bytes)
        except BaseException:
            for node in after.values():
                table.drop_node(node)
            raise
        self._swap(image, after, size_bytes, before_mapped - cut)
        self._let_go.append(before)

        def undo() -> None:
            self._swap(image, before, before_bytes, before_mapped)
            for node in after.values():
                table.drop_node(node)

        self._undo.append(undo)
        return image

    def _zero_tail(self, nodes: Nodes, size_bytes: int) -> None:
        """Zeroes what lies behind the new end in its page: it must not come back when the image grows again."""
        pool = self._pool
        index, kept = divmod(size_bytes, pool.store.page_bytes)
        old = pool.table.page_at(nodes, index)
        if not kept or old == HOLE:
            return
        page = bytearray(pool.store.page_bytes)
        pool.store.read(old * len(page), memoryview(page)[:kept])
        new, _ = pool.take(1, to_overwrite=True)
        try:
            pool.store.write(new * len(page), page)
        except BaseException:
            pool.give_back(new, 1)
            raise
        pool.table.set_page(nodes, index, new)

    def _rename(self, image: Image, name: str) -> Image:
        self._check_name(name)
        before, names = image.name, self._pool.names
        names[name] = names.pop(before)
        image.name = name

        def undo() -> None:
            names[before] = names.pop(name)
            image.name = before

        self._undo.append(undo)
        self._rows.append(lambda connection: rename_image(connection, image.id, name))
        return image

    def _delete(self, image: Image) -> Image:
        pool = self._pool
        children = [child for child in pool.by_id.values() if child.parent_id == image.id]
        del pool.by_id[image.id], pool.names[image.name]
        image.deleted = True
        self.unsettled.append(image.visitors)
        for child in children:
            child.parent_id = None
        self._let_go.append(image.nodes)

        def undo() -> None:
            pool.by_id[image.id] = image
            pool.names[image.name] = image.id
            image.deleted = False
            for child in children:
                child.parent_id = image.id

        self._undo.append(undo)
        self._rows.append(lambda connection: delete_image(connection, image.id))
        return image
