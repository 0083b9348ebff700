"""The plan of a change of roles: whatever is cut, whoever plans, there is one primary of a generation at most, nothing
that was written is lost, and both ends agree once they have met."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from offsite.errors import NotAllowed, SetDiverged
from offsite.replication.records.set_records import Role
from offsite.replication.roles.role_change import (
    AskedChange,
    At,
    BecomePrimary,
    BecomeSecondary,
    Change,
    Replicate,
    RoleStep,
    StopWrites,
    plan,
)
from offsite.replication.roles.standing import Standing, Verdict, judge
from offsite.replication.wire.messages import Holds

A, B = ("a" * 36, "b" * 36)
HERE, THERE = At.HERE, At.THERE
FAILOVER, REVERSE = Change.FAILOVER, Change.REVERSE


def end(role: Role, generation: int, base: str | None = A, pending: tuple[str, ...] = ()) -> Holds:
    return Holds(role=role, generation=generation, base=base, pending=list(pending))


SWAPPED: list[RoleStep] = [
    StopWrites(HERE),
    Replicate(HERE),
    BecomeSecondary(HERE, 2, keep=True),
    BecomePrimary(THERE, 2),
]

PLANS: dict[str, tuple[Holds, Holds | None, AskedChange | None, list[RoleStep]]] = {
    "nothing is asked for, and they agree": (end("primary", 1), end("secondary", 1), None, []),
    "failover, and the primary is gone": (
        end("secondary", 1),
        None,
        AskedChange(FAILOVER, 1),
        [BecomePrimary(HERE, 2)],
    ),
    "… again, after it was done": (end("primary", 2), None, AskedChange(FAILOVER, 1), []),
    "… and the primary answers: what it has is kept": (
        end("secondary", 1),
        end("primary", 1),
        AskedChange(FAILOVER, 1),
        [BecomePrimary(HERE, 2), BecomeSecondary(THERE, 2, keep=True)],
    ),
    "… and the primary comes back": (
        end("primary", 2),
        end("primary", 1),
        None,
        [BecomeSecondary(THERE, 2, keep=True)],
    ),
    "… as it finds itself": (end("primary", 1), end("primary", 2), None, [BecomeSecondary(HERE, 2, keep=True)]),
    "… with an acknowledgement that was lost: the base is adopted, and need not be sent again": (
        end("primary", 1, A, pending=(B,)),
        end("primary", 2, B),
        None,
        [BecomeSecondary(HERE, 2, keep=True, adopt=B)],
    ),
    "reverse": (end("primary", 1), end("secondary", 1), AskedChange(REVERSE, 1), SWAPPED),
    "… asked for at the secondary": (
        end("secondary", 1),
        end("primary", 1),
        AskedChange(REVERSE, 1),
        [StopWrites(THERE), Replicate(THERE), BecomeSecondary(THERE, 2, keep=True), BecomePrimary(HERE, 2)],
    ),
    "… cut between its two ends: the way on is clear without being asked": (
        end("secondary", 2),
        end("secondary", 1),
        None,
        [BecomePrimary(THERE, 2)],
    ),
    "… again, after it was done: it is not turned back": (
        end("secondary", 2),
        end("primary", 2),
        AskedChange(REVERSE, 1),
        [],
    ),
    "… while the old primary does not know of a failover: that comes first": (
        end("primary", 2),
        end("primary", 1),
        AskedChange(REVERSE, 2),
        [
            BecomeSecondary(THERE, 2, keep=True),
            StopWrites(HERE),
            Replicate(HERE),
            BecomeSecondary(HERE, 3, keep=True),
            BecomePrimary(THERE, 3),
        ],
    ),
    "a secondary that missed two changes has nothing to keep": (
        end("secondary", 1),
        end("primary", 3),
        None,
        [BecomeSecondary(HERE, 3, keep=False)],
    ),
    "no primary, and other copies: an operator has decided by a failover": (
        end("secondary", 1, B),
        end("secondary", 2, A),
        AskedChange(FAILOVER, 1),
        [BecomePrimary(HERE, 2)],
    ),
}


@pytest.mark.parametrize("case", PLANS)
def test_plans(case: str) -> None:
    ours, theirs, asked, steps = PLANS[case]
    assert plan("S", ours, theirs, asked) == steps


REFUSALS: dict[str, tuple[Holds, Holds | None, AskedChange | None, type[Exception], str]] = {
    "two primaries of one generation": (end("primary", 1), end("primary", 1), None, NotAllowed, "primary at both ends"),
    "none": (end("secondary", 1), end("secondary", 1), None, NotAllowed, "secondary at both ends, in generation 1"),
    "a failover of the primary": (
        end("primary", 1),
        None,
        AskedChange(FAILOVER, 1),
        NotAllowed,
        "primary here already",
    ),
    "a failover to nothing": (
        end("secondary", 1, None),
        None,
        AskedChange(FAILOVER, 1),
        NotAllowed,
        "holds nothing complete here",
    ),
    "a reverse with nobody": (end("primary", 1), None, AskedChange(REVERSE, 1), NotAllowed, "does not answer"),
    "a change of a generation to come": (
        end("primary", 1),
        end("secondary", 1),
        AskedChange(REVERSE, 2),
        NotAllowed,
        "is of generation 1",
    ),
    "a failover by who has missed one": (
        end("secondary", 1),
        end("primary", 3),
        AskedChange(FAILOVER, 3),
        NotAllowed,
        "of generation 1 here, of 3 there",
    ),
    "no primary, and the one that is to be it was put back": (
        end("secondary", 1, B),
        end("secondary", 2, A),
        None,
        SetDiverged,
        "fail over to the end that is to go on",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str) -> None:
    ours, theirs, asked, kind, sentence = REFUSALS[case]
    with pytest.raises(kind, match=sentence):
        plan("S", ours, theirs, asked)


@dataclass
class Model:
    """An end, and what hosts have written there: each write has a number, and a content is a set of them."""

    role: Role
    generation: int = 1
    base: str | None = None
    pending: tuple[str, ...] = ()
    aborted: tuple[str, ...] = ()
    volume: frozenset[int] = frozenset()
    kept: list[frozenset[int]] = field(default_factory=list)
    are_writes_stopped: bool = False

    def holds(self) -> Holds:
        return Holds(
            role=self.role,
            generation=self.generation,
            base=self.base,
            pending=list(self.pending),
            aborted=list(self.aborted),
        )


@dataclass
class Planned:
    """A plan that somebody has made and carries out; nobody knows how late."""

    by: int
    asked: AskedChange | None
    steps: list[RoleStep]


class TwoEnds(RuleBasedStateMachine):
    """Any number of plans at once, made at either end with what it knew then, and each cut anywhere for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = (Model("primary"), Model("secondary"))
        self.contents: dict[str, frozenset[int]] = {}
        self.plans: list[Planned] = []
        self.writes = 0

    # -- what hosts, users and crashes do

    @rule(at=st.integers(0, 1))
    def write(self, at: int) -> None:
        if self.ends[at].role == "primary" and not self.ends[at].are_writes_stopped:
            self.writes += 1
            self.ends[at].volume |= {self.writes}

    @rule(at=st.integers(0, 1), parts=st.integers(1, 3))
    def run(self, at: int, parts: int) -> None:
        self._run(at, parts)

    def _run(self, at: int, parts: int) -> bool:
        """A run, or its beginning: the point is taken; committed on the secondary; adopted on the primary."""
        primary, secondary = self.ends[at], self.ends[1 - at]
        counterparts = judge(standing(primary), standing(secondary)) is Verdict.COUNTERPARTS
        if not counterparts or primary.role != "primary":
            return False
        if secondary.base is not None and secondary.base in (*primary.pending, *primary.aborted):
            primary.base, primary.pending, primary.aborted = secondary.base, (), ()
        point = str(len(self.contents)).rjust(36, "0")
        self.contents[point] = primary.volume
        primary.pending = (*primary.pending, point)
        if parts >= 2:
            secondary.base, secondary.volume = point, primary.volume
        if parts >= 3:
            primary.base, primary.pending = point, ()
        return parts == 3

    @rule(by=st.integers(0, 1), answers=st.booleans(), change=st.sampled_from([FAILOVER, REVERSE, None]))
    def ask(self, by: int, answers: bool, change: Change | None) -> None:
        asked = change and AskedChange(change, self.ends[by].generation)
        self._plan(by, answers=answers, asked=asked)

    def _plan(self, by: int, *, answers: bool, asked: AskedChange | None) -> None:
        ours, theirs = self.ends[by].holds(), self.ends[1 - by].holds()
        try:
            self.plans.append(Planned(by, asked, plan("S", ours, theirs if answers else None, asked)))
        except NotAllowed as refusal:
            assert asked is not None, f"without being asked for anything there is always a way on: {refusal}"

    @precondition(lambda self: self.plans)
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """The next one of any plan, however old; or that plan is never gone on with; or it is made again."""
        planned = data.draw(st.sampled_from(self.plans))
        what = data.draw(st.sampled_from(["do", "do", "do", "cut", "plan again"]))
        if what != "do" or not planned.steps:
            self.plans.remove(planned)
            if what == "plan again":
                self._plan(planned.by, answers=data.draw(st.booleans()), asked=planned.asked)
            return
        step = planned.steps.pop(0)
        if not self._do(planned.by, step):
            self.plans.remove(planned)
        if data.draw(st.booleans()):
            self._do(planned.by, step)  # it came twice

    @rule(at=st.integers(0, 1))
    def crash(self, at: int) -> None:
        self.ends[at].are_writes_stopped = False

    def _do(self, by: int, step: RoleStep) -> bool:
        """As the product is to do it: what is checked within the transaction is the own record."""
        at = by if step.at is HERE else 1 - by
        model = self.ends[at]
        match step:
            case StopWrites():
                model.are_writes_stopped = model.role == "primary"
            case Replicate():
                return self._run(at, 3)
            case BecomePrimary() if model.generation < step.generation:
                model.role, model.generation, model.are_writes_stopped = "primary", step.generation, False
            case BecomeSecondary() if model.generation < step.generation:
                if step.keep:
                    model.kept.append(model.volume)
                model.role, model.generation, model.are_writes_stopped = "secondary", step.generation, False
                model.aborted += tuple(point for point in model.pending if point != step.adopt)
                model.pending = ()
                model.base = step.adopt or model.base
        return True

    # -- what must always hold

    @invariant()
    def one_primary_of_a_generation(self) -> None:
        assert judge(*map(standing, self.ends)) is not Verdict.CONTRADICTION

    @invariant()
    def nothing_that_was_written_is_lost(self) -> None:
        there: set[int] = set()
        for model in self.ends:
            there |= model.volume.union(*model.kept)
        assert there == set(range(1, self.writes + 1))

    @invariant()
    def both_ends_see_the_same_way_on(self) -> None:
        here, there = (model.holds() for model in self.ends)
        turned = [(step.at is HERE, step) for step in plan("S", there, here)]
        assert [(step.at is THERE, type(step)) for step in plan("S", here, there)] == [
            (at, type(step)) for at, step in turned
        ]

    def teardown(self) -> None:
        """They meet: whoever plans, both agree, and a run makes them equal."""
        for _ in range(2):
            for step in plan("S", self.ends[0].holds(), self.ends[1].holds()):
                self._do(0, step)
        assert plan("S", self.ends[0].holds(), self.ends[1].holds()) == []
        at = 0 if self.ends[0].role == "primary" else 1
        assert self._run(at, 3)
        assert self.ends[0].volume == self.ends[1].volume
        self.nothing_that_was_written_is_lost()


def standing(model: Model) -> Standing:
    return Standing(model.role, model.generation)


TwoEnds.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestTwoEnds = TwoEnds.TestCase
