"""The plan of a run: a table of what both ends may hold, and that any cut, anywhere, ends the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsite.replication.messages import START, Partial, Position
from offsite.replication.plan import Adopt, Forget, PrimaryHolds, SecondaryHolds, Send, Step, plan

A, B, C, D = (letter * 36 for letter in "abcd")
HALF = Position(0, 1 << 20)


def partial(point: str, base: str | None, watermark: Position = HALF) -> Partial:
    return Partial(point=point, base=base, watermark=watermark)


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
    "the secondary holds a base that we do not know: all is sent": (
        PrimaryHolds(A, (B,)),
        SecondaryHolds(D, None),
        [Send(B, None, START), Adopt(B)],
    ),
    "the secondary has lost everything": (
        PrimaryHolds(A, (B,)),
        SecondaryHolds(None, None),
        [Send(B, None, START), Adopt(B)],
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
        self.secondary = SecondaryHolds(step.point, None)

    def do(self, step: Adopt | Forget) -> None:
        pending = self.primary.pending
        if isinstance(step, Forget):
            self.primary = PrimaryHolds(self.primary.base, tuple(p for p in pending if p != step.point))
            return
        assert self.secondary.base == step.point, "what is adopted is there"
        self.primary = PrimaryHolds(step.point, pending[pending.index(step.point) + 1 :])

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
    return World(PrimaryHolds(base, tuple(pending)), SecondaryHolds(draw(st.none() | points), begun))


@settings(max_examples=300)
@given(world=worlds(), cuts=st.data())
def test_whatever_is_cut_planning_again_ends_at_the_newest_point(world: World, cuts: st.DataObject) -> None:
    wanted = world.primary.pending[-1] if world.primary.pending else None
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
        assert world.primary == PrimaryHolds(wanted, ())
        assert world.secondary.base == wanted
    assert plan(world.primary, world.secondary) == [], "and then there is nothing left to do"
