"""The plan of a run: a table of what both ends may hold, and that any cut, anywhere, ends the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsite.replication.points.plan import (
    Adopt,
    DiscardThere,
    Diverged,
    Forget,
    Outdated,
    PrimarySide,
    Relation,
    Send,
    Step,
    compare,
    plan,
    settle,
)
from offsite.replication.wire.messages import START, Holds, Partial, Position, RecoveryPoint

A, B, C, D = (letter * 36 for letter in "abcd")
UNKNOWN = "f" * 36
HALF = Position(0, 1 << 20)


def partial(point: str, base: str | None, watermark: Position = HALF) -> Partial:
    return Partial(point=point, base=base, watermark=watermark)


def told(point: str) -> RecoveryPoint:
    return RecoveryPoint(point=point, taken_at=1.0, completed_at=2.0)


def sending(
    base: str | None,
    pending: tuple[str, ...] = (),
    *,
    aborted: tuple[str, ...] = (),
    queued: tuple[str, ...] = (),
    complete: RecoveryPoint | None = None,
    **known: Any,
) -> PrimarySide:
    """A primary, for a run whose point is the last one of `pending`."""
    points = [*pending, *queued]
    held = Holds(role="primary", generation=1, base=base, complete=complete, pending=points, aborted=list(aborted))
    return PrimarySide(held, pending[-1] if pending else "", **known)


def receiving(base: str | None, begun: Partial | None = None, complete: RecoveryPoint | None = None) -> Holds:
    return Holds(role="secondary", generation=1, base=base, complete=complete, partial=begun)


TABLE: dict[str, tuple[PrimarySide, Holds, list[Step]]] = {
    "nothing was asked for": (sending(None, ()), receiving(None), []),
    "all is done": (sending(A, ()), receiving(A), []),
    "the initial run": (sending(None, (A,)), receiving(None), [Send(A, None, START), Adopt(A)]),
    "the initial run, cut": (
        sending(None, (A,)),
        receiving(None, partial(A, None)),
        [Send(A, None, HALF), Adopt(A)],
    ),
    "a difference": (sending(A, (B,)), receiving(A), [Send(B, A, START), Adopt(B)]),
    "a difference, cut": (
        sending(A, (B,)),
        receiving(A, partial(B, A)),
        [Send(B, A, HALF), Adopt(B)],
    ),
    "committed, and the acknowledgement was lost": (sending(A, (B,)), receiving(B), [Adopt(B)]),
    "a failed run's point is sent in part: it is finished first": (
        sending(A, (B, C)),
        receiving(A, partial(B, A)),
        [Send(B, A, HALF), Adopt(B), Send(C, B, START), Adopt(C)],
    ),
    "a failed run's point was never begun: it is passed over": (
        sending(A, (B, C)),
        receiving(A),
        [Forget(B), Send(C, A, START), Adopt(C)],
    ),
    "a failed run's point was committed after all": (
        sending(A, (B, C)),
        receiving(B),
        [Adopt(B), Send(C, B, START), Adopt(C)],
    ),
    "the newest was committed while an older one was pending": (
        sending(A, (B, C)),
        receiving(C),
        [Adopt(C)],
    ),
    "the primary was restored: the secondary holds what it has never had": (
        sending(A, (B,), complete=told(A)),
        receiving(D, None, told(D)),
        [Diverged(D, told(A), told(D))],
    ),
    "… to before its first run": (sending(None, (B,)), receiving(D), [Diverged(D, None, None)]),
    "… and nothing is due: it is found all the same": (
        sending(A, ()),
        receiving(D, partial(B, D)),
        [Diverged(D, None, None)],
    ),
    "… and an aborted point is left over: the secondary is not asked to discard anything": (
        sending(A, (B,), aborted=(C,)),
        receiving(D, partial(C, D)),
        [Diverged(D, None, None)],
    ),
    "… and an operator has decided that this base may be replaced": (
        sending(A, (B,), replaceable=D),
        receiving(D),
        [Send(B, None, START, replaces=D, keep=True), Adopt(B)],
    ),
    "… which was cut": (
        sending(A, (B,), replaceable=D),
        receiving(D, partial(B, None)),
        [Send(B, None, HALF, replaces=D, keep=True), Adopt(B)],
    ),
    "… or of another base than it holds by now": (
        sending(A, (B,), replaceable=C),
        receiving(D),
        [Diverged(D, None, None)],
    ),
    "the primary was restored to where the point that the secondary holds was still queued": (
        sending(A, (B,), queued=(C,)),
        receiving(C),
        [Adopt(C)],
    ),
    "the secondary was restored: it holds an older point of ours": (
        sending(B, (C,), past=frozenset([A])),
        receiving(A, None, told(A)),
        [Outdated(A, told(A)), Send(C, None, START, replaces=A), Adopt(C)],
    ),
    "… and the run is cut and planned again": (
        sending(B, (C,), past=frozenset([A])),
        receiving(A, partial(C, None)),
        [Outdated(A, None), Send(C, None, HALF, replaces=A), Adopt(C)],
    ),
    "… and an older point of ours is sent in part: the base is only replaced once": (
        sending(B, (C, D), past=frozenset([A])),
        receiving(A, partial(C, None)),
        [Outdated(A, None), Send(C, None, HALF, replaces=A), Adopt(C), Send(D, C, START), Adopt(D)],
    ),
    "the secondary has lost everything": (
        sending(A, (B,)),
        receiving(None),
        [Outdated(None, None), Send(B, None, START), Adopt(B)],
    ),
    "a partial point that was begun from another base is of no use": (
        sending(A, (B,)),
        receiving(A, partial(B, D)),
        [Send(B, A, START), Adopt(B)],
    ),
    "a partial point that nobody wants any more": (
        sending(A, (B,)),
        receiving(A, partial(D, A)),
        [Send(B, A, START), Adopt(B)],
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_table(case: str) -> None:
    primary, secondary, steps = TABLE[case]
    assert plan(primary, secondary) == steps


class World:
    """Both ends as the plan sees them; a step changes them as the real one does, in its two halves."""

    def __init__(self, primary: PrimarySide, secondary: Holds) -> None:
        self.primary, self.secondary = primary, secondary

    def begin(self, step: Send) -> None:
        assert step.base is None or step.base in (self.secondary.base, self.primary.holds.base)
        assert step.point in self.primary.pending, "only what the primary holds can be sent"
        held = self.secondary.partial
        if held is None or (held.point, held.base) != (step.point, step.base):
            self.secondary = receiving(self.secondary.base, partial(step.point, step.base, START))

    def fill(self, watermark: Position) -> None:
        held = self.secondary.partial
        assert held is not None
        self.secondary = receiving(self.secondary.base, partial(held.point, held.base, watermark))

    def commit(self, step: Send) -> None:
        assert step.base in (None, self.secondary.base), "a difference is only good on its own base"
        held = self.secondary.base
        assert held in (None, step.base, step.replaces), "what is complete is only given up to who names it"
        was_known = compare(self.primary, held) is not Relation.DIVERGED
        assert was_known or (held == self.primary.replaceable and step.keep), "or an operator has decided"
        self.secondary = receiving(step.point)

    def do(self, step: Step) -> None:
        if isinstance(step, Outdated | Diverged):
            return  # they are told, and change nothing
        assert not isinstance(step, Send)
        pending = self.primary.pending
        if isinstance(step, Forget):
            self._hold(pending=[p for p in self.primary.holds.pending if p != step.point])
            return
        assert self.secondary.base == step.point, "what is adopted is there"
        left = pending[pending.index(step.point) + 1 :] if step.point in pending else []
        self._hold(base=step.point, pending=left)

    def _hold(self, **held: Any) -> None:
        self.primary = replace(self.primary, holds=msgspec.structs.replace(self.primary.holds, **held))

    def carry_out(self, cuts: st.DataObject) -> bool:
        """One attempt, which may be cut before, within or after any step. Returns whether it came to the end."""

        def cut() -> bool:
            return cuts.draw(st.integers(0, 3)) == 0

        for step in plan(self.primary, self.secondary):
            if cut():
                return False
            if not isinstance(step, Send):
                self.do(step)
                continue
            self.begin(step)
            if cut():
                return False
            self.fill(HALF)
            if cut():
                return False
            self.commit(step)
        return True


points = st.sampled_from([A, B, C, D])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any state, also those that only a restored copy of a state directory makes possible."""
    base = draw(st.none() | points)
    pending = draw(st.lists(points.filter(lambda p: p != base), unique=True, max_size=3))
    begun = draw(st.none() | st.builds(partial, points, st.none() | points))
    queued = tuple(draw(st.lists(points.filter(lambda p: p != base and p not in pending), max_size=1)))
    past = frozenset(draw(st.lists(points.filter(lambda p: p not in pending and p not in queued))))
    decided = draw(st.none() | points)
    primary = sending(base, tuple(pending), queued=queued, past=past, replaceable=decided)
    return World(primary, receiving(draw(st.none() | points), begun))


