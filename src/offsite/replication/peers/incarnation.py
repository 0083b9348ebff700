"""Which start of a system is which, so that an older or a second copy of a system is not taken for it. No I/O here.

Each start has an incarnation: a number, one more than that of the start before, and an id made by chance. A start
descends from every start before it in the same state directory. Copied, a directory's next starts share the starts
up to the copy, and none after it:

    1a ── 2b ── 3c ──── 4d ── 5e          the system
                  └──── 4x ── 5y ── 6z    a copy of its directory, started beside it

A peer remembers the newest start that it has met. From then on it takes that one and its descendants, and nothing else:
whoever has met 4d first refuses 4x, 5y and 6z. An operator may choose another branch. The branch that is given up for
one of its own ancestors would look like a descendant of that: so its start is remembered as denied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from offsite.replication.wire.messages import DENIED_MAX, EARLIER_MAX


@dataclass(frozen=True, slots=True, order=True)
class Start:
    number: int
    id: str

    def __str__(self) -> str:
        return f"{self.number}-{self.id[:8]}"


@dataclass(frozen=True, slots=True)
class Lineage:
    """A start of a system, and starts that it descends from: the newest ones, in any order."""

    current: Start
    earlier: tuple[Start, ...] = ()

    def holds(self, start: Start) -> bool:
        return start == self.current or start in self.earlier


@dataclass(frozen=True, slots=True)
class Acquaintance:
    """What one system remembers of another one's starts."""

    newest: Start | None = None
    denied: tuple[Start, ...] = ()  # none of them, nor what descends from them, once the newest is an ancestor


NOBODY = Acquaintance()


class Verdict(Enum):
    SAME = "same"
    NEWER = "newer"  # a descendant of the newest that was met, or the first one that is met
    OLDER = "older"  # a start from before: an older copy of the system
    TWIN = "twin"  # of another branch: a copy that is started beside the one that was met
    DENIED = "denied"  # of a branch that an operator has given up

    @property
    def is_taken(self) -> bool:
        return self in (Verdict.SAME, Verdict.NEWER)


def judge(known: Acquaintance, told: Lineage) -> Verdict:
    """Whether the system that tells this lineage is the one that is known. Both ends judge the same way: the one about
    the other, and the other about itself."""
    newest, current = known.newest, told.current
    if newest is None:
        return Verdict.NEWER
    if current == newest:
        return Verdict.SAME
    if current.number < newest.number:
        return Verdict.OLDER
    if not told.holds(newest):
        return Verdict.TWIN
    # Up to the newest that was met, its descendants have one past: only later starts can be of another branch.
    if any(told.holds(start) for start in known.denied if start.number > newest.number):
        return Verdict.DENIED
    return Verdict.NEWER


def choose(known: Acquaintance, chosen: Start) -> Acquaintance:
    """An operator says which one is to live: from now on it, and what descends from it."""
    if known.newest is None or known.newest == chosen:
        return Acquaintance(chosen, known.denied)
    denied = (*(start for start in known.denied if start not in (known.newest, chosen)), known.newest)
    return Acquaintance(chosen, denied[-DENIED_MAX:])


def told_lineage(starts: Sequence[Start], confirmed: Start | None) -> Lineage:
    """What a system tells a peer, of its own starts (oldest first) and the one that this peer is known to remember:
    however often it was started while the peer was away, that one is among them."""
    current, earlier = starts[-1], starts[:-1][-EARLIER_MAX:]
    extra = (confirmed,) if confirmed is not None and confirmed not in (current, *earlier) else ()
    return Lineage(current, (*extra, *earlier))
