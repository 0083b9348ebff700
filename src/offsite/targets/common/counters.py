"""What hosts do, counted by volume, by initiator and by port: reads, writes, their bytes and their time.

    connection ──counts──▶ its own Activity ──at its end──▶ what ended connections left ─┐
                                │                                                        ├──▶ Totals, when asked for
                                └────────────────────────────────────────────────────────┘

No request takes a lock: each connection counts in numbers of its own, which only its thread changes, and whoever wants
to know adds them up. Time is measured for a batch of requests: from its arrival until its replies have been sent.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

KEPT_MAX = 4096  # of volumes, and of initiators, that nobody uses now: the one not used for longest is forgotten


@dataclass(frozen=True, slots=True)
class Port:
    """Where a target listens."""

    protocol: str  # "nbd"
    address: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Since the system was started. The seconds are those of all requests, added up: divide them by their number."""

    reads: int = 0
    read_bytes: int = 0
    read_seconds: float = 0.0
    writes: int = 0
    written_bytes: int = 0
    write_seconds: float = 0.0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Totals)))


class Activity:
    """What one connection does with one image. Only its thread counts.

    While a batch is carried out, `batch_reads` and `batch_writes` count its requests, the bytes are added at once, and
    `end_batch` adds the time. What is answered later, by itself, goes to `add_read` and `add_write`.
    """

    __slots__ = (
        "batch_reads", "batch_writes", "image_uuid", "initiator", "port", "read_bytes", "read_seconds", "reads",
        "write_seconds", "writes", "written_bytes",
    )  # fmt: skip

    def __init__(self, image_uuid: str, initiator: str, port: Port) -> None:
        self.image_uuid = image_uuid
        self.initiator = initiator
        self.port = port
        self.batch_reads = self.batch_writes = 0
        self.reads = self.read_bytes = self.writes = self.written_bytes = 0
        self.read_seconds = self.write_seconds = 0.0

    def end_batch(self, seconds: float) -> None:
        """All that was counted in the batch was answered, `seconds` after it had come."""
        reads, writes = self.batch_reads, self.batch_writes
        if reads:
            self.reads += reads
            self.read_seconds += reads * seconds
            self.batch_reads = 0
        if writes:
            self.writes += writes
            self.write_seconds += writes * seconds
            self.batch_writes = 0

    def add_read(self, size_bytes: int, seconds: float) -> None:
        self.reads += 1
        self.read_bytes += size_bytes
        self.read_seconds += seconds

    def add_write(self, size_bytes: int, seconds: float) -> None:
        self.writes += 1
        self.written_bytes += size_bytes
        self.write_seconds += seconds

    def totals(self) -> Totals:
        return Totals(
            self.reads, self.read_bytes, self.read_seconds, self.writes, self.written_bytes, self.write_seconds
        )


Key = TypeVar("Key", bound=Hashable)


class _Kept(Generic[Key]):
    """What ended connections left, by volume, initiator or port."""

    def __init__(self) -> None:
        self.totals: dict[Key, Totals] = {}  # the one that was used last comes last

    def add(self, key: Key, totals: Totals, in_use: Iterable[Key] = ()) -> None:
        """What is `in_use` is not forgotten: a counter would go back under its user."""
        self.totals[key] = self.totals.pop(key, Totals()) + totals
        if len(self.totals) > KEPT_MAX:
            kept = set(in_use)
            oldest = next((each for each in self.totals if each not in kept), None)
            if oldest is not None:
                del self.totals[oldest]

    def with_living(self, living: Iterator[tuple[Key, Totals]]) -> dict[Key, Totals]:
        found = dict(self.totals)
        for key, totals in living:
            found[key] = found.get(key, Totals()) + totals
        return found


class Counters:
    """Of a system, for all its targets. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._living: set[Activity] = set()
        self._volumes: _Kept[str] = _Kept()
        self._initiators: _Kept[str] = _Kept()
        self._ports: _Kept[Port] = _Kept()

    def add_port(self, port: Port) -> None:
        """So that one which nobody has used yet is there, too."""
        with self._lock:
            self._ports.add(port, Totals())

    @contextmanager
    def counting(self, image_uuid: str, initiator: str, port: Port) -> Iterator[Activity]:
        """For as long as a connection uses an image."""
        activity = Activity(image_uuid, initiator, port)
        with self._lock:
            self._living.add(activity)
        try:
            yield activity
        finally:
            self._end(activity)

    def volumes(self) -> dict[str, Totals]:
        """By the image's UUID: of all that were used, also of some that are deleted."""
        with self._lock:
            return self._volumes.with_living((each.image_uuid, each.totals()) for each in self._living)

    def initiators(self) -> dict[str, Totals]:
        """By the initiator's id."""
        with self._lock:
            return self._initiators.with_living((each.initiator, each.totals()) for each in self._living)

    def ports(self) -> dict[Port, Totals]:
        with self._lock:
            return self._ports.with_living((each.port, each.totals()) for each in self._living)

    def _end(self, activity: Activity) -> None:
        totals = activity.totals()
        with self._lock:
            self._living.remove(activity)
            self._volumes.add(activity.image_uuid, totals, (each.image_uuid for each in self._living))
            self._initiators.add(activity.initiator, totals, (each.initiator for each in self._living))
            self._ports.add(activity.port, totals, (each.port for each in self._living))
