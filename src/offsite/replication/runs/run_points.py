"""The point of a run on the primary: taken when the run is asked for, promoted, dropped, aborted.

    taken: pending ──both ends hold it──▶ base
              ├──dropped, failed──▶ gone
              └──aborted──▶ aborted, until the secondary was asked whether it has made it its base

What becomes of the run itself meanwhile: see records.run_states.

Every step is one transaction with what it does to images. The caller holds the set's recording lock, so that
what was read is still so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from offsite import events
from offsite.events import Report, ignore
from offsite.pools.protocol import Change, Delete, ImageInfo, Pool, Snapshot, image_ids
from offsite.replication.points import point_records
from offsite.replication.points.history_rotation import rotate, terms_of
from offsite.replication.points.internal_images import find_image, internal_name
from offsite.replication.points.point_records import PointRecord
from offsite.replication.points.snapshot_history import Keeping, KeptHistory
from offsite.replication.records import run_records
from offsite.replication.records.resources import Resources
from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.run_states import RunEvent, RunState
from offsite.replication.records.run_writer import change_run, request_run, use_number
from offsite.replication.records.set_records import SetRecord


@dataclass(frozen=True)
class RunSource:
    """What a run is to send: the images; of a snapshot also its name, and since when it holds its data."""

    image_ids: tuple[int, ...]
    name: str | None = None
    taken_at: float | None = None


class RunPoints:
    def __init__(self, resources: Resources, report: Report = ignore) -> None:
        self._resources = resources
        self._report = report

    def take(self, replication_set: SetRecord, run: str, number: int, source: RunSource) -> RunState:
        """Takes the point of a run that is being prepared: all members at one instant, durable on return.

        The run is running then, or queued behind the one that is; an older queued one is dropped.
        Raises PoolFull, and what else the pool raises, with nothing changed.
        """
        event = RunEvent.QUEUE if self._run_in(replication_set, "running") else RunEvent.START
        dropped = self._run_in(replication_set, "queued")
        dropped_points = self._points(replication_set, dropped.uuid) if dropped else []
        now = self._resources.clock.now()
        taken_at = now if source.taken_at is None else source.taken_at
        number = self._number_now(run, number)
        keeping = self._keeping(replication_set, run, number, taken_at) if event is RunEvent.START else None
        kept = self._find_kept(keeping, replication_set)
        names = [internal_name(run, position) for position in range(len(replication_set.members))]
        changes: list[Change] = [
            Snapshot(image_id, name, kind="internal", created_at=taken_at)
            for image_id, name in zip(source.image_ids, names, strict=True)
        ]
        changes += kept.snapshots(source.image_ids, _member_ids(replication_set)) if kept else []

        def write(connection: Connection, images: Sequence[ImageInfo]) -> None:
            point_records.delete_points(connection, [point.id for point in dropped_points])
            point_records.insert_point(
                connection, replication_set.id, run, "pending", taken_at, image_ids(images, names)
            )
            request_run(connection, replication_set.id, run, number, event, now, source=source.name)
            if dropped is not None:
                self._end(connection, dropped, RunEvent.DROP, "a newer request replaced it in the queue")
            _write_kept(connection, replication_set, run, kept, images)

        self._pool(replication_set).apply([*changes, *_deletions(dropped_points)], write)
        self._tell_kept(replication_set, keeping, kept)
        self._rotate(replication_set)
        return "running" if event is RunEvent.START else "queued"

    def promote(self, replication_set: SetRecord, queued: RunRecord) -> None:
        """The queued run becomes the running one. Its history snapshot shows the instant at which it was queued."""
        point = self._points(replication_set, queued.uuid)[0]
        keeping = self._keeping(replication_set, queued.uuid, queued.snapshot_number or 0, point.taken_at)
        kept = self._find_kept(keeping, replication_set)

        def write(connection: Connection, images: Sequence[ImageInfo]) -> None:
            change_run(connection, replication_set.id, queued.uuid, RunEvent.PROMOTE, self._resources.clock.now())
            _write_kept(connection, replication_set, queued.uuid, kept, images)

        if kept is not None:
            self._pool(replication_set).apply(kept.snapshots(point.image_ids, _member_ids(replication_set)), write)
            self._rotate(replication_set)
        else:
            with self._resources.database.transaction() as transaction:
                write(transaction, ())
        self._tell_kept(replication_set, keeping, kept)

    def drop_queued(self, replication_set: SetRecord, sentence: str) -> bool:
        """Takes the queued run out of the queue; returns whether there was one."""
        queued = self._run_in(replication_set, "queued")
        if queued is None:
            return False
        points = self._points(replication_set, queued.uuid)

        def write(connection: Connection, _: object) -> None:
            point_records.delete_points(connection, [point.id for point in points])
            self._end(connection, queued, RunEvent.DROP, sentence)

        self._pool(replication_set).apply(_deletions(points), write)
        return True

    def take_back(self, replication_set: SetRecord, run: str, sentence: str) -> None:
        """The run has failed before anything of it was sent; its point goes, if it was taken."""
        points = self._points(replication_set, run)

        def write(connection: Connection, _: object) -> None:
            point_records.delete_points(connection, [point.id for point in points])
            now = self._resources.clock.now()
            change_run(
                connection, replication_set.id, run, RunEvent.FAIL, now, error=sentence, after_snapshot_due=False
            )

        self._pool(replication_set).apply(_deletions(points), write)

    def abort(self, replication_set: SetRecord, run: RunRecord, sentence: str, *, may_be_committed: bool) -> None:
        """Ends the run at once. Unless the secondary may have made its point the base, its images go, too."""
        points = self._points(replication_set, run.uuid)
        images_go = not may_be_committed

        def write(connection: Connection, _: object) -> None:
            for point in points:
                point_records.mark_aborted(connection, point.id, images_go=images_go)
            self._end(connection, run, RunEvent.ABORT, sentence)

        self._pool(replication_set).apply(_deletions(points) if images_go else [], write)

    def _end(self, connection: Connection, run: RunRecord, event: RunEvent, sentence: str) -> None:
        change_run(connection, run.set_id, run.uuid, event, self._resources.clock.now(), error=sentence)

    # -- the history on this side ------------------------------------------------------------------------------

    def _keeping(self, replication_set: SetRecord, run: str, number: int, taken_at: float) -> Keeping | None:
        """The history snapshots that the primary keeps of a run."""
        if replication_set.snapshot_history != "both" or replication_set.snapshot_basename is None:
            return None
        priority, now = replication_set.snapshot_retention_priority, self._resources.clock.now()
        return Keeping(replication_set.id, run, replication_set.snapshot_basename, number, priority, taken_at, now)

    def _find_kept(self, keeping: Keeping | None, replication_set: SetRecord) -> KeptHistory | None:
        if keeping is None:
            return None
        with self._resources.database.read() as connection:
            return keeping.find(connection, len(replication_set.members))

    def _number_now(self, run: str, number: int) -> int:
        """While its hooks ran, a request may have been given a later one."""
        with self._resources.database.read() as connection:
            known = run_records.find_run(connection, run)
        return number if known is None or known.snapshot_number is None else known.snapshot_number

    def _tell_kept(self, replication_set: SetRecord, keeping: Keeping | None, kept: KeptHistory | None) -> None:
        if keeping is not None and (kept is None or kept.number != keeping.number):
            self._report(events.HISTORY_NAME_IN_USE, keeping.sentence(replication_set.name, kept))

    def _rotate(self, replication_set: SetRecord) -> None:
        if replication_set.snapshot_history == "both" and replication_set.snapshot_count is not None:
            terms = terms_of(replication_set, replication_set.snapshot_count)
            pool, now = self._pool(replication_set), self._resources.clock.now()
            rotate(self._resources.database, pool, self._resources.needs, replication_set, terms, now, self._report)

    def _run_in(self, replication_set: SetRecord, state: RunState) -> RunRecord | None:
        with self._resources.database.read() as connection:
            return run_records.set_run_in(connection, replication_set.id, state)

    def _points(self, replication_set: SetRecord, run: str) -> list[PointRecord]:
        with self._resources.database.read() as connection:
            return [point for point in point_records.set_points(connection, replication_set.id) if point.uuid == run]

    def _pool(self, replication_set: SetRecord) -> Pool:
        return find_image(self._resources.pools, replication_set.members[0].image_id)[0]


def _write_kept(
    connection: Connection,
    replication_set: SetRecord,
    run: str,
    kept: KeptHistory | None,
    images: Sequence[ImageInfo],
) -> None:
    if kept is not None:
        kept.write(connection, images)
        use_number(connection, replication_set.id, run, kept.number)


def _member_ids(replication_set: SetRecord) -> tuple[int, ...]:
    return tuple(member.image_id for member in replication_set.members)


def _deletions(points: Sequence[PointRecord]) -> list[Delete]:
    return [Delete(image_id) for point in points for image_id in point.image_ids]
