"""Which start of a system is taken for it: trees of starts as copies of directories make them, met in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsite.replication.peers.incarnation import (
    NOBODY,
    Acquaintance,
    Lineage,
    Start,
    Verdict,
    choose,
    judge,
    told_lineage,
)
from offsite.replication.wire.messages import DENIED_MAX, EARLIER_MAX


@dataclass
class Directory:
    """A state directory of the system: its starts, and what the peer has confirmed."""

    starts: list[Start] = field(default_factory=list)
    confirmed: Start | None = None

    def start(self, ids: list[int]) -> None:
        ids[0] += 1
        self.starts.append(Start(len(self.starts) + 1, f"{ids[0]:016x}"))

    def copy(self) -> Directory:
        return Directory(list(self.starts), self.confirmed)

    @property
    def lineage(self) -> Lineage:
        return told_lineage(self.starts[-EARLIER_MAX - 1 :], self.confirmed)


@dataclass
class Peer:
    known: Acquaintance = NOBODY

    def meets(self, directory: Directory, *, answers: bool = True) -> Verdict:
        verdict = judge(self.known, directory.lineage)
        if verdict.is_taken:
            self.known = Acquaintance(directory.starts[-1], self.known.denied)
            if answers:
                directory.confirmed = directory.starts[-1]
        return verdict

    def chooses(self, directory: Directory) -> None:
        self.known = choose(self.known, directory.starts[-1])


def a(number: int, id: str = "a") -> Start:
    return Start(number, id)


def test_the_first_that_is_met_is_remembered_and_its_next_starts_follow() -> None:
    assert judge(Acquaintance(), Lineage(a(7))) is Verdict.NEWER
    known = Acquaintance(a(7))
    assert judge(known, Lineage(a(7))) is Verdict.SAME
    assert judge(known, Lineage(a(9), (a(7), a(8)))) is Verdict.NEWER


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        (Lineage(a(6), (a(5),)), Verdict.OLDER),
        (Lineage(a(6, "x"), (a(5),)), Verdict.OLDER),  # an older copy that was started
        (Lineage(a(7, "x"), (a(6),)), Verdict.TWIN),
        (Lineage(a(9, "x"), (a(6), a(7, "x"), a(8, "x"))), Verdict.TWIN),  # one that was started more often
        (Lineage(a(9)), Verdict.TWIN),  # its past is not known
    ],
)
def test_what_does_not_descend_from_the_newest_is_refused(told: Lineage, verdict: Verdict) -> None:
    assert judge(Acquaintance(a(7)), told) is verdict
    assert not verdict.is_taken


def test_however_often_it_is_started_while_the_peer_is_away() -> None:
    peer, system, ids = Peer(), Directory(), [0]
    system.start(ids)
    peer.meets(system)
    for _ in range(10 * EARLIER_MAX):
        system.start(ids)
    assert peer.meets(system) is Verdict.NEWER
    assert len(system.lineage.earlier) <= EARLIER_MAX + 1


def test_the_answer_may_be_lost_now_and_then() -> None:
    """The peer remembers a start of which the system does not know that it does."""
    peer, system, ids = Peer(), Directory(), [0]
    for _ in range(EARLIER_MAX):
        system.start(ids)
        assert peer.meets(system, answers=False) is Verdict.NEWER


def test_the_one_that_was_given_up_for_its_own_ancestor_is_refused_and_the_chosen_ones_next_starts_are_not() -> None:
    peer, system, ids = Peer(), Directory(), [0]
    system.start(ids)
    peer.meets(system)
    copy = system.copy()
    copy.start(ids)
    assert peer.meets(copy) is Verdict.NEWER  # as if the directory had been moved: nobody can tell
    assert peer.meets(system) is Verdict.OLDER
    peer.chooses(system)
    assert peer.meets(copy) is Verdict.DENIED
    for _ in range(2 * EARLIER_MAX):
        copy.start(ids)
    assert not peer.meets(copy).is_taken
    for _ in range(3):
        assert peer.meets(system).is_taken
        system.start(ids)
    assert not peer.meets(copy).is_taken


def test_a_choice_can_be_taken_back() -> None:
    peer, system, ids = Peer(), Directory(), [0]
    system.start(ids)
    copy = system.copy()
    copy.start(ids)
    peer.meets(system)
    peer.meets(copy)
    for _ in range(3):
        for chosen, other in ((system, copy), (copy, system)):
            peer.chooses(chosen)
            assert peer.meets(chosen).is_taken
            assert not peer.meets(other).is_taken


def test_of_those_that_were_given_up_the_newest_are_kept() -> None:
    known = Acquaintance(a(1))
    for number in range(2, 3 * DENIED_MAX):
        known = choose(Acquaintance(a(number, "x"), known.denied), a(1))
    assert len(known.denied) == DENIED_MAX
    assert judge(known, Lineage(a(number, "x"), (a(1),))) is Verdict.DENIED


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "meet", "meet", "meet, and the answer is lost", "copy", "choose"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(_STEPS)
def test_from_one_choice_to_the_next_only_one_branch_is_taken(steps: list[tuple[str, int]]) -> None:
    """And the newest start of the branch that was taken last always is."""
    ids = [0]
    directories, peer = [Directory()], Peer()
    directories[0].start(ids)
    taken: list[Start] = []  # since the last choice
    for what, which in steps:
        directory = directories[which % len(directories)]
        if what == "start":
            directory.start(ids)
        elif what == "copy":
            directories.append(directory.copy())
        elif what == "choose":
            before = peer.known.newest
            peer.chooses(directory)
            taken = [directory.starts[-1]]
            for other in directories:
                if before in other.starts and before not in directory.starts:
                    assert not judge(peer.known, other.lineage).is_taken, "the one that was given up is taken"
        else:
            verdict = peer.meets(directory, answers=what == "meet")
            descends = all(start in directory.starts for start in taken)
            if verdict.is_taken:
                assert descends, f"{directory.starts} is taken after {taken}"
                taken.append(directory.starts[-1])
            else:
                assert not descends or any(start in directory.starts for start in peer.known.denied)
