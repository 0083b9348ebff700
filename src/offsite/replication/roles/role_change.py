"""What is left to do until both ends of a set agree on a change of roles: a pure function of what both hold.

    reverse    primary: writes stopped, all sent ──▶ secondary of g + 1, then the other end: primary of g + 1
    failover   secondary: primary of g + 1; when the other end is back: secondary of g + 1, and its writes are kept

The end of the newer generation is right: the other one takes the other role of that generation. So roles and
generations are all the record that there is of how far a change has got. After a crash anywhere the plan is made again
from what is there, by either end, and every step can be done twice: one that raises a generation does nothing at an end
that has reached it.

A primary that becomes secondary keeps what its volumes are as a snapshot of each, in that same transaction: what was
written there and was never sent is not in the way of the new primary, and not lost.

Nobody but tests makes these plans yet: the commands for failover and reverse are to carry them out. In use is what they
stand on: `standing`, by which each end judges the other, and `Holds`, in which either tells what it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from offsite.errors import NotAllowed, SetDiverged
from offsite.replication.roles.standing import Standing, Verdict, judge
from offsite.replication.wire.messages import Holds


class Change(Enum):
    FAILOVER = "failover"  # the secondary, which this system is, becomes the primary, without the other end
    REVERSE = "reverse"  # both change


@dataclass(frozen=True, slots=True)
class AskedChange:
    """It is asked for in a generation: once there is a newer one, it has begun, or another one has."""

    change: Change
    generation: int


class At(Enum):
    """The end at which a step is done, as the one sees it that has made the plan."""

    HERE = "here"
    THERE = "there"


@dataclass(frozen=True, slots=True)
class StopWrites:
    """At the primary: hosts write no more until it is secondary, or the change is given up."""

    at: At


@dataclass(frozen=True, slots=True)
class Replicate:
    """At the primary: a run, to its end. Then the secondary holds all that was written."""

    at: At


@dataclass(frozen=True, slots=True)
class BecomeSecondary:
    """With `keep`, what the volumes are stays as a snapshot of each. Pending points are those of aborted runs then, but
    for the one that is adopted: the other end has made it its base, and the acknowledgement was lost."""

    at: At
    generation: int
    keep: bool
    adopt: str | None = None


@dataclass(frozen=True, slots=True)
class BecomePrimary:
    """What was received of a point in part goes: the other end has all of it."""

    at: At
    generation: int


RoleStep = StopWrites | Replicate | BecomeSecondary | BecomePrimary


def plan(name: str, ours: Holds, theirs: Holds | None, asked: AskedChange | None = None) -> list[RoleStep]:
    """The steps left until the asked change of set `name` is done and both ends agree; without one, until they agree.
    `theirs` is None when the other end does not answer. Raises NotAllowed, or SetDiverged when the two copies are not
    of one line and nobody has decided."""
    newest = ours.generation if theirs is None else max(ours.generation, theirs.generation)
    if asked is not None and asked.generation > newest:
        raise NotAllowed(f"replication set {name} is of generation {newest}; a change was asked for in a later one")
    wanted = asked.change if asked is not None and asked.generation == newest else None
    steps: list[RoleStep] = []
    if wanted is Change.FAILOVER:
        _check_may_fail_over(name, ours, newest)
        steps.append(BecomePrimary(At.HERE, newest + 1))
        ours = msgspec.structs.replace(ours, role="primary", generation=newest + 1)
    if theirs is None:
        if asked is not None and asked.change is Change.REVERSE:
            raise NotAllowed(
                f"the other end of replication set {name} does not answer; only a failover needs no answer"
            )
        return steps
    is_decided = asked == AskedChange(Change.FAILOVER, ours.generation)
    steps += _agreement(name, ours, theirs, is_decided=is_decided)
    return [*steps, *_swap(ours, theirs, newest)] if wanted is Change.REVERSE else steps


def _check_may_fail_over(name: str, ours: Holds, newest: int) -> None:
    if ours.role == "primary":
        raise NotAllowed(f"replication set {name} is primary here already")
    if ours.generation < newest:
        raise NotAllowed(f"replication set {name} is of generation {ours.generation} here, of {newest} there")
    if ours.base is None:
        raise NotAllowed(f"replication set {name} holds nothing complete here; a run has to end first")


def _agreement(name: str, ours: Holds, theirs: Holds, *, is_decided: bool) -> list[RoleStep]:
    """The end of the older generation takes the other role of the newer one. `is_decided`: the one here is to be the
    primary whatever copy it has, for an operator wants it so."""
    verdict = judge(Standing(ours.role, ours.generation), Standing(theirs.role, theirs.generation))
    if verdict is Verdict.COUNTERPARTS:
        return []
    if verdict is Verdict.CONTRADICTION:
        raise NotAllowed(f"replication set {name} is {ours.role} at both ends, in generation {ours.generation}")
    if verdict is Verdict.OURS_IS_OLDER:
        at, older, newer = At.HERE, ours, theirs
    else:
        at, older, newer = At.THERE, theirs, ours
    if newer.role == "primary":
        adopt = newer.base if newer.base in (*older.pending, *older.aborted) else None
        return [BecomeSecondary(at, newer.generation, older.role == "primary", adopt)]
    is_known = older.base in (newer.base, *newer.pending, *newer.aborted) or (is_decided and at is At.HERE)
    if older.base is None or not is_known:
        raise SetDiverged(
            f"replication set {name} has no primary in generation {newer.generation}, and the end that is to become it "
            "does not hold what the other one has; fail over to the end that is to go on"
        )
    return [BecomePrimary(at, newer.generation)]


def _swap(ours: Holds, theirs: Holds, generation: int) -> list[RoleStep]:
    """From two ends that agree, or will. Until the primary is secondary, all is done again after a crash: what was
    written meanwhile is sent, too."""
    primary, secondary = At.HERE, At.THERE
    newer = ours if ours.generation == generation else theirs
    if (newer is ours) != (newer.role == "primary"):
        primary, secondary = secondary, primary
    return [
        StopWrites(primary),
        Replicate(primary),
        BecomeSecondary(primary, generation + 1, keep=True),
        BecomePrimary(secondary, generation + 1),
    ]