@settings(max_examples=300)
@given(world=worlds(), cuts=st.data())
def test_whatever_is_cut_planning_again_ends_at_the_newest_point(world: World, cuts: st.DataObject) -> None:
    wanted = world.primary.pending[-1] if world.primary.pending else None
    wanted = world.secondary.base if world.secondary.base in world.primary.queued else wanted
    if compare(world.primary, world.secondary.base) is Relation.DIVERGED:  # for what else holds then see below
        world.primary = replace(world.primary, replaceable=world.secondary.base)
    for _ in range(20):
        if world.carry_out(cuts):
            break
    else:
        for step in plan(world.primary, world.secondary):
            if isinstance(step, Send):
                world.begin(step)
                world.commit(step)
            else:
                world.do(step)
    if wanted is not None:
        assert (world.primary.holds.base, world.primary.pending) == (wanted, [])
        assert world.secondary.base == wanted
    left = [step for step in plan(world.primary, world.secondary) if not isinstance(step, Outdated)]
    assert left == [], "and then there is nothing left to do"


@settings(max_examples=300)
@given(world=worlds(), aborted=st.lists(points, max_size=2, unique=True), decided=st.none() | points, cuts=st.data())
def test_a_copy_that_the_primary_has_never_had_is_never_touched(
    world: World, aborted: list[str], decided: str | None, cuts: st.DataObject
) -> None:
    """Whatever is tried, and however often it is cut: nothing follows from it but that it is told. A decision about
    another copy does not count for this one."""
    world._hold(aborted=aborted)
    world.primary = replace(world.primary, replaceable=decided)
    world.secondary = msgspec.structs.replace(world.secondary, base=UNKNOWN)
    before = world.primary, world.secondary
    for _ in range(3):
        assert [type(step) for step in plan(world.primary, world.secondary)] == [Diverged]
        world.carry_out(cuts)
    assert (world.primary, world.secondary) == before


