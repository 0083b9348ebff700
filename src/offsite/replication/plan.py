"""What is left to do of a run: a pure function of what both ends hold.

A *point* is an instant of all members of a set, named by the uuid of the run that took it. The primary holds
a base (the newest point that it knows both ends have), and pending points, oldest first: the last one is that
of the run; one before it is left from an older one. Points of aborted runs are there until it is known that the
secondary has not made one of them its base. The secondary holds a base (the point that its volumes are) and
perhaps a partial point.

Every step can be done twice, and after a crash or cut anywhere the plan is made again from what is there: so
there is no other repair. Why each case converges is told in docs/wire-protocol.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from offsite.replication.messages import START, Partial, Position


@dataclass(frozen=True, slots=True)
class PrimaryHolds:
    base: str | None
    pending: tuple[str, ...]
    aborted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecondaryHolds:
    base: str | None
    partial: Partial | None


@dataclass(frozen=True, slots=True)
class Adopt:
    """Primary: `point` becomes the base; older points go. The secondary has it already."""

    point: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Primary: a pending point that nobody will ask for any more goes."""

    point: str


@dataclass(frozen=True, slots=True)
class Send:
    """Fill the secondary with `point`: the difference from `base` (None: from nothing) from `start` on, then
    commit it there. The secondary has `base`, or a partial `point` that was begun from it."""

    point: str
    base: str | None
    start: Position


Step = Adopt | Forget | Send


def plan(primary: PrimaryHolds, secondary: SecondaryHolds) -> list[Step]:
    """The steps left until both ends hold the primary's newest pending point. Empty: there is none."""
    steps: list[Step] = [Forget(point) for point in primary.aborted if point != secondary.base]
    base, pending = primary.base, list(primary.pending)
    if secondary.base in (*primary.aborted, *pending):
        # It was committed over there, and the acknowledgement was lost, or the abort came too late.
        base = secondary.base
        steps.append(Adopt(base))
        if base in pending:
            del pending[: pending.index(base) + 1]
    if not pending:
        return steps

    # A secondary that holds another base than ours (restored from a copy, say) is filled anew, from nothing.
    common = base if base == secondary.base else None
    begun = secondary.partial
    for point in pending[:-1]:
        if begun is not None and begun.point == point and begun.base == common:
            # Left by a run that failed. Finishing it keeps what was sent of it.
            steps += [Send(point, common, begun.watermark), Adopt(point)]
            common = point
        else:
            steps.append(Forget(point))

    newest = pending[-1]
    resumed = begun is not None and begun.point == newest and begun.base == common
    start = begun.watermark if begun is not None and resumed else START
    return [*steps, Send(newest, common, start), Adopt(newest)]
