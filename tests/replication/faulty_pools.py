"""Pools whose disk does what disks do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from offsite.pools.protocol import OpenImage, Pool
from tests.pools.passing_pool import PassingPool


class WrappedPool(PassingPool):
    """`on_write` may change what is written, or raise."""

    def __init__(self, pool: Pool, on_write: Callable[[int, memoryview], memoryview]) -> None:
        super().__init__(pool)
        self.on_write = on_write

    def open(self, image_id: int) -> OpenImage:
        return WrappedImage(self.pool.open(image_id), self.on_write)


class WrappedImage:
    def __init__(self, image: OpenImage, on_write: Callable[[int, memoryview], memoryview]) -> None:
        self._image, self._on_write = image, on_write
        self.size_bytes, self.allocation_bytes = image.size_bytes, image.allocation_bytes

    def begin(self) -> None:
        self._image.begin()

    def end(self) -> None:
        self._image.end()

    def close(self) -> None:
        self._image.close()

    def read_nowait(self, _offset: int, _buffer: memoryview) -> bool:
        return False

    def read(self, offset: int, buffer: memoryview) -> None:
        self._image.read(offset, buffer)

    def write(self, offset: int, data: memoryview) -> None:
        self._image.write(offset, self._on_write(offset, data))

    def write_zeroes(self, offset: int, length: int, *, allocate: bool = False) -> None:
        self._on_write(offset, memoryview(b""))
        self._image.write_zeroes(offset, length, allocate=allocate)

    def discard(self, offset: int, length: int) -> None:
        self._on_write(offset, memoryview(b""))
        self._image.discard(offset, length)

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        return self._image.extents(offset, length)
