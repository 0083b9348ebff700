"""Hundreds of lives of two systems, and whether the simulator would see it if something were wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.__main__ import outcomes
from tests.simulation.mutants import MUTANTS

SEEDS = 250  # a thousand and more: `python -m tests.simulation`, `make soak`
HAPPENED_MIN = SEEDS // 100
ROOT = Path(__file__).parents[2]
HAPPENED = (
    "connections that broke",
    "messages that took long",
    "dials that got nowhere",
    "times that the systems were parted",
    "steps of a clock",
    "reads that failed",
    "writes that failed",
    "syncs that failed",
    "blocks stored otherwise than written",
    "power lost at any time",
    "power lost before a commit",
    "power lost after a commit",
    "writes to a full pool",
    "sets for which there was no room",
    "abort replication: done",
    "suspend replication-set: done",
    "resume replication-set: done",
    "clear replication-queue: done",
    "set replication-set: done",
    "delete replication-set: done",
    "delete replication-set: refused",
    "rollback volume: done",
    "reset snapshot: done",
    "delete snapshot: done",
    "replicate snapshot: done",
    "create schedule: done",
    "state directories put back",
    "resolve replication-set: done",
    "copies that were kept before they were replaced",
    "systems that were started twice",
    "twins of which a peer took one",
    "twins that an operator decided about",
    "twins of which one was stopped",
    "disks that were full for a while",
    "commits whose acknowledgement was lost",
    "writes that a full disk refused",
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hundreds_of_seeds_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """P1 to P7 and R1 to R8, in every one of them; and none of it for want of anything having happened."""
    begun, seeds, steps = time.monotonic(), 0, 0
    counts: Counter[str] = Counter()
    for outcome in outcomes(1, SEEDS):
        assert "failed" not in outcome, outcome["failed"]
        seeds, steps = seeds + 1, steps + outcome["steps"]
        counts.update(outcome["counts"])
    with capsys.disabled():
        print(f"\n{seeds} seeds in {time.monotonic() - begun:.0f} s, {steps} steps: {json.dumps(counts)}")
    assert seeds == SEEDS
    assert {what: counts[what] for what in HAPPENED if counts[what] < HAPPENED_MIN} == {}, "hardly ever happened"
    assert counts["sets brought up to date"] > SEEDS
    assert counts["starts after a loss of power"] > SEEDS
    assert counts["what hosts did"] > 50 * SEEDS


@pytest.mark.slow
def test_a_seed_replays_exactly() -> None:
    """Or nobody could look into one that failed: the same events at the same virtual times, in another process with
    other hashes."""
    told = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "7"],
            cwd=ROOT,
            env={"PATH": "", "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert "Seed 7: all held" in told[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_product_that_is_broken_is_caught(name: str) -> None:
    """Each invariant is broken once; see docs/decisions/0014-simulator.md."""
    mutant = MUTANTS[name]
    for outcome in outcomes(mutant.first, mutant.seeds, name, lies=mutant.lies):
        if "failed" in outcome:
            assert "Violation" in outcome["failed"].splitlines()[0], outcome["failed"]
            return
    pytest.fail(f"{mutant.seeds} seeds from {mutant.first} on have not seen that {mutant.what}")
