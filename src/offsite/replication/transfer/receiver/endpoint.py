"""What a run does on the secondary: a hidden clone of the base is filled, and becomes the volumes at one instant."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import structlog
from sqlalchemy import Connection

from offsite import events
from offsite.errors import (
    BadParameter,
    DigestMismatch,
    NotReplaced,
    PeerRefused,
    ProtocolError,
)
from offsite.pools.protocol import Change, Clone, Create, Delete, ImageInfo, Replace, Resize, image_ids
from offsite.replication.points import other_halves, point_records
from offsite.replication.points.holdings import told_holds
from offsite.replication.points.internal_images import find_image, internal_name
from offsite.replication.points.kept_copies import keep_copy
from offsite.replication.points.point_records import PointRecord
from offsite.replication.records import peer_share, run_records
from offsite.replication.records.resources import Resources
from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.run_states import RunEvent
from offsite.replication.records.run_writer import RunFacts, change_run, fail_others, note_run, use_number
from offsite.replication.records.set_records import SetRecord
from offsite.replication.roles.generation import check_generation, check_unchanged
from offsite.replication.transfer.receiver.fence import Fence
from offsite.replication.transfer.receiver.machine import Filled
from offsite.replication.transfer.receiver.partial_point import BackgroundWork, PartialPoint
from offsite.replication.transfer.receiver.run_history import RunHistory
from offsite.replication.wire.batch import Arrived, check_sizes
from offsite.replication.wire.messages import (
    Ask,
    Begin,
    Commit,
    Committed,
    Discard,
    Holds,
    Keep,
    Kept,
    Position,
    Ready,
    RunOutcome,
)
from offsite.units import format_size

_log = structlog.get_logger(__name__)


class ReceiverEndpoint:
    """The secondary half of one set, over one connection. See machine.ReceiverStore."""

    def __init__(
        self,
        resources: Resources,
        replication_set: SetRecord,
        fence: Fence,
        background: BackgroundWork,
        wire_bytes: Callable[[], int],
    ) -> None:
        self._resources = resources
        self._set = replication_set
        self._fence = fence
        self._background = background
        self._wire_bytes = wire_bytes
        self._pool, _ = find_image(resources.pools, replication_set.members[0].image_id)
        self._history = RunHistory(resources, self._pool, replication_set)
        self._filling: PartialPoint | None = None
        self._begun: Begin | None = None

    def look(self, ask: Ask) -> Holds:
        check_generation(self._set, ask.generation)
        self._fence.take(self)
        return told_holds(self._resources.database, self._resources.pools, self._set)

    def _check_roles(self, generation: int) -> None:
        """So that nothing is begun in vain. What counts is the same check within the transaction."""
        check_generation(self._set, generation)
        with self._resources.database.read() as connection:
            check_unchanged(connection, self._set)

    # -- beginning -----------------------------------------------------------------------------------------

    def prepare(self, begin: Begin) -> Ready:
        self.close()
        with self._fence.held_by(self):
            self._check_roles(begin.generation)
            with self._resources.database.read() as connection:
                held = point_records.set_points(connection, self._set.id)
                run = run_records.find_run(connection, begin.run)
            self._check(begin, held, run)
            if begin.keep and begin.replaces is not None:
                self._keep(begin.replaces)
            partial = next((point for point in held if point.state == "partial"), None)
            if partial is None or not self._fits(partial, begin):
                self._begin_anew(begin, held, partial)
            else:
                with self._resources.database.transaction() as connection:
                    self._write_run(connection, begin)
        with self._resources.database.read() as connection:
            point = point_records.find_point(connection, self._set.id, begin.point)
            run = run_records.find_run(connection, begin.run)
        assert run is not None and run.set_id == self._set.id
        self._begun = begin
        self._filling = PartialPoint(
            self._pool, point, run, self._fence, self, self._background, self._resources.clock, self._wire_bytes
        )
        return Ready(
            watermark=point.watermark,
            changed_bytes=run.changed_bytes,
            wire_bytes=run.wire_bytes,
        )

    def _check(self, begin: Begin, held: list[PointRecord], known: RunRecord | None) -> None:
        if len(begin.sizes_bytes) != len(self._set.members):
            raise BadParameter(
                f"point {begin.point} has {len(begin.sizes_bytes)} members, "
                f"replication set {self._set.name} has {len(self._set.members)}"
            )
        base = point_records.base_of(held)
        if begin.base not in (None, base):
            raise PeerRefused(f"the base of replication set {self._set.name} is {base} here, not {begin.base}")
        if begin.point == base:
            raise PeerRefused(f"replication set {self._set.name} already holds point {begin.point}")
        self._check_replaces(begin, base)
        if known is not None and known.set_id != self._set.id:
            raise PeerRefused(f"run {begin.run} does not belong to replication set {self._set.name}")
        check_sizes(begin.sizes_bytes)
        with self._resources.database.read() as connection:
            self._check_share(connection, begin)

    def _check_share(self, connection: Connection, begin: Begin) -> None:
        volumes = [member.image_id for member in self._set.members]
        peer_share.check_size(connection, self._set.peer_id, begin.sizes_bytes, in_place_of=volumes)

    def _check_replaces(self, begin: Begin, base: str | None) -> None:
        """What is complete here is only given up to who says that it knows it: a primary that was restored from an old
        copy, or that is somebody else, would fill us from nothing, and the only newer copy would be gone."""
        if base in (begin.base, begin.replaces):
            return
        told = other_halves.told_of(told_holds(self._resources.database, self._resources.pools, self._set).complete)
        sentence = (
            f"replication set {self._set.name} holds a complete copy here: {told}; its primary would replace it "
            "without stating that it knows it. The copy was not changed"
        )
        self._resources.report(events.COPY_PROTECTED, sentence)
        raise NotReplaced(sentence)

    def _fits(self, partial: PointRecord, begin: Begin) -> bool:
        sizes = [self._pool.image(image_id).size_bytes for image_id in partial.image_ids]
        return (partial.uuid, partial.based_on, sizes) == (begin.point, begin.base, begin.sizes_bytes)

    def _begin_anew(self, begin: Begin, held: list[PointRecord], partial: PointRecord | None) -> None:
        """A clone of the base for each member, hidden; or an image that is all hole. What was begun before goes."""
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

        def write(connection: Connection, made: Sequence[ImageInfo]) -> None:
            self._check_share(connection, begin)
            if partial is not None:
                point_records.delete_points(connection, [partial.id])
            ids = image_ids(made, names)
            point_records.insert_point(
                connection, self._set.id, begin.point, "partial", begin.taken_at, ids, begin.base
            )
            self._write_run(connection, begin)

        self._pool.apply(changes, write)

    def _write_run(self, connection: Connection, begin: Begin) -> None:
        check_unchanged(connection, self._set)
        now = self._resources.clock.now()
        fail_others(connection, self._set.id, begin.run, now, "the primary ended it")
        change_run(connection, self._set.id, begin.run, RunEvent.BEGIN, now, error=None)

    # -- filling and ending --------------------------------------------------------------------------------

    def store(self, arrived: Arrived, filled: Filled) -> Position:
        return self._expect_filling().store(arrived, filled)

    def compare(self, arrived: Arrived, done: Position) -> Position:
        try:
            return self._expect_filling().compare(arrived, done)
        except DigestMismatch as error:
            sentence = (
                f"{error}. This run stored them and read them back correctly before; they are sent again from there"
            )
            self._resources.report(
                events.STORED_DATA_CHANGED,
                f"Stored data of a run of replication set name: {self._set.name}, changed: {sentence}.",
            )
            raise DigestMismatch(sentence) from error

    def leave(self, reason: str) -> None:
        """The connection has ended: keeps what there is of a point that is being filled, and why it is not whole."""
        filling = self._filling
        if filling is None:
            return
        filling.flush()
        if self._fence.is_owner(self):
            with self._resources.database.transaction() as connection:
                run = run_records.find_run(connection, filling.run_uuid)
                if run is not None and run.state == "running":
                    note_run(connection, run.uuid, error=reason)

    def commit(self, commit: Commit) -> Committed:
        """One transaction: the clones' content becomes the volumes, the clones the new base, the old one goes."""
        filling = self._expect_filling()
        self.close()
        outcome = RunOutcome(digest=commit.digest, changed_bytes=filling.changed_bytes, wire_bytes=filling.wire_bytes)
        with self._fence.held_by(self):
            self._check_roles(commit.generation)
            with self._resources.database.read() as connection:
                held = point_records.set_points(connection, self._set.id)
            old = [point for point in held if point.state == "base"]
            begun = self._begun
            assert begun is not None
            self._check_replaces(begun, old[0].uuid if old else None)
            volumes = [member.image_id for member in self._set.members]
            changes: list[Change] = [
                Replace(volume, clone) for volume, clone in zip(volumes, filling.point.image_ids, strict=True)
            ]
            changes += [Delete(image_id) for point in old for image_id in point.image_ids]
            keeping = self._history.keeping(commit, filling.point.taken_at)
            kept = self._history.find(keeping)
            if kept is not None:
                changes += kept.snapshots(volumes, volumes)
                outcome = msgspec.structs.replace(outcome, snapshot_number=kept.number)

            def write(connection: Connection, images: Sequence[ImageInfo]) -> None:
                check_unchanged(connection, self._set)
                self._check_share(connection, begun)
                now = self._resources.clock.now()
                point_records.make_base(connection, self._set.id, filling.point.uuid, now, outcome.digest)
                other_halves.forget_other_half(connection, self._set.id)
                self._write_outcome(connection, commit, outcome)
                if kept is not None:
                    peer_share.note_images(connection, self._set.peer_id, kept.write(connection, images))
                    use_number(connection, self._set.id, commit.run, kept.number)

            self._pool.apply(changes, write)
            self._history.end(commit, keeping, kept)
        if commit.point == commit.run:
            size = format_size(outcome.changed_bytes)
            name = self._set.name
            self._resources.report(
                events.RUN_COMPLETED,
                f"A run of replication set name: {name}, completed successfully: {size} had changed.",
            )
        return Committed(outcome=outcome)

    def _write_outcome(self, connection: Connection, commit: Commit, outcome: RunOutcome) -> None:
        """A run that first finishes the point of an older one is not at its end with that."""
        digest = outcome.digest.hex()
        facts = RunFacts(changed_bytes=outcome.changed_bytes, wire_bytes=outcome.wire_bytes)
        if commit.point == commit.run:
            facts |= RunFacts(digest=digest, error=None)
            change_run(connection, self._set.id, commit.run, RunEvent.COMPLETE, self._resources.clock.now(), **facts)
            return
        note_run(connection, commit.run, **facts)
        older = run_records.find_run(connection, commit.point)
        if older is not None and older.set_id == self._set.id:  # a peer may name a run of another set
            note_run(connection, older.uuid, digest=digest)  # should Committed be lost, Holds tells of this one

    def keep(self, keep: Keep) -> Kept:
        with self._fence.held_by(self):
            self._check_roles(keep.generation)
            return Kept(snapshots=self._keep(keep.base))

    def _keep(self, base: str) -> list[str]:
        names, is_new = keep_copy(self._resources.database, self._pool, self._set, base)
        with self._resources.database.transaction() as connection:
            check_unchanged(connection, self._set)
            other_halves.note_decision(connection, self._set.id)
        if is_new:
            self._resources.report(
                events.COPY_KEPT,
                f"The copy on the secondary of replication set name: {self._set.name}, is kept in {', '.join(names)}: "
                "an operator of its primary decided to replace it.",
            )
        return names

    def discard(self, discard: Discard) -> None:
        """What there is of an aborted run's point goes. Harmless for a run that is not known, or has ended."""
        self.close()
        with self._fence.held_by(self):
            self._check_roles(discard.generation)
            with self._resources.database.read() as connection:
                held = point_records.set_points(connection, self._set.id)
                run = run_records.find_run(connection, discard.run)
            partial = [point for point in held if point.state == "partial" and point.uuid == discard.run]
            is_ours = run is not None and run.set_id == self._set.id  # a peer may name a run of another set
            is_under_way = is_ours and run is not None and run.state == "running"
            if not partial and not is_under_way:
                return

            def write(connection: Connection, _: object) -> None:
                check_unchanged(connection, self._set)
                point_records.delete_points(connection, [point.id for point in partial])
                if is_under_way:
                    now = self._resources.clock.now()
                    change_run(connection, self._set.id, discard.run, RunEvent.ABORT, now, error=discard.sentence)

            self._pool.apply([Delete(image_id) for point in partial for image_id in point.image_ids], write)
        self._resources.report(
            events.RUN_ABORTED, f"A run of replication set name: {self._set.name}, was aborted: {discard.sentence}"
        )

    def close(self) -> None:
        if self._filling is not None:
            self._filling.close()
            self._filling = None

    def _expect_filling(self) -> PartialPoint:
        if self._filling is None:
            raise ProtocolError("received no Begin of a point")
        return self._filling
