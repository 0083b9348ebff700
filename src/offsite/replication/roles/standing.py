"""What an end of a set is: its role, and the generation since which it has that role; and how two ends are judged.

    generation 1: London primary ──▶ 2: Newark primary ──▶ 3: London primary ──▶ …

A change of roles raises the generation by one and makes the secondary of before the primary. So it is settled for each
generation which end is its primary, whether both know of it yet or not, and two primaries of one generation cannot be.
Of two generations the newer one is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from offsite.replication.records.set_records import Role


@dataclass(frozen=True, slots=True)
class Standing:
    role: Role
    generation: int


class Verdict(Enum):
    COUNTERPARTS = "counterparts"  # one primary and one secondary, of one generation
    OURS_IS_OLDER = "ours is older"
    THEIRS_IS_OLDER = "theirs is older"
    CONTRADICTION = "contradiction"  # one role at both ends, of one generation: one of them does not say what is so


def judge(ours: Standing, theirs: Standing) -> Verdict:
    if ours.generation != theirs.generation:
        return Verdict.OURS_IS_OLDER if ours.generation < theirs.generation else Verdict.THEIRS_IS_OLDER
    return Verdict.COUNTERPARTS if ours.role != theirs.role else Verdict.CONTRADICTION
