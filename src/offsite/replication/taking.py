"""The point of a run on the primary: taken when the run is asked for, promoted, dropped, aborted.

    asked ──▶ preparing ──hooks, snapshot──▶ running ──▶ success            (point: pending ──▶ base)
                │   │                         ▲    └──abort──▶ aborted      (point: aborted, until the secondary
                │   └──a run is under way──▶ queued                          was asked whether it has it)
                │                             └──a newer one, or clear──▶ dropped
                └──hook or snapshot fails──▶ failed

Every step is one transaction with what it does to images. The caller holds the set's recording lock, so that
what was read is still so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from offsite.clock import Clock
from offsite.pools.protocol import Change, Delete, Pool, Snapshot
from offsite.replication import point_records, records
from offsite.replication.history import Keeping, rotate, snapshot_names
from offsite.replication.locate import find_image, internal_name
from offsite.replication.point_records import PointRecord
from offsite.replication.records import RunRecord, RunState, SetRecord
from offsite.store.database import Database


@dataclass(frozen=True)
class Source:
    """What a run is to send: the images, and the name of the snapshot if it is one."""

    image_ids: tuple[int, ...]
    name: str | None = None


class Taking:
    def __init__(self, database: Database, pools: Mapping[str, Pool], clock: Clock) -> None:
        self._database = database
        self._pools = pools
        self._clock = clock

    def take(self, of: SetRecord, run: str, number: int, source: Source) -> RunState:
        """Takes the point of a run that is being prepared: all members at one instant, durable on return.

        The run is running then, or queued behind the one that is; an older queued one is dropped.
        Raises PoolFull, and what else the pool raises, with nothing changed.
        """
        state: RunState = "queued" if self._run_in(of, "running") else "running"
        dropped = self._run_in(of, "queued")
        dropped_points = self._points(of, dropped.uuid) if dropped else []
        taken_at = self._clock.now()
        names = [internal_name(run, position) for position in range(len(of.members))]
        changes: list[Change] = [
            Snapshot(image_id, name, kind="internal") for image_id, name in zip(source.image_ids, names, strict=True)
        ]
        keeping = _keeping(of, run, number) if state == "running" else None
        with self._database.read() as connection:
            kept, write_kept = (
                keeping.changes(connection, source.image_ids, _member_ids(of)) if keeping else ([], _nothing)
            )

        def write(connection: Connection) -> None:
            point_records.delete_points(connection, [point.id for point in dropped_points])
            point_records.insert_point(connection, of.id, run, "pending", taken_at, names)
            records.put_request(connection, of.id, run, number, taken_at, state=state, source=source.name)
            if dropped is not None:
                self._end(connection, dropped.uuid, "dropped", "a newer request took its place in the queue")
            write_kept(connection)

        self._pool(of).apply([*changes, *kept, *_deletions(dropped_points)], write)
        self._rotate(of)
        return state

    def promote(self, of: SetRecord, queued: RunRecord) -> None:
        """The queued run becomes the running one. Its history snapshot shows the instant at which it was queued."""
        keeping = _keeping(of, queued.uuid, queued.snapshot_number or 0)
        point = self._points(of, queued.uuid)[0]
        with self._database.read() as connection:
            kept, write_kept = (
                keeping.changes(connection, point.image_ids, _member_ids(of)) if keeping else ([], _nothing)
            )

        def write(connection: Connection) -> None:
            records.update_run(connection, queued.uuid, state="running", started_at=self._clock.now())
            write_kept(connection)

        if kept:
            self._pool(of).apply(kept, write)
            self._rotate(of)
        else:
            with self._database.transaction() as transaction:
                write(transaction)

    def drop_queued(self, of: SetRecord, sentence: str) -> bool:
        """Takes the queued run out of the queue; returns whether there was one."""
        queued = self._run_in(of, "queued")
        if queued is None:
            return False
        points = self._points(of, queued.uuid)

        def write(connection: Connection) -> None:
            point_records.delete_points(connection, [point.id for point in points])
            self._end(connection, queued.uuid, "dropped", sentence)

        self._pool(of).apply(_deletions(points), write)
        return True

    def take_back(self, of: SetRecord, run: str, sentence: str) -> None:
        """The run has failed before anything of it was sent; its point goes, if it was taken."""
        points = self._points(of, run)

        def write(connection: Connection) -> None:
            point_records.delete_points(connection, [point.id for point in points])
            self._end(connection, run, "failed", sentence)
            records.update_run(connection, run, after_snapshot_due=False)

        self._pool(of).apply(_deletions(points), write)

    def abort(self, of: SetRecord, run: RunRecord, sentence: str, *, may_be_committed: bool) -> None:
        """Ends the run at once. Unless the secondary may have made its point the base, its images go, too."""
        points = self._points(of, run.uuid)
        images_go = not may_be_committed

        def write(connection: Connection) -> None:
            for point in points:
                point_records.mark_aborted(connection, point.id, images_go=images_go)
            self._end(connection, run.uuid, "aborted", sentence)

        self._pool(of).apply(_deletions(points) if images_go else [], write)

    def _end(self, connection: Connection, run: str, state: RunState, sentence: str) -> None:
        records.update_run(connection, run, state=state, ended_at=self._clock.now(), error=sentence)

    def _rotate(self, of: SetRecord) -> None:
        if of.snapshot_history == "both" and of.snapshot_count is not None:
            rotate(self._database, self._pool(of), of.id, of.snapshot_count)

    def _run_in(self, of: SetRecord, state: RunState) -> RunRecord | None:
        with self._database.read() as connection:
            return records.set_run_in(connection, of.id, state)

    def _points(self, of: SetRecord, run: str) -> list[PointRecord]:
        with self._database.read() as connection:
            return [point for point in point_records.set_points(connection, of.id) if point.uuid == run]

    def _pool(self, of: SetRecord) -> Pool:
        return find_image(self._pools, of.members[0].image_id)[0]


def _keeping(of: SetRecord, run: str, number: int) -> Keeping | None:
    """The history snapshots that the primary keeps of a run."""
    if of.snapshot_history != "both" or of.snapshot_basename is None:
        return None
    names = snapshot_names(of.snapshot_basename, number, len(of.members))
    return Keeping(of.id, run, number, names, of.snapshot_retention_priority)


def _member_ids(of: SetRecord) -> tuple[int, ...]:
    return tuple(member.image_id for member in of.members)


def _deletions(points: Sequence[PointRecord]) -> list[Delete]:
    return [Delete(image_id) for point in points for image_id in point.image_ids]


def _nothing(_connection: Connection) -> None:
    """No records."""
