"""The schedules of a system: made, changed, deleted, found. What starts their tasks is in scheduler.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import tzinfo
from typing import Any

from sqlalchemy import Connection

from offsite.clock import Clock
from offsite.errors import BadParameter, LimitReached, NameInUse, ObjectNotFound
from offsite.escaping import shown
from offsite.events import SCHEDULE_CHANGED, SCHEDULE_CREATED, Report
from offsite.management.schedules import records
from offsite.management.schedules.new_specification import check_new
from offsite.management.schedules.records import ScheduleRecord
from offsite.management.schedules.recurrence import next_start
from offsite.management.schedules.roster import Roster
from offsite.management.schedules.specification_parser import parse
from offsite.names import check_name
from offsite.store.database import Database
from offsite.store.settings import MINIMUM_SCHEDULE_INTERVAL, TIME_ZONE, Settings
from offsite.store.system_zone import zone_of

SCHEDULES_MAX = 1024


class Schedules:
    """Safe to use from any thread."""

    def __init__(self, database: Database, settings: Settings, roster: Roster, report: Report, clock: Clock) -> None:
        self._database = database
        self._settings = settings
        self._roster = roster
        self._report = report
        self._clock = clock
        self.wake: Callable[[], None] = lambda: None  # of who starts what is due

    def zone(self) -> tzinfo:
        return zone_of(self._settings.get(TIME_ZONE))

    def create(self, name: str, specification: str, task_name: str) -> ScheduleRecord:
        """Raises BadParameter, NameInUse, LimitReached for one too many, ObjectNotFound for the task."""
        check_name(name, "schedule name")
        now = self._clock.now()
        text, first = self._check(specification, now)
        record = ScheduleRecord(name, text, task_name, now, first)
        with self._database.transaction() as connection:
            if records.find_schedule(connection, name) is not None:
                raise NameInUse(f"schedule {shown(name)} already exists; choose another name")
            if records.count_schedules(connection) >= SCHEDULES_MAX:
                raise LimitReached(f"there are {SCHEDULES_MAX} schedules, which is the maximum; delete one first")
            _check_task(connection, task_name)
            records.insert_schedule(connection, record)
        self._roster.look()
        self.wake()
        self._report(SCHEDULE_CREATED, f"Schedule {name} of task {task_name} was created: {text}.")
        return record

    def change(self, name: str, specification: str | None = None, task_name: str | None = None) -> ScheduleRecord:
        """A new specification begins anew: its first start is ahead, and none is counted yet.

        Raises BadParameter, ObjectNotFound.
        """
        values: dict[str, Any] = {} if task_name is None else {"task_name": task_name}
        if specification is not None:
            text, first = self._check(specification, self._clock.now())
            values |= {"specification": text, "next_at": first, "starts": 0, "error": None}
        with self._database.transaction() as connection:
            _find(connection, name)
            if task_name is not None:
                _check_task(connection, task_name)
            records.update_schedule(connection, name, **values)
            changed = _find(connection, name)
        self._roster.look()
        self.wake()
        told = f"Schedule {name} was changed: {changed.specification}, task {changed.task_name}."
        self._report(SCHEDULE_CHANGED, told)
        return changed

    def delete(self, names: Sequence[str]) -> str:
        """All or none; their tasks stay. Returns the sentences that tell it. Raises ObjectNotFound."""
        with self._database.transaction() as connection:
            for name in names:
                _find(connection, name)
                records.delete_schedule(connection, name)
        return self._roster.look()

    def zone_changed(self) -> None:
        """Has next starts made anew, for the time zone is another one now. What is due already is started."""
        now = self._clock.now()
        self._renew(lambda present, _: present > now)
        self.wake()

    def clock_put_back(self) -> None:
        """Has next starts made anew that a clock that was wrong has put more than a day too far away."""
        self._renew(lambda present, anew: anew is not None and present - anew > 86400)

    def last_known_time(self) -> float:
        """The latest time by the clock that anything on record has: after a restart it tells whether the clock was put
        back meanwhile."""
        with self._database.read() as connection:
            return records.last_known_time(connection)

    def of_set(self, set_id: int) -> list[ScheduleRecord]:
        """Those that replicate this set, by name."""
        with self._database.read() as connection:
            return records.schedules_of_set(connection, set_id)

    def all(self) -> list[ScheduleRecord]:
        """By name."""
        with self._database.read() as connection:
            return records.all_schedules(connection)

    def find(self, name: str) -> ScheduleRecord | None:
        with self._database.read() as connection:
            return records.find_schedule(connection, name)

    def get(self, name: str) -> ScheduleRecord:
        """Raises ObjectNotFound."""
        with self._database.read() as connection:
            return _find(connection, name)

    def _check(self, specification: str, now: float) -> tuple[str, float]:
        """The specification as it is kept, and its first start."""
        found = parse(specification)
        return str(found), check_new(found, now, self.zone(), self._settings.get(MINIMUM_SCHEDULE_INTERVAL))

    def _renew(self, wanted: Callable[[float, float | None], bool]) -> None:
        """Has the next start of those made anew for which `wanted` says so, of the present one and the new one."""
        now, zone = self._clock.now(), self.zone()
        with self._database.transaction() as connection:
            for each in records.all_schedules(connection):
                if each.next_at is None:
                    continue
                anew = _next_of(each, now, zone)
                if anew is not None and wanted(each.next_at, anew.next_at) and anew != each:
                    records.update_schedule(connection, each.name, next_at=anew.next_at)


def _next_of(record: ScheduleRecord, now: float, zone: tzinfo) -> ScheduleRecord | None:
    """With its next start from now on; None when it cannot be read, which the scheduler will find and tell."""
    try:
        found = parse(record.specification)
    except BadParameter:
        return None
    return replace(record, next_at=next_start(found, now, zone))


def _find(connection: Connection, name: str) -> ScheduleRecord:
    found = records.find_schedule(connection, name)
    if found is None:
        raise ObjectNotFound(f"schedule {shown(name)} does not exist; `show schedules` lists all schedules")
    return found


def _check_task(connection: Connection, name: str) -> None:
    if records.find_task(connection, name) is None:
        raise ObjectNotFound(f"task {shown(name)} does not exist; `show tasks` lists all tasks")
