"""The plan of a run: a table of what both ends may hold, and that any cut, anywhere, ends the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsite.replication.points.plan import (
    Adopt,
    DiscardThere,
    Diverged,
    Forget,
    Outdated,
    PrimaryHolds,
    Relation,
    SecondaryHolds,
    Send,
    Step,
    compare,
    plan,
    settle,
)
from offsite.replication.wire.messages import START, Partial, Position, RecoveryPoint

A, B, C, D = (letter * 36 for letter in "abcd")
UNKNOWN = "f" * 36
HALF = Position(0, 1 << 20)


def partial(point: str, base: str | None, watermark: Position = HALF) -> Partial:
    return Partial(point=point, base=base, watermark=watermark)


def told(point: str) -> RecoveryPoint:
    return RecoveryPoint(point=point, taken_at=1.0, completed_at=2.0)


TABLE: dict[str, tuple[PrimaryHolds, SecondaryHolds, list[Step]]] = {
    "nothing was asked for": (PrimaryHolds(None, ()), SecondaryHolds(None, None), []),
    "all is done": (PrimaryHolds(A, ()), SecondaryHolds(A, None), []),
    "the initial run": (PrimaryHolds(None, (A,)), SecondaryHolds(None, None), [Send(A, None, START), Adopt(A)]),
    "the initial run, cut": (
        PrimaryHolds(None, (A,)),
        SecondaryHolds(None, partial(A, None)),
        [Send(A, None, HALF), Adopt(A)],
    ),
    "a difference": (PrimaryHolds(A, (B,)), SecondaryHolds(A, None), [Send(B, A, START), Adopt(B)]),
    "a difference, cut": (
        PrimaryHolds(A, (B,)),
        SecondaryHolds(A, partial(B, A)),
        [Send(B, A, HALF), Adopt(B)],
    ),
    "committed, and the acknowledgement was lost": (PrimaryHolds(A, (B,)), SecondaryHolds(B, None), [Adopt(B)]),
    "a failed run's point is sent in part: it is finished first": (
        PrimaryHolds(A, (B, C)),
        SecondaryHolds(A, partial(B, A)),
        [Send(B, A, HALF), Adopt(B), Send(C, B, START), Adopt(C)],
    ),
    "a failed run's point was never begun: it is passed over": (
        PrimaryHolds(A, (B, C)),
        SecondaryHolds(A, None),
        [Forget(B), Send(C, A, START), Adopt(C)],
    ),
    "a failed run's point was committed after all": (
        PrimaryHolds(A, (B, C)),
        SecondaryHolds(B, None),
        [Adopt(B), Send(C, B, START), Adopt(C)],
    ),
    "the newest was committed while an older one was pending": (
        PrimaryHolds(A, (B, C)),
        SecondaryHolds(C, None),
        [Adopt(C)],
    ),
    "the primary was restored: the secondary holds what it has never had": (
        PrimaryHolds(A, (B,), complete=told(A)),
        SecondaryHolds(D, None, told(D)),
        [Diverged(D, told(A), told(D))],
    ),
    "… to before its first run": (PrimaryHolds(None, (B,)), SecondaryHolds(D, None), [Diverged(D, None, None)]),
    "… and nothing is due: it is found all the same": (
        PrimaryHolds(A, ()),
        SecondaryHolds(D, partial(B, D)),
        [Diverged(D, None, None)],
    ),
    "… and an aborted point is left over: the secondary is not asked to discard anything": (
        PrimaryHolds(A, (B,), aborted=(C,)),
        SecondaryHolds(D, partial(C, D)),
        [Diverged(D, None, None)],
    ),
    "… and an operator has decided that this base may be replaced": (
        PrimaryHolds(A, (B,), replaceable=D),
        SecondaryHolds(D, None),
        [Send(B, None, START, replaces=D, keep=True), Adopt(B)],
    ),
    "… which was cut": (
        PrimaryHolds(A, (B,), replaceable=D),
        SecondaryHolds(D, partial(B, None)),
        [Send(B, None, HALF, replaces=D, keep=True), Adopt(B)],
    ),
    "… or of another base than it holds by now": (
        PrimaryHolds(A, (B,), replaceable=C),
        SecondaryHolds(D, None),
        [Diverged(D, None, None)],
    ),
    "the primary was restored to where the point that the secondary holds was still queued": (
        PrimaryHolds(A, (B,), queued=(C,)),
        SecondaryHolds(C, None),
        [Adopt(C)],
    ),
    "the secondary was restored: it holds an older point of ours": (
        PrimaryHolds(B, (C,), past=frozenset([A])),
        SecondaryHolds(A, None, told(A)),
        [Outdated(A, told(A)), Send(C, None, START, replaces=A), Adopt(C)],
    ),
    "… and the run is cut and planned again": (
        PrimaryHolds(B, (C,), past=frozenset([A])),
        SecondaryHolds(A, partial(C, None)),
        [Outdated(A, None), Send(C, None, HALF, replaces=A), Adopt(C)],
    ),
    "… and an older point of ours is sent in part: the base is only replaced once": (
        PrimaryHolds(B, (C, D), past=frozenset([A])),
        SecondaryHolds(A, partial(C, None)),
        [Outdated(A, None), Send(C, None, HALF, replaces=A), Adopt(C), Send(D, C, START), Adopt(D)],
    ),
    "the secondary has lost everything": (
        PrimaryHolds(A, (B,)),
        SecondaryHolds(None, None),
        [Outdated(None, None), Send(B, None, START), Adopt(B)],
    ),
    "a partial point that was begun from another base is of no use": (
        PrimaryHolds(A, (B,)),
        SecondaryHolds(A, partial(B, D)),
        [Send(B, A, START), Adopt(B)],
    ),
    "a partial point that nobody wants any more": (
        PrimaryHolds(A, (B,)),
        SecondaryHolds(A, partial(D, A)),
        [Send(B, A, START), Adopt(B)],
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_table(case: str) -> None:
    primary, secondary, steps = TABLE[case]
    assert plan(primary, secondary) == steps


class World:
    """Both ends as the plan sees them; a step changes them as the real one does, in its two halves."""

    def __init__(self, primary: PrimaryHolds, secondary: SecondaryHolds) -> None:
        self.primary, self.secondary = primary, secondary

    def begin(self, step: Send) -> None:
        assert step.base is None or step.base in (self.secondary.base, self.primary.base)
        assert step.point in self.primary.pending, "only what the primary holds can be sent"
        held = self.secondary.partial
        if held is None or (held.point, held.base) != (step.point, step.base):
            self.secondary = SecondaryHolds(self.secondary.base, partial(step.point, step.base, START))

    def fill(self, watermark: Position) -> None:
        held = self.secondary.partial
        assert held is not None
        self.secondary = SecondaryHolds(self.secondary.base, partial(held.point, held.base, watermark))

    def commit(self, step: Send) -> None:
        assert step.base in (None, self.secondary.base), "a difference is only good on its own base"
        held = self.secondary.base
        assert held in (None, step.base, step.replaces), "what is complete is only given up to who names it"
        was_known = compare(self.primary, held) is not Relation.DIVERGED
        assert was_known or (held == self.primary.replaceable and step.keep), "or an operator has decided"
        self.secondary = SecondaryHolds(step.point, None)

    def do(self, step: Step) -> None:
        if isinstance(step, Outdated | Diverged):
            return  # they are told, and change nothing
        assert not isinstance(step, Send)
        pending = self.primary.pending
        if isinstance(step, Forget):
            self.primary = replace(self.primary, pending=tuple(p for p in pending if p != step.point))
            return
        assert self.secondary.base == step.point, "what is adopted is there"
        left = pending[pending.index(step.point) + 1 :] if step.point in pending else ()
        self.primary = replace(self.primary, base=step.point, pending=left, queued=())

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
    primary = PrimaryHolds(base, tuple(pending), queued=queued, past=past, replaceable=decided)
    return World(primary, SecondaryHolds(draw(st.none() | points), begun))


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
        assert (world.primary.base, world.primary.pending) == (wanted, ())
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
    world.primary = replace(world.primary, aborted=tuple(aborted), replaceable=decided)
    world.secondary = replace(world.secondary, base=UNKNOWN)
    before = world.primary, world.secondary
    for _ in range(3):
        assert [type(step) for step in plan(world.primary, world.secondary)] == [Diverged]
        world.carry_out(cuts)
    assert (world.primary, world.secondary) == before


@pytest.mark.parametrize(
    ("primary", "base", "steps"),
    [
        (PrimaryHolds(A, ()), A, []),
        (PrimaryHolds(A, (), aborted=(B,)), A, [DiscardThere(B), Forget(B)]),
        (PrimaryHolds(A, (), aborted=(B,)), B, [Adopt(B)]),
        (PrimaryHolds(A, (), aborted=(B, C)), C, [DiscardThere(B), Forget(B), Adopt(C)]),
        (PrimaryHolds(A, (), gone=(B,)), A, [DiscardThere(B), Forget(B)]),
        (PrimaryHolds(A, (), gone=(B,)), B, [Forget(B)]),
        (PrimaryHolds(None, (), aborted=(A,)), None, [DiscardThere(A), Forget(A)]),
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
    primary: PrimaryHolds, base: str | None, steps: list[Adopt | DiscardThere | Forget]
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
    steps = settle(PrimaryHolds(A, (), aborted=tuple(held), gone=tuple(gone)), base)
    ended = [step.point for step in steps if isinstance(step, Adopt | Forget)]
    assert sorted(ended) == sorted([*held, *gone])
    assert [step.point for step in steps if isinstance(step, Adopt)] == [point for point in held if point == base]
    assert [step.point for step in steps if isinstance(step, DiscardThere)] == [p for p in ended if p != base]
