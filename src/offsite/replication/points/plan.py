"""What is left to do of a run: a pure function of what both ends hold, which either end tells by the same message.

A *point* is an instant of all members of a set, named by the uuid of the run that took it. The primary holds
a base (the newest point that it knows both ends have), and pending points, oldest first: the last one is that
of the run; one before it is left from an older one. Points of aborted runs are there until it is known that the
secondary has not made one of them its base; without their images when it was certain before that it has not. The
secondary holds a base (the point that its volumes are) and perhaps a partial point.

A base that the primary knows as an older one of its own, or none at all, is that of a secondary that was restored
from a copy, or made anew: it is filled from nothing. A base that the primary has never had is *diverged*: it may be
newer than all that is here, for it was this system that was restored. Nothing is done to it before an operator has
decided; then what is there stays as a snapshot.

Every step can be done twice, and after a crash or cut anywhere the plan is made again from what is there: so
there is no other repair. Why each case converges is told in docs/wire-protocol.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from offsite.replication.wire.messages import START, Holds, Position, RecoveryPoint


@dataclass(frozen=True, slots=True)
class PrimarySide:
    """What the primary holds, and what it knows of the copy that the secondary holds."""

    holds: Holds
    run: str = ""  # whose point is to be sent; those that were taken later are of runs that are queued
    gone: tuple[str, ...] = ()  # points of aborted runs that are not held any more: no base can be made of them
    past: frozenset[str] = frozenset()  # which of the points asked about were the base here once
    replaceable: str | None = None  # the secondary's base of which an operator has decided that it is to be replaced

    @property
    def pending(self) -> list[str]:
        points = self.holds.pending
        return points[: points.index(self.run) + 1] if self.run in points else []

    @property
    def queued(self) -> list[str]:
        return self.holds.pending[len(self.pending) :]


class Relation(Enum):
    """What the secondary's base is, as the primary sees it."""

    SAME = "same"  # or newer, and the primary has it: its acknowledgement was lost
    OLDER = "older"  # one of its own from before, or none
    DIVERGED = "diverged"  # one that it has never had


def compare(primary: PrimarySide, base: str | None) -> Relation:
    held = primary.holds
    if base in (held.base, *held.pending, *held.aborted):
        return Relation.SAME
    return Relation.OLDER if base is None or base in primary.past else Relation.DIVERGED


@dataclass(frozen=True, slots=True)
class Adopt:
    """Primary: `point` becomes the base; older points go. The secondary has it already."""

    point: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Primary: a pending point that nobody will ask for any more goes."""

    point: str


@dataclass(frozen=True, slots=True)
class DiscardThere:
    """Secondary: what there is of the point of an aborted run goes."""

    point: str


@dataclass(frozen=True, slots=True)
class Send:
    """Fill the secondary with `point`: the difference from `base` (None: from nothing) from `start` on, then
    commit it there. The secondary has `base`, or a partial `point` that was begun from it.

    `replaces` is the base that the secondary holds when it is another one; with `keep`, that stays as a snapshot."""

    point: str
    base: str | None
    start: Position
    replaces: str | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Outdated:
    """Primary: it is told that the secondary holds an older point, or nothing. What follows fills it from nothing."""

    base: str | None
    theirs: RecoveryPoint | None


@dataclass(frozen=True, slots=True)
class Diverged:
    """Primary: it is told that the secondary holds what the primary has never had. Nothing follows."""

    base: str
    ours: RecoveryPoint | None
    theirs: RecoveryPoint | None


Step = Adopt | Forget | Send | Outdated | Diverged


def plan(primary: PrimarySide, secondary: Holds) -> list[Step]:
    """The steps left until both ends hold the primary's newest pending point. Empty: there is none."""
    relation = compare(primary, secondary.base)
    decided = relation is Relation.DIVERGED and secondary.base == primary.replaceable
    if relation is Relation.DIVERGED and not decided:
        assert secondary.base is not None
        return [Diverged(secondary.base, primary.holds.complete, secondary.complete)]

    steps: list[Step] = [Outdated(secondary.base, secondary.complete)] if relation is Relation.OLDER else []
    steps += [Forget(point) for point in primary.holds.aborted if point != secondary.base]
    steps += [Forget(point) for point in primary.gone]
    base, pending = primary.holds.base, primary.pending
    if secondary.base in primary.queued:
        # Sent before this system was restored to where its run was still waiting.
        return [*steps, Adopt(str(secondary.base))]
    if secondary.base in (*primary.holds.aborted, *pending):
        # It was committed over there, and the acknowledgement was lost, or the abort came too late.
        base = secondary.base
        steps.append(Adopt(base))
        if base in pending:
            del pending[: pending.index(base) + 1]
    if not pending:
        return steps

    common = base if base == secondary.base else None
    replaces = None if common is not None else secondary.base
    begun = secondary.partial
    for point in pending[:-1]:
        if begun is not None and begun.point == point and begun.base == common:
            # Left by a run that failed. Finishing it keeps what was sent of it.
            steps += [Send(point, common, begun.watermark, replaces, decided), Adopt(point)]
            common, replaces, decided = point, None, False
        else:
            steps.append(Forget(point))

    newest = pending[-1]
    resumed = begun is not None and begun.point == newest and begun.base == common
    start = begun.watermark if begun is not None and resumed else START
    return [*steps, Send(newest, common, start, replaces, decided), Adopt(newest)]


def settle(primary: PrimarySide, base: str | None) -> list[Adopt | DiscardThere | Forget]:
    """The steps that bring aborted runs to an end while nothing is sent. `base` is what the secondary holds: an abort
    may have come too late."""
    steps: list[Adopt | DiscardThere | Forget] = []
    for point in (*primary.holds.aborted, *primary.gone):
        if point != base:
            steps += [DiscardThere(point), Forget(point)]
        else:
            steps.append(Adopt(point) if point in primary.holds.aborted else Forget(point))
    return steps
