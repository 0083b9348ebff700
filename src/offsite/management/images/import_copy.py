"""Moving the content of images in and out, sparse: only what is not hole is moved.

    import:  internal image ──write──► filled ──one transaction──► volume with its name

So a volume that is being imported is not there before it is complete. What a stopped process left of one is
deleted at the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self
from uuid import uuid4

from offsite.management.images import point_in_time_reader
from offsite.management.images.point_in_time_reader import Frozen
from offsite.pools.protocol import Clone, Create, Delete, ImageInfo, Pool

CHUNK_BYTES = 1 << 20
_NAME_START = "<import "  # `<` is in no name of a user


class Import:
    """A volume on its way in. Close it, or use it in a `with`: what was not finished is gone then."""

    def __init__(self, pool: Pool, size_bytes: int) -> None:
        self._pool = pool
        self._id = pool.apply([Create(f"{_NAME_START}{uuid4().hex[:16]}>", size_bytes, "internal")])[0].id
        self._image = pool.open(self._id)
        self._open = True
        self._finished = False

    def write(self, offset: int, data: memoryview) -> None:
        """Raises PoolFull, or OSError if the disk fails. The caller has checked that it fits the size."""
        self._image.begin()
        try:
            self._image.write(offset, data)
        finally:
            self._image.end()

    def finish(self, name: str) -> ImageInfo:
        """Makes it the volume `name`, durably. Raises NameInUse."""
        self._close()
        volume = self._pool.apply([Clone(self._id, name), Delete(self._id)])[0]
        self._finished = True
        return volume

    def close(self) -> None:
        """Whatever was not finished is gone."""
        self._close()
        if not self._finished:
            self._finished = True
            self._pool.apply([Delete(self._id)])

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pieces(source: Frozen) -> Iterator[tuple[int, memoryview]]:
    """(offset, data) of what is not hole, by rising offset; the data is good until the next piece is asked for."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    for offset, length in source.data_extents():
        for start in range(offset, offset + length, CHUNK_BYTES):
            data = buffer[: min(CHUNK_BYTES, offset + length - start)]
            source.read(start, data)
            yield start, data


def copy(source: Pool, image: ImageInfo, target: Pool, name: str, check: Callable[[], None]) -> ImageInfo:
    """An independent volume `name` in another pool, with the content that `image` has at this instant.

    `check` is called now and then; it may raise to stop.
    """
    with Frozen(source, image) as content, Import(target, content.size_bytes) as copied:
        for offset, data in pieces(content):
            check()
            copied.write(offset, data)
        return copied.finish(name)


def delete_leftovers(pool: Pool) -> None:
    """Deletes what a process that was killed left of imports and exports."""
    left = [
        each.id
        for each in pool.images()
        if each.kind == "internal" and each.name.startswith((_NAME_START, point_in_time_reader.NAME_START))
    ]
    if left:
        pool.apply([Delete(image_id) for image_id in left])
