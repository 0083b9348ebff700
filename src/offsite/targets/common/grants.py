"""Which images an initiator may use, with which access: by name, or by LUN."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from offsite.access.maps import INITIATORS_MAX, Map, Maps
from offsite.pools.protocol import ImageInfo, Pool
from offsite.units import format_size

SEEN_INTERVAL_SECONDS = 60.0


@dataclass(frozen=True)
class Grant:
    """An image as one initiator gets it."""

    image: ImageInfo
    pool: Pool
    read_only: bool
    lun: int | None = None  # where the initiator uses it; none: by its name

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


class Grants:
    """The images that are mapped, less those that `available` turns down. Safe to use from any thread.

    Internal images are granted to nobody, whatever is mapped; `available` is there to keep back others, such as the
    secondary volume of a replication set.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        maps: Maps,
        available: Callable[[ImageInfo], bool] = everything,
    ) -> None:
        self._pools = pools
        self._maps = maps
        self._available = available
        self._lock = threading.Lock()
        self._seen: dict[str, float] = {}  # what was recorded last: not every connection is worth a commit

    def by_name(self, initiator: str) -> list[Grant]:
        """All that `initiator` may use, sorted by name."""
        return sorted((grant for grant, _ in self._granted(initiator)), key=lambda grant: grant.name)

    def find(self, name: str, initiator: str) -> Grant | None:
        """None for a name that is not there and for one that is not mapped to `initiator`, alike."""
        return next((grant for grant, _ in self._granted(initiator) if grant.name == name), None)

    def by_lun(self, initiator: str) -> dict[int, Grant]:
        """All that `initiator` may use and that is mapped with a LUN. At a LUN that a map of its own and the default
        map give to two images, it finds that of its own map."""
        found = [(map, replace(grant, lun=map.lun)) for grant, map in self._granted(initiator) if map.lun is not None]
        found.sort(key=lambda each: (not each[0].is_default, each[1].image.id))
        return {grant.lun: grant for _, grant in found if grant.lun is not None}

    def still_granted(self, grant: Grant, initiator: str) -> bool:
        """Whether a connection may go on with `grant`: the same image with the same access, under whatever name now;
        at the same LUN, if it was granted by LUN."""
        if grant.lun is None:
            now = self.by_name(initiator)
        else:
            now = [each for lun, each in self.by_lun(initiator).items() if lun == grant.lun]
        return any(
            each.image.id == grant.image.id and each.pool is grant.pool and each.read_only == grant.read_only
            for each in now
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

    def _granted(self, initiator: str) -> Iterator[tuple[Grant, Map]]:
        granted = self._maps.granted(initiator)
        for pool in list(self._pools.values()):
            for image in pool.images():
                map = granted.get(image.id)
                if map is not None and image.kind != "internal" and self._available(image):
                    yield Grant(image, pool, map.access == "read-only"), map
