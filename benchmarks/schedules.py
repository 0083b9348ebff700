"""What a thousand schedules cost: the CPU time of a scheduler on a virtual clock, with a real database.

Their task does nothing, so that what is measured is the schedules': waiting, finding what is due, the next start
through daylight saving, and the records of each start, synced to disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection

from offsite.events import ignore
from offsite.management.schedules import records
from offsite.management.schedules.records import TaskRecord
from offsite.management.schedules.roster import Roster
from offsite.management.schedules.scheduler import Scheduler
from offsite.management.schedules.schedules import Schedules
from offsite.store.database import Database
from offsite.store.settings import TIME_ZONE, Settings

BEGIN = datetime(2027, 1, 4, 10, tzinfo=UTC)


@dataclass
class _Clock:
    at: float

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@dataclass
class _NoWork:
    database: Database
    starts: int = 0

    def do(self, task: TaskRecord, done: Callable[[Connection], None]) -> str:
        del task
        self.starts += 1
        with self.database.transaction() as connection:
            done(connection)
        return "nothing was done"

    def was_done(self, task: TaskRecord, since: float) -> bool:
        del task, since
        return True


@dataclass(frozen=True)
class Cost:
    """`cpu_share` is that of one core: CPU seconds of this process for each second of the virtual clock."""

    schedules: int
    starts: int
    virtual_seconds: float
    cpu_seconds: float

    @property
    def cpu_share(self) -> float:
        return self.cpu_seconds / self.virtual_seconds


def cost_of_schedules(directory: Path, count: int = 1000, every: str = "1 hours", hours: float = 1.0) -> Cost:
    """Of `count` schedules whose first starts are spread over the hour that is measured first."""
    clock = _Clock(BEGIN.timestamp() - 3600)
    database = Database(directory / "state.db")
    settings, roster = Settings(database), Roster(database, ignore)
    settings.set(TIME_ZONE, "UTC")
    schedules = Schedules(database, settings, roster, ignore, clock)
    with database.transaction() as connection:
        records.insert_task(connection, TaskRecord("task", "Replicate", clock.now()))
        for number in range(count):
            start = BEGIN + timedelta(minutes=number * 60 // count)
            schedules.create(f"schedule-{number}", f"start {start:%Y-%m-%d %H:%M} every {every}", "task")
    work = _NoWork(database)
    scheduler = Scheduler(database, schedules, roster, work, ignore, clock)
    clock.at = BEGIN.timestamp() - 1
    scheduler.step()
    begun, end = time.process_time(), clock.at + hours * 3600
    while (due := scheduler.step()) < end:
        clock.at = max(clock.at, due)
    cost = Cost(count, work.starts, hours * 3600, time.process_time() - begun)
    database.close()
    return cost
