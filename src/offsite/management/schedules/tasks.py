"""The tasks of a system: made, changed, deleted, found. What a task does is in task_work.py."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection

from offsite.errors import BadParameter, LimitReached, NameInUse, ObjectNotFound
from offsite.escaping import shown
from offsite.events import TASK_CHANGED, TASK_CREATED, Report
from offsite.management.schedules import records
from offsite.management.schedules.records import TaskRecord
from offsite.management.schedules.roster import Roster
from offsite.names import FORBIDDEN, check_name
from offsite.pools.catalog import has_image
from offsite.replication.records.set_records import set_name
from offsite.store.database import Database

TASKS_MAX = 1024
PREFIX_BYTES_MAX = 26  # as on ME4; `_S` and four digits make 32
RETENTION_COUNT_MAX = 1024
NO_PREFIX = FORBIDDEN + "."  # characters that none has


class Tasks:
    """Safe to use from any thread."""

    def __init__(self, database: Database, roster: Roster, report: Report) -> None:
        self._database = database
        self._roster = roster
        self._report = report

    def create(self, record: TaskRecord) -> TaskRecord:
        """Raises BadParameter, NameInUse, LimitReached for one too many, ObjectNotFound when what it is of is gone."""
        check_name(record.name, "task name")
        _check_prefix(record.snapshot_prefix)
        with self._database.transaction() as connection:
            if records.find_task(connection, record.name) is not None:
                raise NameInUse(f"task {shown(record.name)} already exists; choose another name")
            if records.count_tasks(connection) >= TASKS_MAX:
                raise LimitReached(f"there are {TASKS_MAX} tasks, which is the maximum; delete one first")
            _check_object(connection, record)
            records.insert_task(connection, record)
        self._roster.look()
        self._report(TASK_CREATED, f"Task {record.name} of type {record.type} was created.")
        return record

    def change(self, name: str, **values: Any) -> TaskRecord:
        """What is changed counts from the next start on. Raises BadParameter, ObjectNotFound."""
        _check_prefix(values.get("snapshot_prefix"))
        with self._database.transaction() as connection:
            _find(connection, name)
            records.update_task(connection, name, **values)
        self._report(TASK_CHANGED, f"Task {name} was changed.")
        return self.get(name)

    def delete(self, names: Sequence[str]) -> str:
        """With their schedules, all or none. Returns the sentences that tell it. Raises ObjectNotFound."""
        with self._database.transaction() as connection:
            for name in names:
                _find(connection, name)
                records.delete_task(connection, name)
        return self._roster.look()

    def of(self, image_ids: Collection[int] = (), set_id: int | None = None) -> list[str]:
        """Names of the tasks of any of these images, or of this set: they go with it."""
        return [
            each.name
            for each in self.all()
            if each.image_id in image_ids or (set_id is not None and each.set_id == set_id)
        ]

    def all(self) -> list[TaskRecord]:
        """By name."""
        with self._database.read() as connection:
            return records.all_tasks(connection)

    def find(self, name: str) -> TaskRecord | None:
        with self._database.read() as connection:
            return records.find_task(connection, name)

    def get(self, name: str) -> TaskRecord:
        """Raises ObjectNotFound."""
        with self._database.read() as connection:
            return _find(connection, name)


def _find(connection: Connection, name: str) -> TaskRecord:
    found = records.find_task(connection, name)
    if found is None:
        raise ObjectNotFound(f"task {shown(name)} does not exist; `show tasks` lists all tasks")
    return found


def _check_object(connection: Connection, record: TaskRecord) -> None:
    """It may have been deleted while the command was being read."""
    if record.set_id is not None:
        there = set_name(connection, record.set_id) is not None
    else:
        there = record.image_id is not None and has_image(connection, record.image_id)
    if not there:
        raise ObjectNotFound(f"the volume, snapshot or replication set of task {record.name} was just deleted")


def _check_prefix(prefix: str | None) -> None:
    if prefix is None:
        return
    size = len(prefix.encode())
    if not 1 <= size <= PREFIX_BYTES_MAX:
        raise BadParameter(f"snapshot prefix {shown(prefix)} has {size} bytes; 1 to {PREFIX_BYTES_MAX} are allowed")
    bad = sorted({each for each in prefix if each in NO_PREFIX or not each.isprintable()})
    if bad:
        raise BadParameter(
            f'snapshot prefix {shown(prefix)} contains {" ".join(map(repr, bad))}; " , . < \\ and unprintable '
            "characters are not allowed"
        )
    if prefix != prefix.lstrip():
        raise BadParameter(
            f"snapshot prefix {shown(prefix)} begins with a space, which is not allowed in a snapshot's name"
        )
