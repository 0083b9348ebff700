"""Lives in which one of the two systems lies: seeds of their own. What must hold of the other one: see liar.py."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.__main__ import outcomes

SEEDS = 60
LIED_ABOUT = (
    "Holds",
    "Ready",
    "Ack",
    "Committed",
    "Done",
    "SetsHeld",
    "Failed",
    "Ask",
    "Look",
    "Begin",
    "Batch",
    "Commit",
    "ChangeSet",
    "ListSets",
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_honest_system_holds_while_the_other_one_lies_and_all_is_well_afterwards() -> None:
    counts: Counter[str] = Counter()
    for outcome in outcomes(1, SEEDS, lies=True):
        assert "failed" not in outcome, outcome["failed"]
        counts.update(outcome["counts"])
    assert [kind for kind in LIED_ABOUT if not counts[f"lies in place of {kind}"]] == [], "never happened"
    assert counts["sets brought up to date"] > SEEDS
