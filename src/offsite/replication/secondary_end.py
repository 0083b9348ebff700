"""What a run does on the secondary: a hidden clone of the base is filled, and becomes the volumes at one instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection

from offsite import events
from offsite.clock import Clock
from offsite.errors import BadParameter, NotAllowed, PeerRefused
from offsite.events import Report
from offsite.pools.protocol import Change, Clone, Create, Delete, Pool, Replace, Resize
from offsite.replication import records
from offsite.replication.batches import DIGEST_START, Arrived
from offsite.replication.fence import Fence
from offsite.replication.locate import find_image, internal_name
from offsite.replication.messages import START, Ask, Begin, Commit, Committed, EndRun, Holds, Outcome, Position, Ready
from offsite.replication.records import PointRecord, SetRecord
from offsite.replication.secondary_run import Filled
from offsite.replication.store_batch import BatchStore
from offsite.store.database import Database
from offsite.units import format_size

FLUSH_BYTES = 64 << 20
FLUSH_SECONDS = 1.0


class Background(Protocol):
    """Where flushes run, one after the other: a thread, or a simulator's turn."""

    def submit(self, task: Callable[[], None], /) -> Future[None]: ...


@dataclass(frozen=True, slots=True)
class _Progress:
    filled: Filled
    changed_bytes: int
    wire_bytes: int


