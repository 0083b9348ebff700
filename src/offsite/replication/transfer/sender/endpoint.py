"""What a run does on the primary: its points are described, adopted and forgotten, each in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from offsite import events
from offsite.errors import DigestsDiffer, ObjectNotFound, SetDiverged
from offsite.events import Report, ignore
from offsite.pools.protocol import Delete
from offsite.replication.points import other_halves, point_records
from offsite.replication.points.history_following import Following, find_following
from offsite.replication.points.holdings import holds
from offsite.replication.points.internal_images import find_image
from offsite.replication.points.other_halves import OtherHalves, diverged_sentence
from offsite.replication.points.plan import Adopt, Diverged, Forget, Outdated, PrimarySide, Relation
from offsite.replication.points.point_records import PointRecord
from offsite.replication.points.recovery_points import find_recovery_point
from offsite.replication.records import peer_records, run_records, set_records
from offsite.replication.records.resources import Resources
from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.run_states import RunEvent
from offsite.replication.records.run_writer import RunFacts, change_run, drop_unfinished, note_run
from offsite.replication.records.set_records import SetRecord
from offsite.replication.roles.generation import check_counterpart, check_unchanged
from offsite.replication.roles.standing import Standing
from offsite.replication.transfer.sender.block_diff import MemberDifference
from offsite.replication.transfer.sender.machine import PointDescription
from offsite.replication.wire.messages import HistorySnapshot, Holds, RunOutcome

_OVERTAKEN = "the secondary already holds a newer recovery point of this set"


class SenderEndpoint:
    """The primary half of one set, for one run."""

    def __init__(self, resources: Resources, replication_set: SetRecord, run: str, report: Report = ignore) -> None:
        self._resources = resources
        self._set = replication_set
        self._run = run
        self._other_halves = OtherHalves(resources.database, report, resources.clock)
        self._report = report
        self.pool, _ = find_image(resources.pools, replication_set.members[0].image_id)

    def side(self, theirs: Holds) -> PrimarySide:
        """What there is here, and what is known here of the base that the secondary holds. Raises NotAllowed when that
        is no secondary of this generation."""
        check_counterpart(self._set, Standing(theirs.role, theirs.generation))
        with self._resources.database.read() as connection:
            check_unchanged(connection, self._set)
            held = point_records.set_points(connection, self._set.id)
            known = find_recovery_point(connection, self._set.id, theirs.base)
            half = other_halves.find_other_half(connection, self._set.id)
            return PrimarySide(
                holds=holds(connection, self._set),
                run=self._run,
                gone=tuple(point.uuid for point in held if point.state == "aborted" and not point.image_ids),
                past=frozenset([known.point] if known else []),
                replaceable=half.base if half is not None and half.may_be_replaced else None,
            )

    def has_aborted(self) -> bool:
        """Whether there are points of aborted runs, of which the secondary is still to be asked."""
        with self._resources.database.read() as connection:
            return self._set.id in point_records.sets_with_aborted(connection)

    def describe(self, uuid: str) -> PointDescription:
        point = self._point(uuid)
        sizes = tuple(self.pool.image(image_id).size_bytes for image_id in point.image_ids)
        return PointDescription(point.taken_at, sizes)

    def differences(self, uuid: str, base: str | None) -> list[MemberDifference]:
        new = self._point(uuid).image_ids
        old: Sequence[int | None] = self._point(base).image_ids if base else [None] * len(new)
        return [MemberDifference(o, n) for o, n in zip(old, new, strict=True)]

    def do(self, step: Adopt | Forget | Outdated | Diverged, outcome: RunOutcome | None) -> bool:
        """Returns whether it is done: a point of which there are no images, or of whose aborted run the secondary holds
        something else, is not adopted, but forgotten. Raises SetDiverged for that step, once it is on record."""
        if isinstance(step, Outdated):
            self._other_halves.found(self._set, Relation.OLDER, step.base, step.theirs)
            return True
        if isinstance(step, Diverged):
            self._other_halves.found(self._set, Relation.DIVERGED, step.base, step.theirs)
            with self._resources.database.read() as connection:
                peer = peer_records.peer_name(connection, self._set.peer_id)
            raise SetDiverged(diverged_sentence(self._set, peer, step.ours, step.theirs))
        with self._resources.locks.recording(self._set.uuid, self._set.name):
            if isinstance(step, Adopt):
                return self._adopt(step.point, outcome)
            self._drop([point for point in self._points() if point.uuid == step.point])
            return True

    def _adopt(self, uuid: str, outcome: RunOutcome | None) -> bool:
        """The point becomes the base; older points, and the run that took it, are done with."""
        with self._resources.database.read() as connection:
            held = point_records.set_points(connection, self._set.id)
            run = run_records.find_run(connection, uuid)
            following = self._following(connection, run, outcome)
        adopted = next((point for point in held if point.uuid == uuid), None)
        if adopted is None:
            raise ObjectNotFound(f"point {uuid} no longer exists; the run was aborted")
        if adopted.state == "base":
            return True
        if not adopted.image_ids:
            self._drop([adopted])  # it can be no base, and the base that there is must stay
            return False
        differing = self._differing(run, outcome)
        if differing is not None and adopted.state == "aborted":
            self._drop([adopted])  # nobody waits for it: what the secondary holds is none of ours
            return False
        if differing is not None:
            raise DigestsDiffer(differing)
        older = [point for point in held if point.state == "base" or point.id < adopted.id]
        older = [point for point in older if point is not adopted]
        now = self._resources.clock.now()
        facts = RunFacts(error=None)
        if outcome is not None:
            facts["digest"] = outcome.digest.hex()
            facts["changed_bytes"], facts["wire_bytes"] = outcome.changed_bytes, outcome.wire_bytes

        def write(connection: Connection, _: object) -> None:
            check_unchanged(connection, self._set)
            point_records.delete_points(connection, [point.id for point in older])
            point_records.make_base(connection, self._set.id, uuid, now, outcome.digest if outcome else None)
            other_halves.forget_other_half(connection, self._set.id)
            change_run(connection, self._set.id, uuid, RunEvent.COMPLETE, now, **facts)
            drop_unfinished(connection, self._set.id, [point.uuid for point in older], now, _OVERTAKEN)
            if following is not None:
                following.write(connection, self._set.id)

        renames = following.renames if following is not None else ()
        self.pool.apply([*_deletions(older), *renames], write)
        if following is not None:
            self._report(events.HISTORY_NAME_IN_USE, following.sentence(self._set.name))
        return True

    def _differing(self, run: RunRecord | None, outcome: RunOutcome | None) -> str | None:
        """Tells when the secondary has committed something else than what was sent."""
        if outcome is None or run is None or run.digest is None or run.digest == outcome.digest.hex():
            return None
        sentence = (
            f"the secondary has committed run {run.uuid} with the digest {outcome.digest.hex()}, but the data sent has "
            f"{run.digest}: the secondary is not a copy"
        )
        if run.error != sentence:
            told = f"Replication set name: {self._set.name}, has differing digests: {sentence}."
            self._report(events.DIGESTS_DIFFER, told)
        return sentence

    def _following(self, connection: Connection, run: RunRecord | None, outcome: RunOutcome | None) -> Following | None:
        """What to do when the secondary has kept the run under another number than it was to have. The point that a
        later run finishes is asked to leave nothing there."""
        replication_set = set_records.find_set(connection, self._set.uuid)
        if outcome is None or run is None or run.snapshot_number is None or replication_set is None:
            return None
        if replication_set.snapshot_history == "disabled" or outcome.snapshot_number == run.snapshot_number:
            return None
        if outcome.snapshot_number is None and run.uuid != self._run:
            return None
        return find_following(connection, self.pool, self._resources.needs, run, outcome.snapshot_number)

    def _drop(self, points: Sequence[PointRecord]) -> None:
        def write(connection: Connection, _: object) -> None:
            check_unchanged(connection, self._set)
            point_records.delete_points(connection, [point.id for point in points])

        self.pool.apply(_deletions(points), write)

    def history(self) -> HistorySnapshot | None:
        """What the secondary is to keep of the run, by the settings that the set has now."""
        with self._resources.database.read() as connection:
            replication_set = set_records.find_set(connection, self._set.uuid)
            run = run_records.find_run(connection, self._run)
        if (
            replication_set is None
            or run is None
            or run.snapshot_number is None
            or replication_set.snapshot_history == "disabled"
        ):
            return None
        assert replication_set.snapshot_basename is not None and replication_set.snapshot_count is not None
        return HistorySnapshot(
            basename=replication_set.snapshot_basename,
            number=run.snapshot_number,
            count=replication_set.snapshot_count,
            retention_priority=replication_set.snapshot_retention_priority,
        )

    def note_digest(self, point: str, digest: bytes) -> None:
        """What we have of the run that took this point, before the secondary is asked to commit it."""
        with self._resources.database.transaction() as connection:
            check_unchanged(connection, self._set)
            note_run(connection, point, digest=digest.hex())

    def note_failure(self, sentence: str | None) -> None:
        """The run goes on when it can; meanwhile its record says why it does not."""
        with self._resources.database.transaction() as connection:
            note_run(connection, self._run, error=sentence)

    def _points(self) -> list[PointRecord]:
        with self._resources.database.read() as connection:
            return point_records.set_points(connection, self._set.id)

    def _point(self, uuid: str) -> PointRecord:
        with self._resources.database.read() as connection:
            return point_records.find_point(connection, self._set.id, uuid)


def _deletions(points: Sequence[PointRecord]) -> list[Delete]:
    return [Delete(image_id) for point in points for image_id in point.image_ids]
