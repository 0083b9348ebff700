"""What can happen to a run in which state, and that nothing else goes on record."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from offsite.replication.records import run_writer
from offsite.replication.records.run_states import RunEvent, RunState, WrongRunState, next_state
from offsite.replication.records.run_writer import change_run, drop_unfinished, fail_others, note_run
from tests.replication.runs.test_dispatcher import Quiet

STATES: tuple[RunState | None, ...] = (None, *get_args(RunState))


@pytest.mark.parametrize("event", RunEvent)
def test_each_event_may_come_twice(event: RunEvent) -> None:
    """A step that is done again after a crash or a lost answer is harmless."""
    for state in STATES:
        try:
            after = next_state(state, event)
        except WrongRunState:
            continue
        assert next_state(after, event) == after


@pytest.mark.parametrize(
    ("state", "event"),
    [
        ("success", RunEvent.ABORT),
        ("success", RunEvent.FAIL),
        ("success", RunEvent.DROP),
        ("aborted", RunEvent.START),
        ("aborted", RunEvent.PROMOTE),
        ("failed", RunEvent.PROMOTE),
        ("dropped", RunEvent.START),
        ("dropped", RunEvent.COMPLETE),
        ("running", RunEvent.QUEUE),
        ("queued", RunEvent.ABORT),
        (None, RunEvent.COMPLETE),
        (None, RunEvent.PROMOTE),
    ],
)
def test_what_cannot_happen_to_a_run_is_a_fault(state: RunState | None, event: RunEvent) -> None:
    """What has ended on one way does not end on another one, and nothing that has ended is sent."""
    with pytest.raises(WrongRunState):
        next_state(state, event)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Quiet]:
    site = Quiet(tmp_path / "london", "London")
    site.add_peer()
    yield site
    site.database.close()


def test_a_fault_leaves_the_record_as_it_was(site: Quiet) -> None:
    """Also what else the transaction has written, and also when the run is one of another set."""
    one, other = site.add_set("One"), site.add_set("Other")
    with site.database.transaction() as connection:
        change_run(connection, one.id, "run", RunEvent.START, 1.0)
        change_run(connection, one.id, "run", RunEvent.COMPLETE, 2.0, digest="ab")
    before = site.runs("One")
    for set_id, event in ((one.id, RunEvent.FAIL), (other.id, RunEvent.COMPLETE)):
        with pytest.raises(WrongRunState), site.database.transaction() as connection:
            note_run(connection, "run", digest="cd")
            change_run(connection, set_id, "run", event, 3.0, error="no")
    assert site.runs("One") == before
    assert site.runs("Other") == []


def test_only_what_has_not_ended_is_dropped_or_fails_for_others(site: Quiet) -> None:
    one = site.add_set("One")
    with site.database.transaction() as connection:
        for run, event in (("old", RunEvent.START), ("now", RunEvent.START), ("next", RunEvent.QUEUE)):
            change_run(connection, one.id, run, event, 1.0)
        change_run(connection, one.id, "old", RunEvent.ABORT, 2.0)
        fail_others(connection, one.id, "other", 3.0, "given up")
        drop_unfinished(connection, one.id, ["old", "now", "next", "unknown"], 4.0, "overtaken")
    states = {run.uuid: (run.state, run.ended_at, run.error) for run in site.runs("One")}
    assert states == {
        "old": ("aborted", 2.0, None),
        "now": ("failed", 3.0, "given up"),
        "next": ("dropped", 4.0, "overtaken"),
    }


def test_a_run_that_the_primary_sends_again_has_not_ended(site: Quiet) -> None:
    """What it failed or was given up with is forgotten; when it began is not."""
    one = site.add_set("One")
    with site.database.transaction() as connection:
        change_run(connection, one.id, "run", RunEvent.BEGIN, 1.0)
        change_run(connection, one.id, "run", RunEvent.FAIL, 2.0, error="given up")
        change_run(connection, one.id, "run", RunEvent.BEGIN, 3.0, error=None)
    (run,) = site.runs("One")
    assert (run.state, run.started_at, run.ended_at, run.error) == ("running", 1.0, None, None)


def test_nobody_else_writes_runs() -> None:
    """Or a state could come from nowhere. (Migrations run before anyone reads.)"""
    writes = re.compile(r"\b(insert|update|delete)\(runs\b|\bUPDATE runs\b|\bINTO runs\b")
    source = Path(run_writer.__file__).parents[2]
    files = [each for each in source.rglob("*.py") if "migrations" not in each.parts]
    found = {each.name for each in files if writes.search(each.read_text())}
    assert found == {"run_writer.py"}