class SecondarySide:
    """The secondary half of one set, over one connection. See secondary_run.SecondaryEnd."""

    def __init__(
        self,
        database: Database,
        pools: Mapping[str, Pool],
        clock: Clock,
        of: SetRecord,
        fence: Fence,
        background: Background,
        wire_bytes: Callable[[], int],
        report: Report,
    ) -> None:
        self._database = database
        self._clock = clock
        self._set = of
        self._fence = fence
        self._background = background
        self._wire_bytes = wire_bytes
        self._report = report
        self._pool, _ = find_image(pools, of.members[0].image_id)
        self._run = ""
        self._point: PointRecord | None = None
        self._store: BatchStore | None = None
        self._before = (0, 0)  # changed and wire bytes of the run, over earlier connections
        self._wire_at_begin = 0
        self._progress = _Progress(Filled(START, DIGEST_START), 0, 0)
        self._durable = START
        self._flushing: Future[None] | None = None
        self._flushed_at = 0.0
        self._flushed_bytes = 0

    def look(self, ask: Ask) -> Holds:
        if ask.generation != self._set.generation:
            raise NotAllowed(
                f"replication set {self._set.name} is of generation {self._set.generation} here, "
                f"of {ask.generation} there: its roles have changed"
            )
        self._fence.take(self)
        held = records.secondary_holds(self._points())
        return Holds(base=held.base, outcome=self._outcome(held.base), partial=held.partial)

    def _outcome(self, base: str | None) -> Outcome | None:
        with self._database.read() as connection:
            run = records.find_run(connection, base) if base else None
        if run is None or run.digest is None:
            return None
        digest = bytes.fromhex(run.digest)
        return Outcome(digest=digest, changed_bytes=run.changed_bytes, wire_bytes=run.wire_bytes)

    # -- beginning -----------------------------------------------------------------------------------------

    def prepare(self, begin: Begin) -> Ready:
        self._fence.check(self)
        self._check(begin)
        held = self._points()
        partial = next((point for point in held if point.state == "partial"), None)
        if partial is None or not self._fits(partial, begin):
            self._begin_anew(begin, held, partial)
        else:
            with self._database.transaction() as connection:
                self._write_run(connection, begin)
        with self._database.read() as connection:
            run = records.find_run(connection, begin.run)
            point = records.find_point(connection, self._set.id, begin.point)
        if run is None or run.set_id != self._set.id:
            raise PeerRefused(f"run {begin.run} is not one of replication set {self._set.name}")
        self._open(point)
        self._run = run.uuid
        self._before = (run.changed_bytes, run.wire_bytes)
        self._wire_at_begin = self._wire_bytes()
        self._progress = _Progress(Filled(point.watermark, point.digest), *self._before)
        self._durable = point.watermark
        self._flushed_at, self._flushed_bytes = self._clock.monotonic(), run.changed_bytes
        return Ready(
            watermark=point.watermark,
            digest=point.digest,
            changed_bytes=run.changed_bytes,
            wire_bytes=run.wire_bytes,
        )

    def _check(self, begin: Begin) -> None:
        if len(begin.sizes_bytes) != len(self._set.members):
            raise BadParameter(
                f"point {begin.point} has {len(begin.sizes_bytes)} members, "
                f"replication set {self._set.name} has {len(self._set.members)}"
            )
        base = records.secondary_holds(self._points()).base
        if begin.base not in (None, base):
            raise PeerRefused(f"the base of replication set {self._set.name} is {base} here, not {begin.base}")

    def _fits(self, partial: PointRecord, begin: Begin) -> bool:
        sizes = [self._pool.image(image_id).size_bytes for image_id in partial.image_ids]
        return (partial.uuid, partial.based_on, sizes) == (begin.point, begin.base, begin.sizes_bytes)

    def _begin_anew(self, begin: Begin, held: list[PointRecord], partial: PointRecord | None) -> None:
        """A clone of the base for each member, hidden; or an image that is all hole. What was begun before goes."""
        self._close_store()
        old = next((point for point in held if point.state == "base" and begin.base), None)
        changes: list[Change] = [Delete(image_id) for image_id in (partial.image_ids if partial else ())]
        names = [internal_name(begin.point, position) for position in range(len(begin.sizes_bytes))]
        for position, (name, size) in enumerate(zip(names, begin.sizes_bytes, strict=True)):
            if old is None:
                changes.append(Create(name, size, kind="internal"))
                continue
            changes.append(Clone(old.image_ids[position], name, kind="internal"))
            if self._pool.image(old.image_ids[position]).size_bytes != size:
                changes.append(Resize(-len(changes), size))

        def write(connection: Connection) -> None:
            if partial is not None:
                records.delete_points(connection, [partial.id])
            records.insert_point(connection, self._set.id, begin.point, "partial", begin.taken_at, names, begin.base)
            self._write_run(connection, begin)

        self._pool.apply(changes, write)

    def _write_run(self, connection: Connection, begin: Begin) -> None:
        now = self._clock.now()
        records.end_other_runs(connection, self._set.id, begin.run, now, "the primary gave it up")
        if records.find_run(connection, begin.run) is None:
            records.insert_run(connection, self._set.id, begin.run, now)
        records.update_run(connection, begin.run, state="running", ended_at=None, error=None)

    def _open(self, point: PointRecord) -> None:
        self._close_store()
        self._point = point
        self._store = BatchStore([self._pool.open(image_id) for image_id in point.image_ids])

    # -- filling -------------------------------------------------------------------------------------------

    def store(self, arrived: Arrived, filled: Filled) -> Position:
        assert self._store is not None
        with self._fence.held_by(self):
            self._store.store(arrived)
        self._progress = _Progress(
            filled, self._progress.changed_bytes + arrived.batch.data_bytes, self._run_wire_bytes()
        )
        self._flush_if_due()
        return self._durable

    def _run_wire_bytes(self) -> int:
        return self._before[1] + self._wire_bytes() - self._wire_at_begin

    def _flush_if_due(self) -> None:
        """So that the disk works while more arrives, and a cut costs little. A flush that failed ends the run."""
        if self._flushing is not None:
            if not self._flushing.done():
                return
            self._flushing.result()
            self._flushing = None
        now = self._clock.monotonic()
        new_bytes = self._progress.changed_bytes - self._flushed_bytes
        if new_bytes >= FLUSH_BYTES or (new_bytes and now >= self._flushed_at + FLUSH_SECONDS):
            self._flushed_at, self._flushed_bytes = now, self._progress.changed_bytes
            self._flushing = self._background.submit(self.flush)

    def flush(self) -> None:
        """Makes what is stored durable, and then the record of how far that is."""
        progress, point, run = self._progress, self._point, self._run
        if point is None:
            return

        def write(connection: Connection) -> None:
            if self._fence.is_owner(self):
                records.set_watermark(connection, point.id, progress.filled.position, progress.filled.digest)
                records.update_run(
                    connection, run, changed_bytes=progress.changed_bytes, wire_bytes=progress.wire_bytes
                )

        self._pool.flush(write)
        self._durable = progress.filled.position

    # -- ending --------------------------------------------------------------------------------------------

    def commit(self, commit: Commit) -> Committed:
        """One transaction: the clones' content becomes the volumes, the clones the new base, the old one goes."""
        point = self._point
        assert point is not None
        with self._fence.held_by(self):
            self._close_store()
            old = [held for held in self._points() if held.state == "base"]
            volumes = [member.image_id for member in self._set.members]
            changes: list[Change] = [
                Replace(volume, clone) for volume, clone in zip(volumes, point.image_ids, strict=True)
            ]
            changes += [Delete(image_id) for held in old for image_id in held.image_ids]
            changed_bytes, wire_bytes = self._progress.changed_bytes, self._run_wire_bytes()
            values: dict[str, object] = {"changed_bytes": changed_bytes, "wire_bytes": wire_bytes}
            if commit.point == commit.run:
                values |= {
                    "state": "success",
                    "ended_at": self._clock.now(),
                    "digest": commit.digest.hex(),
                    "error": None,
                }

            def write(connection: Connection) -> None:
                records.make_base(connection, self._set.id, point.uuid)
                records.update_run(connection, commit.run, **values)

            self._pool.apply(changes, write)
            self._point = None
        if commit.point == commit.run:
            size = format_size(changed_bytes)
            self._report(events.RUN_COMPLETED, f"Replication set {self._set.name} is up to date: {size} had changed.")
        outcome = Outcome(digest=commit.digest, changed_bytes=changed_bytes, wire_bytes=wire_bytes)
        return Committed(outcome=outcome)

    def end_run(self, end: EndRun) -> None:
        with self._database.transaction() as connection:
            run = records.find_run(connection, end.run)
            if run is None or run.set_id != self._set.id or run.state != "running":
                return
            records.update_run(connection, end.run, state="failed", ended_at=self._clock.now(), error=end.sentence)
        self._report(events.RUN_FAILED, f"A run of replication set {self._set.name} failed: {end.sentence}")

    def close(self) -> None:
        self._close_store()

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _points(self) -> list[PointRecord]:
        with self._database.read() as connection:
            return records.set_points(connection, self._set.id)
