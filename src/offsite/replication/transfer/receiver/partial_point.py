"""PartialPoint one point on the secondary, over one connection: storing batches, and remembering durably how far it is.

A watermark is recorded every 64 MiB or second, by a flush that runs beside the storing: so the disk works during
the transfer, the flush at the end is short, and a cut costs little.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection

from offsite.clock import Clock
from offsite.errors import DigestMismatch, PoolFull
from offsite.pools.protocol import Pool
from offsite.replication.points import point_records
from offsite.replication.points.point_records import PointRecord
from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.run_writer import note_run
from offsite.replication.transfer.receiver.batch_writer import BatchWriter
from offsite.replication.transfer.receiver.fence import Fence
from offsite.replication.transfer.receiver.machine import Filled
from offsite.replication.wire.batch import DIGEST_START, Arrived
from offsite.replication.wire.messages import Position

FLUSH_BYTES = 64 << 20
FLUSH_SECONDS = 1.0


class BackgroundWork(Protocol):
    """Where flushes run, one after the other: a thread, or a simulator's turn."""

    def submit(self, task: Callable[[], None], /) -> Future[None]: ...


@dataclass(frozen=True, slots=True)
class _Mark:
    filled: Filled
    changed_bytes: int  # of the run, over all its connections
    wire_bytes: int


class PartialPoint:
    """`owner` is who holds the fence while it stores; `wire_bytes` counts those of the connection."""

    def __init__(
        self,
        pool: Pool,
        point: PointRecord,
        run: RunRecord,
        fence: Fence,
        owner: object,
        background: BackgroundWork,
        clock: Clock,
        wire_bytes: Callable[[], int],
    ) -> None:
        self.point = point
        self._pool = pool
        self._run = run
        self._fence = fence
        self._owner = owner
        self._background = background
        self._clock = clock
        self._wire_bytes = wire_bytes
        self._wire_at_begin = wire_bytes()
        self._store = BatchWriter([pool.open(image_id) for image_id in point.image_ids])
        self._mark = _Mark(Filled(point.watermark, DIGEST_START), run.changed_bytes, run.wire_bytes)
        self._durable = point.watermark
        self._flushing: Future[None] | None = None
        self._flushed_at = clock.monotonic()
        self._flushed_bytes = run.changed_bytes

    def store(self, arrived: Arrived, filled: Filled) -> Position:
        """See ReceiverStore.store. A flush that failed meanwhile is raised here."""
        with self._fence.held_by(self._owner):
            try:
                self._store.store(arrived)
            except PoolFull as error:
                raise PoolFull(
                    f"pool {self._pool.name} is full: {error}; the secondary volume is unchanged, and the run "
                    "continues from here once there is space"
                ) from error
        self._mark = _Mark(filled, self.changed_bytes + arrived.batch.data_bytes, self.wire_bytes)
        self._flush_if_due()
        return self._durable

    def compare(self, arrived: Arrived, done: Position) -> Position:
        """See ReceiverStore.compare. What follows `done` is not durable any more when something else is found there."""
        with self._fence.held_by(self._owner):
            try:
                self._store.compare(arrived)
            except DigestMismatch:
                if self._flushing is not None:
                    self._flushing.result()
                self._mark = _Mark(Filled(done, DIGEST_START), self.changed_bytes, self.wire_bytes)
                self.flush()
                raise
        return self._durable

    @property
    def run_uuid(self) -> str:
        return self._run.uuid

    @property
    def changed_bytes(self) -> int:
        return self._mark.changed_bytes

    @property
    def wire_bytes(self) -> int:
        return self._run.wire_bytes + self._wire_bytes() - self._wire_at_begin

    def _flush_if_due(self) -> None:
        if self._flushing is not None:
            if not self._flushing.done():
                return
            self._flushing.result()
            self._flushing = None
        now = self._clock.monotonic()
        new_bytes = self.changed_bytes - self._flushed_bytes
        if new_bytes >= FLUSH_BYTES or (new_bytes and now >= self._flushed_at + FLUSH_SECONDS):
            self._flushed_at, self._flushed_bytes = now, self.changed_bytes
            self._flushing = self._background.submit(self.flush)

    def flush(self) -> None:
        """Makes what is stored durable, and with it the record of how far that is."""
        mark = self._mark

        def write(connection: Connection, _: object) -> None:
            # Someone who has taken over may have begun the point anew: then this mark would be a lie.
            if self._fence.is_owner(self._owner):
                point_records.set_watermark(connection, self.point.id, mark.filled.position)
                note_run(connection, self._run.uuid, changed_bytes=mark.changed_bytes, wire_bytes=mark.wire_bytes)

        self._pool.flush(write)
        self._durable = mark.filled.position

    def close(self) -> None:
        self._store.close()
