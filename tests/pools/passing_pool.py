"""A pool that passes everything on to another: what some tests put in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from offsite.pools.health import Health
from offsite.pools.protocol import Capacity, Change, Extent, ImageInfo, OpenImage, Pool, Records
from offsite.pools.space import Thresholds


class PassingPool:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.name, self.id = pool.name, pool.id

    def open(self, image_id: int) -> OpenImage:
        return self.pool.open(image_id)

    def apply(self, changes: Sequence[Change], records: Records | None = None) -> list[ImageInfo]:
        return self.pool.apply(changes, records)

    def flush(self, records: Records | None = None) -> None:
        self.pool.flush(records)

    def images(self) -> list[ImageInfo]:
        return self.pool.images()

    def image(self, image_id: int) -> ImageInfo:
        return self.pool.image(image_id)

    def difference(self, old: int | None, new: int, start: int = 0) -> Iterator[Extent]:
        return self.pool.difference(old, new, start)

    def capacity(self) -> Capacity:
        return self.pool.capacity()

    @property
    def thresholds(self) -> Thresholds:
        return self.pool.thresholds

    @property
    def overcommit(self) -> bool:
        return self.pool.overcommit

    def configure(self, thresholds: Thresholds, *, overcommit: bool) -> None:
        self.pool.configure(thresholds, overcommit=overcommit)

    @property
    def health(self) -> tuple[Health, str]:
        return self.pool.health

    def begin(self) -> None:
        self.pool.begin()

    def close(self) -> None:
        self.pool.close()

    def abandon(self) -> None:
        self.pool.abandon()
