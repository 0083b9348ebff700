"""The content that an image has at one instant, for as long as someone reads it.

It is a snapshot that no one else sees. What a stopped process left of such snapshots is deleted at the next
start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self
from uuid import uuid4

from offsite.pools.protocol import Delete, ExtentKind, ImageInfo, Pool, Snapshot

NAME_START = "<frozen "  # `<` is in no name of a user


class Frozen:
    """Close it, or use it in a `with`. One thread at a time may read."""

    def __init__(self, pool: Pool, image: ImageInfo) -> None:
        self._pool = pool
        (snapshot,) = pool.apply([Snapshot(image.id, f"{NAME_START}{uuid4().hex[:16]}>", "internal")])
        self._id = snapshot.id
        self._image = pool.open(snapshot.id)
        self.size_bytes = snapshot.size_bytes

    def data_extents(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of what is not hole, by rising offset."""
        for extent in self._pool.difference(None, self._id):
            if extent.kind is not ExtentKind.HOLE:
                yield extent.offset, extent.length

    def read(self, offset: int, buffer: memoryview) -> None:
        self._image.begin()
        try:
            self._image.read(offset, buffer)
        finally:
            self._image.end()

    def close(self) -> None:
        self._image.close()
        self._pool.apply([Delete(self._id)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
