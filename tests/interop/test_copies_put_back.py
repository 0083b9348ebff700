"""Two real processes, of which one is put back to an earlier copy of its state directory: neither by request nor by
schedule is the newer copy on the other touched; what an operator sees and does; and the way out."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.interop.replication import SECONDS, Replicated, events, snapshots
from tests.systems import System, two_systems, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

VISIT_SECONDS = 100.0  # a peer is visited once a minute

DIVERGED, OLDER, KEPT, TASK_FAILED, RUN_STARTED = 592, 594, 596, 638, 580


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Replicated]:
    with two_systems(tmp_path) as systems:
        made = Replicated(*systems)
        made.make_volume("Sales")
        made.make_set("SalesDR", "Sales")
        yield made


def copy_of(system: System) -> Path:
    """Of a system that is stopped meanwhile, as somebody takes one who wants to be able to go back."""
    copy = system.directory.with_name(f"{system.directory.name}-copy")
    system.stop()
    shutil.copytree(system.directory, copy, ignore=shutil.ignore_patterns("*.sock"))
    system.start()
    return copy


def put_back(pair: Replicated, system: System, copy: Path) -> None:
    """And started; the other one refuses it at first, until an operator there has chosen it."""
    system.stop()
    shutil.rmtree(system.directory)
    shutil.copytree(copy, system.directory)
    system.start()
    other = pair.newark if system is pair.london else pair.london

    def refused() -> str:
        other.ask("show", "peer-connections")  # which looks whether the peer answers
        return str(other.ask("show", "peer-connections", system.name)["peer-connections"][0]["refused-start"])

    wait_until("it is refused", lambda: refused() != "", VISIT_SECONDS)
    other.ask("set", "peer-connection", "accept-incarnation", refused(), system.name)


def test_a_primary_put_back_never_overwrites_the_newer_copy_and_the_way_out_keeps_it(pair: Replicated) -> None:
    london, newark = pair.london, pair.newark
    pair.replicate("SalesDR")
    copy = copy_of(london)
    pair.write("Sales", 1)
    pair.replicate("SalesDR")
    newer = newark.digest("Sales")
    put_back(pair, london, copy)
    assert newark.digest("Sales") == newer

    # By itself, before anyone asks for a run.
    for system in (london, newark):
        pair.await_status("SalesDR", "Diverged", system, VISIT_SECONDS)
        wait_until(f"{system.name} tells", lambda system=system: events(system, DIVERGED, "SalesDR") != [], SECONDS)  # type: ignore[misc]
    (told,) = events(london, DIVERGED, "SalesDR")
    assert told["severity"] == "ERROR" and told["message"].count("UTC") == 4, "both instants, and since when"
    shown = pair.show("SalesDR")
    assert shown["lag"] in ("", None) and shown["recovery-point-time"] in ("", None)
    assert "resolve replication-set use primary SalesDR" in shown["error"]

    # By request, with and without --wait.
    pair.write("Sales", 2)
    for more in ((), ("--wait",)):
        refused = london.refused("replicate", *more, "SalesDR")
        assert "which this system never had" in refused and "resolve replication-set use primary SalesDR" in refused
    assert newark.digest("Sales") == newer, "the newest copy is untouched"

    # What the operator of Newark sees, and is refused.
    assert "is diverged" in pair.show("SalesDR", newark)["error"]
    resolve = ("resolve", "replication-set", "--yes", "use", "primary", "SalesDR")
    assert "cannot be resolved; do it on system London" in newark.refused(*resolve)

    london.ask("resolve", "replication-set", "use", "primary", "SalesDR")
    (kept,) = [name for name in snapshots(newark) if name.startswith("Sales-kept-")]
    pair.await_success("SalesDR")
    assert pair.same("Sales")
    assert newark.digest(kept) == newer
    assert events(newark, KEPT, kept) != []
    for system in (london, newark):
        pair.await_status("SalesDR", "Ready", system, VISIT_SECONDS)
    pair.write("Sales", 3)
    pair.replicate("SalesDR")
    assert newark.digest(kept) == newer and pair.same("Sales")
    assert "not diverged" in london.refused(*resolve)


def test_a_secondary_put_back_is_shown_as_old_as_it_is_and_filled_anew(pair: Replicated) -> None:
    london, newark = pair.london, pair.newark
    pair.replicate("SalesDR")
    older = pair.show("SalesDR")["recovery-point-time-numeric"]
    copy = copy_of(newark)
    pair.write("Sales", 1)
    pair.replicate("SalesDR")
    assert pair.show("SalesDR")["recovery-point-time-numeric"] > older
    put_back(pair, newark, copy)
    wait_until("it is seen", lambda: pair.show("SalesDR")["recovery-point-time-numeric"] == older, VISIT_SECONDS)
    (told,) = events(london, OLDER, "SalesDR")
    assert told["severity"] == "WARNING"
    pair.replicate("SalesDR")
    assert pair.same("Sales") and pair.show("SalesDR")["error"] == ""
    assert snapshots(newark) == []


def test_a_schedule_that_is_due_after_the_start_does_not_overwrite_it_either(pair: Replicated) -> None:
    """It was copied while a start was still to come; when it is put back, that start was missed, and is made up for."""
    london, newark = pair.london, pair.newark
    london.ask("create", "task", "type", "Replicate", "replication-set", "SalesDR", "Nightly")
    start = f"start {time.strftime('%Y-%m-%d %H:%M', time.localtime(time.time() + 7200))} every 1 hours"
    london.ask("create", "schedule", "schedule-specification", start, "task-name", "Nightly", "Hourly")
    pair.replicate("SalesDR")
    copy = copy_of(london)
    pair.write("Sales", 1)
    pair.replicate("SalesDR")
    newer = newark.digest("Sales")
    with closing(sqlite3.connect(copy / "state.db")) as database, database:
        database.execute("UPDATE schedules SET next_at = ?", (time.time() - 60,))
    put_back(pair, london, copy)
    pair.await_status("SalesDR", "Diverged", seconds=VISIT_SECONDS)
    wait_until("the schedule has tried", lambda: started(london), SECONDS)
    assert newark.digest("Sales") == newer
    assert all(run["state"] in ("running", "success") for run in pair.runs("SalesDR"))

    london.ask("resolve", "replication-set", "use", "primary", "SalesDR")
    pair.await_success("SalesDR")
    (kept,) = [name for name in snapshots(newark) if name.startswith("Sales-kept-")]
    assert pair.same("Sales") and newark.digest(kept) == newer


def started(london: System) -> bool:
    """Whether the run stands still, or the task was refused one: by who was first to find it, the run or a visit."""
    return events(london, TASK_FAILED, "Nightly") != [] or events(london, RUN_STARTED, "SalesDR") != []