@pytest.mark.parametrize(
    ("primary", "base", "steps"),
    [
        (sending(A, ()), A, []),
        (sending(A, (), aborted=(B,)), A, [DiscardThere(B), Forget(B)]),
        (sending(A, (), aborted=(B,)), B, [Adopt(B)]),
        (sending(A, (), aborted=(B, C)), C, [DiscardThere(B), Forget(B), Adopt(C)]),
        (sending(A, (), gone=(B,)), A, [DiscardThere(B), Forget(B)]),
        (sending(A, (), gone=(B,)), B, [Forget(B)]),
        (sending(None, (), aborted=(A,)), None, [DiscardThere(A), Forget(A)]),
    ],
    ids=[
        "none was aborted",
        "the abort came in time",
        "the abort came too late",
        "two, and one of them came too late",
        "one that is not held any more",
        "one that is not held any more can be no base, though the secondary has it",
        "the first run was aborted",
    ],
)
def test_aborted_runs_are_settled(
    primary: PrimarySide, base: str | None, steps: list[Adopt | DiscardThere | Forget]
) -> None:
    """The secondary is asked to discard each that it does not hold, and only what it holds becomes the base here."""
    assert settle(primary, base) == steps


@given(
    held=st.lists(points, max_size=3, unique=True),
    lost=st.lists(points, max_size=2, unique=True),
    base=st.none() | points,
)
def test_settling_leaves_no_aborted_point_and_no_base_that_is_not_held(
    held: list[str], lost: list[str], base: str | None
) -> None:
    gone = [point for point in lost if point not in held]
    steps = settle(sending(A, (), aborted=tuple(held), gone=tuple(gone)), base)
    ended = [step.point for step in steps if isinstance(step, Adopt | Forget)]
    assert sorted(ended) == sorted([*held, *gone])
    assert [step.point for step in steps if isinstance(step, Adopt)] == [point for point in held if point == base]
    assert [step.point for step in steps if isinstance(step, DiscardThere)] == [p for p in ended if p != base]
