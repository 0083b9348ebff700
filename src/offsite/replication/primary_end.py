"""What a run does on the primary: points are taken, described, adopted and forgotten, each in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from offsite.clock import Clock
from offsite.pools.protocol import Delete, Pool, Snapshot
from offsite.replication import point_records, records
from offsite.replication.changes import MemberDifference
from offsite.replication.locate import find_image, internal_name
from offsite.replication.messages import Outcome
from offsite.replication.plan import Adopt, Forget, PrimaryHolds
from offsite.replication.point_records import PointRecord
from offsite.replication.primary_run import PointDescription
from offsite.replication.records import SetRecord
from offsite.store.database import Database


class PrimaryEnd:
    """The primary half of one set, for one run."""

    def __init__(self, database: Database, pools: Mapping[str, Pool], clock: Clock, of: SetRecord, run: str) -> None:
        self._database = database
        self._clock = clock
        self._set = of
        self._run = run
        self.pool, _ = find_image(pools, of.members[0].image_id)

    def take(self) -> None:
        """Takes the run's point: a snapshot of all members at one instant, with the run's record, durable.

        Of the points that wait already only the oldest can be on its way to the secondary: the others go.
        """
        taken_at = self._clock.now()
        dropped = [point for point in self._points() if point.state == "pending"][1:]
        names = [internal_name(self._run, position) for position in range(len(self._set.members))]
        snapshots = [
            Snapshot(member.image_id, name, kind="internal")
            for member, name in zip(self._set.members, names, strict=True)
        ]

        def write(connection: Connection) -> None:
            point_records.delete_points(connection, [point.id for point in dropped])
            point_records.insert_point(connection, self._set.id, self._run, "pending", taken_at, names)
            records.insert_run(connection, self._set.id, self._run, taken_at)

        self.pool.apply([*snapshots, *_deletions(dropped)], write)

    def holds(self) -> PrimaryHolds:
        return point_records.primary_holds(self._points())

    def describe(self, uuid: str) -> PointDescription:
        point = self._point(uuid)
        sizes = tuple(self.pool.image(image_id).size_bytes for image_id in point.image_ids)
        return PointDescription(point.taken_at, sizes)

    def differences(self, uuid: str, base: str | None) -> list[MemberDifference]:
        new = self._point(uuid).image_ids
        old: Sequence[int | None] = self._point(base).image_ids if base else [None] * len(new)
        return [MemberDifference(o, n) for o, n in zip(old, new, strict=True)]

    def do(self, step: Adopt | Forget, outcome: Outcome | None) -> None:
        if isinstance(step, Adopt):
            self._adopt(step.point, outcome)
        else:
            self._drop([self._point(step.point)])

    def _adopt(self, uuid: str, outcome: Outcome | None) -> None:
        """The point becomes the base; it and the run, if it was the run's own, are done with."""
        held = self._points()
        adopted = next(point for point in held if point.uuid == uuid)
        older = [point for point in held if point.state == "base" or point.id < adopted.id]
        older = [point for point in older if point is not adopted]
        ended: dict[str, object] = {"state": "success", "ended_at": self._clock.now(), "error": None}
        if outcome is not None:
            ended |= {
                "digest": outcome.digest.hex(),
                "changed_bytes": outcome.changed_bytes,
                "wire_bytes": outcome.wire_bytes,
            }

        def write(connection: Connection) -> None:
            point_records.delete_points(connection, [point.id for point in older])
            point_records.make_base(connection, self._set.id, uuid)
            if uuid == self._run:
                records.update_run(connection, uuid, **ended)

        self.pool.apply(_deletions(older), write)

    def _drop(self, points: Sequence[PointRecord]) -> None:
        self.pool.apply(
            _deletions(points),
            lambda connection: point_records.delete_points(connection, [point.id for point in points]),
        )

    def fail(self, sentence: str) -> None:
        """Ends the run's record. Its point stays: the next run goes on with it."""
        with self._database.transaction() as connection:
            records.update_run(connection, self._run, state="failed", ended_at=self._clock.now(), error=sentence)

    def note_cut(self, sentence: str) -> None:
        """The run goes on when it can; meanwhile its record says why it does not."""
        with self._database.transaction() as connection:
            records.update_run(connection, self._run, error=sentence)

    def _points(self) -> list[PointRecord]:
        with self._database.read() as connection:
            return point_records.set_points(connection, self._set.id)

    def _point(self, uuid: str) -> PointRecord:
        with self._database.read() as connection:
            return point_records.find_point(connection, self._set.id, uuid)


def _deletions(points: Sequence[PointRecord]) -> list[Delete]:
    return [Delete(image_id) for point in points for image_id in point.image_ids]
