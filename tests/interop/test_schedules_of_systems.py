"""A schedule between two real systems that were stopped over its start: the run is made up for once, and told."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from offsite.demo.disk import Disk
from tests.systems import System, two_systems, wait_until

MISSED, STARTED = 639, 637
HOUR = 3600.0


def runs(system: System) -> list[dict[str, Any]]:
    return list(system.ask("show", "replication-runs", "SalesDR").get("replication-runs", []))


def told(system: System, code: int) -> list[str]:
    events = system.ask("show", "events")["events"]
    return [each["message"] for each in events if str(each["event-code"]) == str(code)]


def next_start(system: System) -> int:
    return int(system.ask("show", "schedules", "Hourly")["schedules"][0]["next-time-numeric"])


def specification(seconds: float) -> str:
    return f"start {time.strftime('%Y-%m-%d %H:%M', time.localtime(seconds))} every 1 hours"


def set_next_start(system: System, start: float, seconds: float) -> None:
    """In the database of a system that does not run: as if it had been stopped since before then."""
    with sqlite3.connect(system.directory / "state.db") as database:
        values = (specification(start), seconds)
        assert database.execute("UPDATE schedules SET specification = ?, next_at = ?", values).rowcount == 1
    database.close()


@pytest.mark.slow
def test_a_run_that_was_missed_while_the_system_was_down_is_made_up_for_once(short_directory: Path) -> None:
    with two_systems(short_directory) as (london, newark):
        london.ask("create", "volume", "pool", "A", "size", "4MiB", "Sales")
        london.ask("create", "replication-set", "peer-connection", "Newark", "primary-volume", "Sales", "SalesDR")
        london.map("Sales")
        with Disk(london.nbd_socket, "Sales") as disk:
            disk.write(0, os.urandom(1 << 20))
            disk.flush()
        london.ask("create", "task", "type", "Replicate", "replication-set", "SalesDR", "Nightly")
        ahead = specification(time.time() + 2 * HOUR)
        london.ask("create", "schedule", "schedule-specification", ahead, "task-name", "Nightly", "Hourly")
        first = next_start(london)
        assert 1.9 * HOUR < first - time.time() < 2.1 * HOUR

        london.kill()
        set_next_start(london, first - 5 * HOUR, first - 5 * HOUR)
        london.start()
        wait_until("the missed run is made up for", lambda: [each["state"] for each in runs(london)] == ["success"])
        assert newark.digest("Sales") == london.digest("Sales")
        wait_until("it is told", lambda: len(told(london, STARTED)) == 1)
        (missed,) = told(london, MISSED)
        assert re.match("[34] starts of schedule Hourly were missed, the first at ", missed)
        assert "Task Nightly is now started once." in missed
        assert next_start(london) > time.time()

        london.kill()
        london.start()
        assert next_start(london) > time.time()
        assert len(runs(london)) == 1, "a start that was made is not made again"

        london.stop()
        set_next_start(london, first - 5 * HOUR, time.time() + 3)  # one that comes while the system runs
        london.start()
        wait_until("the next start is made", lambda: len(runs(london)) == 2)
        assert len(told(london, MISSED)) == 1
        assert len(told(london, STARTED)) == 2
