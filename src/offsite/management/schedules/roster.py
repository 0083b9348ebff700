"""Tells that a task or schedule is gone, whoever deleted it.

A task goes with its set, volume or snapshot, and a schedule with its task, in the same transaction: also when the
other system deletes the set, or a snapshot is rotated away. So that nobody stops replicating without a word, what is
there is compared with what was there.
"""

from __future__ import annotations

import threading

from sqlalchemy import select

from offsite.events import SCHEDULE_DELETED, TASK_DELETED, Report
from offsite.management.schedules.tables import schedules, tasks
from offsite.store.database import Database


class Roster:
    """Safe to use from any thread."""

    def __init__(self, database: Database, report: Report) -> None:
        self._database = database
        self._report = report
        self._lock = threading.Lock()
        self._tasks, self._schedules = self._present()

    def look(self) -> str:
        """Tells an event of each that is gone since the last look; returns the same as sentences."""
        with self._lock:
            before = self._tasks, self._schedules
            self._tasks, self._schedules = self._present()
            gone_tasks = sorted(before[0] - self._tasks)
            gone_schedules = sorted(before[1].keys() - self._schedules.keys())
        told = [(TASK_DELETED, f"Task {name} was deleted.") for name in gone_tasks]
        for name in gone_schedules:
            told.append((SCHEDULE_DELETED, f"Schedule {name} of task {before[1][name]} was deleted."))
        for kind, message in told:
            self._report(kind, message)
        return " ".join(message for _, message in told)

    def _present(self) -> tuple[set[str], dict[str, str]]:
        with self._database.read() as connection:
            names = set(connection.execute(select(tasks.c.name)).scalars())
            pairs = connection.execute(select(schedules.c.name, schedules.c.task_name))
            return names, {row.name: row.task_name for row in pairs}
