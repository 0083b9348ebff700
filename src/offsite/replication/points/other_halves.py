"""What the other half of a set holds while that is not what this half holds: on record, told once, and shown.

    same ──a visit or a run finds otherwise──▶ older ─────── the next run ──────────────▶ same
      ▲                                   └──▶ diverged ──── an operator decides, a run ──┘
      └──── found to agree again (what was restored was put right) ────┘

On the primary a visit or a run finds it. The secondary is told when it is diverged, so that its operator hears of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, delete, insert, select, update

from offsite import events
from offsite.clock import Clock
from offsite.events import Report
from offsite.replication.points import recovery_points
from offsite.replication.points.plan import Relation
from offsite.replication.records import peer_records, set_records
from offsite.replication.records.set_records import SetRecord
from offsite.replication.records.tables import other_halves, points
from offsite.replication.wire.messages import RecoveryPoint, told_instant
from offsite.store.database import Database
from offsite.units import format_instant, format_size


@dataclass(frozen=True)
class OtherHalf:
    set_id: int
    relation: Literal["older", "diverged"]
    base: str | None
    taken_at: float | None
    completed_at: float | None
    digest: str | None
    data_bytes: int | None
    found_at: float
    may_be_replaced: bool  # an operator has decided so

    @property
    def point(self) -> RecoveryPoint | None:
        """None: nothing complete, or nothing is told of it."""
        if self.base is None or self.taken_at is None or self.completed_at is None:
            return None
        return RecoveryPoint(
            point=self.base,
            taken_at=told_instant(self.taken_at),
            completed_at=told_instant(self.completed_at),
            digest=bytes.fromhex(self.digest) if self.digest else None,
            data_bytes=self.data_bytes or 0,
        )

    @property
    def is_diverged(self) -> bool:
        """And waits for an operator."""
        return self.relation == "diverged" and not self.may_be_replaced


# Asked all the time: to put them together anew would take as long as SQLite does.
_ALL = select(other_halves)


def all_other_halves(connection: Connection) -> dict[int, OtherHalf]:
    """Those that differ, by the id of their set."""
    return {row["set_id"]: OtherHalf(**row) for row in connection.execute(_ALL).mappings()}


def find_other_half(connection: Connection, set_id: int) -> OtherHalf | None:
    """None: it holds what this half holds, as far as is known."""
    return all_other_halves(connection).get(set_id)


def forget_other_half(connection: Connection, set_id: int) -> None:
    connection.execute(delete(other_halves).where(other_halves.c.set_id == set_id))


def allow_replacement(connection: Connection, set_id: int, base: str) -> None:
    """An operator has decided that this base, and no other, may be replaced."""
    chosen = (other_halves.c.set_id == set_id) & (other_halves.c.base == base)
    connection.execute(update(other_halves).where(chosen).values(may_be_replaced=True))


def note_decision(connection: Connection, set_id: int) -> None:
    """On the secondary, to which the decision shows by what it is asked for."""
    diverged = (other_halves.c.set_id == set_id) & (other_halves.c.relation == "diverged")
    connection.execute(update(other_halves).where(diverged).values(may_be_replaced=True))


def own_recovery_point(connection: Connection, set_id: int) -> RecoveryPoint | None:
    """The base of this half."""
    mine = (points.c.set_id == set_id) & (points.c.state == "base")
    base = connection.execute(select(points.c.uuid).where(mine)).scalar()
    return recovery_points.find_recovery_point(connection, set_id, base) if base else None


class OtherHalves:
    def __init__(self, database: Database, report: Report, clock: Clock) -> None:
        self._database = database
        self._report = report
        self._clock = clock

    def found(
        self, replication_set: SetRecord, relation: Relation, base: str | None, theirs: RecoveryPoint | None
    ) -> bool:
        """What the other half holds now. Returns whether that is something new; then it is on record and was told."""
        with self._database.read() as connection:
            known = find_other_half(connection, replication_set.id)
        if (relation.value, base) == (known.relation, known.base) if known else relation is Relation.SAME:
            return False
        with self._database.transaction() as connection:
            if set_records.find_set(connection, replication_set.uuid) is None:
                return False  # it was deleted on both systems while we were asking
            forget_other_half(connection, replication_set.id)
            if relation is not Relation.SAME:
                row = _row(theirs) | {"set_id": replication_set.id, "relation": relation.value, "base": base}
                connection.execute(insert(other_halves).values(row | {"found_at": self._clock.now()}))
            ours = own_recovery_point(connection, replication_set.id)
            peer = peer_records.peer_name(connection, replication_set.peer_id)
        self._tell(replication_set, relation, peer, ours, theirs)
        return True

    def _tell(
        self,
        replication_set: SetRecord,
        relation: Relation,
        peer: str,
        ours: RecoveryPoint | None,
        theirs: RecoveryPoint | None,
    ) -> None:
        if relation is Relation.DIVERGED:
            sentence = diverged_sentence(replication_set, peer, ours, theirs)
            self._report(events.SET_DIVERGED, f"{sentence[0].upper()}{sentence[1:]}.")
        elif relation is Relation.OLDER:
            self._report(
                events.SECONDARY_IS_OLDER,
                f"Replication set name: {replication_set.name}: system {peer} now holds {_older_told(theirs)}; before, "
                f"it held the data of {_instant(ours)}. The next run sends everything.",
            )
        else:
            self._report(
                events.SET_AGREES_AGAIN,
                f"Replication set name: {replication_set.name}, has the same recovery point on both systems again.",
            )


def diverged_sentence(
    replication_set: SetRecord, peer: str, ours: RecoveryPoint | None, theirs: RecoveryPoint | None
) -> str:
    """What has happened, and what leads out of it: for the event, for `show`, and for whoever asks for a run."""
    if replication_set.role == "secondary":
        return (
            f"replication set {replication_set.name} is diverged: this system holds {told_of(ours)}, which its primary "
            f"{peer} never had; the newest copy that {peer} knows has {told_of(theirs)}. {peer} was probably restored "
            f"from an older copy. Nothing here is changed until an operator decides on {peer}"
        )
    return (
        f"replication set {replication_set.name} is diverged: {peer} holds {told_of(theirs)}, which this system never "
        f"had; the newest copy that this system knows has {told_of(ours)}. This system was probably restored from an "
        f"older copy. Nothing is sent, and nothing on {peer} is changed, until an operator decides: `resolve "
        f"replication-set use primary {replication_set.name}` keeps the copy there as a snapshot and sends the content "
        f"of this system. (Continuing with the copy on {peer} requires role changes, which this version does not have; "
        "until then, use a snapshot of it there)"
    )


def sentence_of(connection: Connection, replication_set: SetRecord, half: OtherHalf) -> str:
    """What is shown of a set whose halves differ."""
    peer = peer_records.peer_name(connection, replication_set.peer_id)
    if half.relation == "diverged":
        if not half.may_be_replaced:
            return diverged_sentence(
                replication_set, peer, own_recovery_point(connection, replication_set.id), half.point
            )
        if replication_set.role == "secondary":
            return f"an operator of {peer} decided to keep the copy here as a snapshot and to replace it"
        return f"an operator decided to keep the copy on {peer} as a snapshot and to replace it"
    return f"system {peer} holds {_older_told(half.point)}; the next run sends everything"


def told_of(point: RecoveryPoint | None) -> str:
    """Of what a system holds, for people. The digest is that of the run that sent it, as `show replication-runs` has
    it, shortened."""
    if point is None:
        return "no complete data"
    parts = [f"complete since {format_instant(point.completed_at)}"]
    if point.data_bytes:
        parts.append(format_size(point.data_bytes))
    if point.digest:
        parts.append(f"digest {point.digest.hex()[:8]}")
    return f"the data of {format_instant(point.taken_at)} ({', '.join(parts)})"


def _older_told(point: RecoveryPoint | None) -> str:
    return "no complete copy" if point is None else f"an older copy, {told_of(point)}"


def _instant(point: RecoveryPoint | None) -> str:
    return "an unknown time" if point is None else format_instant(point.taken_at)


def _row(point: RecoveryPoint | None) -> dict[str, object]:
    if point is None:
        return {}
    return {
        "taken_at": point.taken_at,
        "completed_at": point.completed_at,
        "digest": point.digest.hex() if point.digest else None,
        "data_bytes": point.data_bytes,
    }
