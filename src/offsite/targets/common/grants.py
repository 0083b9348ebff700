"""Which images an initiator may see and open over NBD."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from offsite.access.maps import INITIATORS_MAX, Maps
from offsite.pools.protocol import ImageInfo, Pool
from offsite.units import format_size

SEEN_INTERVAL_SECONDS = 60.0


@dataclass(frozen=True)
class Export:
    """An image as one initiator gets it."""

    image: ImageInfo
    pool: Pool
    read_only: bool

    @property
    def name(self) -> str:
        return self.image.name

    @property
    def size_bytes(self) -> int:
        return self.image.size_bytes

    @property
    def description(self) -> str:
        """For people."""
        access = "read-only" if self.read_only else "read-write"
        size = format_size(self.image.size_bytes)
        return f"{self.image.kind} of {size} in pool {self.image.pool}, {access}"


def everything(_image: ImageInfo) -> bool:
    return True


class Exports:
    """The images that are mapped, less those that `exportable` turns down. Safe to use from any thread.

    Volumes and snapshots are exported by name. Internal images are never exported, whatever is mapped;
    `exportable` is there to keep back others, such as the secondary volume of a replication set.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        maps: Maps,
        exportable: Callable[[ImageInfo], bool] = everything,
    ) -> None:
        self._pools = pools
        self._maps = maps
        self._exportable = exportable
        self._lock = threading.Lock()
        self._seen: dict[str, float] = {}  # what was recorded last: not every connection is worth a commit

    def visible(self, initiator: str) -> list[Export]:
        """All that `initiator` may open, by name."""
        return sorted(self._granted(initiator), key=lambda export: export.name)

    def find(self, name: str, initiator: str) -> Export | None:
        """None for a name that is not there and for one that is not mapped to `initiator`, alike."""
        return next((export for export in self._granted(initiator) if export.name == name), None)

    def still_granted(self, export: Export, initiator: str) -> bool:
        """Whether a connection made for `export` may go on: the same image, under whatever name now."""
        return any(
            found.image.id == export.image.id and found.pool is export.pool and found.read_only == export.read_only
            for found in self._granted(initiator)
        )

    def seen(self, initiator: str, now: float) -> None:
        """Records that `initiator` was here at `now` (seconds since the epoch), at most once a minute."""
        with self._lock:
            if now - self._seen.get(initiator, -SEEN_INTERVAL_SECONDS) < SEEN_INTERVAL_SECONDS:
                return
            if len(self._seen) >= INITIATORS_MAX:
                self._seen.clear()
            self._seen[initiator] = now
        self._maps.seen(initiator, now)

    def _granted(self, initiator: str) -> Iterator[Export]:
        granted = self._maps.granted(initiator)
        for pool in list(self._pools.values()):
            for image in pool.images():
                access = granted.get(image.id)
                if access is not None and image.kind != "internal" and self._exportable(image):
                    yield Export(image, pool, access == "read-only")
