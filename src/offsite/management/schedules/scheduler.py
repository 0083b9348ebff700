"""Starts what is due: each start at most once, none without a word.

A start takes these steps; what a crash leaves after each is in brackets.

    due ──► 1 on record: it is under way, and when the next one is     [it is due again, unless 2 is on record]
        ──► 2 the task is done                                         [done: of a run the request is on record;
                                                                        of a snapshot 3 is in the same transaction]
        ──► 3 on record: it is done, or has failed and why             [as if nothing had happened]

Step 2 may take a minute, when a set has hooks: so it is done beside other starts, though not beside another one of the
same schedule. A crash neither doubles a start nor loses one.

Starts whose time has passed by more than a minute were missed: the system was down or busy, or its clock was set
forward. One start makes up for all of them, and an event tells it; after `expires` nothing is made up for. A clock that
is put back doubles nothing, for the next start is on record; only when it is put back by more than a day are next
starts made anew.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import tzinfo
from typing import Protocol

import structlog
from sqlalchemy import Connection

from offsite.clock import Clock
from offsite.errors import BadParameter, OffsiteError
from offsite.events import SCHEDULE_EXPIRED, START_MISSED, TASK_FAILED, TASK_STARTED, Report
from offsite.management.schedules import records
from offsite.management.schedules.records import ScheduleRecord, TaskRecord
from offsite.management.schedules.recurrence import count_starts, instant_of, local_time, next_start
from offsite.management.schedules.roster import Roster
from offsite.management.schedules.schedules import Schedules
from offsite.management.schedules.specification import Specification
from offsite.management.schedules.specification_parser import parse
from offsite.store.database import Database

GRACE_SECONDS = 60.0  # a start that is later than this was missed
LOOK_SECONDS = 30.0  # the longest sleep: the clock may have been set meanwhile
STARTS_AT_A_TIME = 16
COUNTED_MAX = 1000  # missed starts are counted up to here
_DAY_SECONDS = 86400.0

_log = structlog.get_logger(__name__)


class Work(Protocol):
    """What a task does. See task_work.py."""

    def do(self, task: TaskRecord, done: Callable[[Connection], None]) -> str:
        """Does it, and writes `done` in the same transaction where it can. Returns what to tell. Raises OffsiteError
        or OSError."""
        ...

    def was_done(self, task: TaskRecord, newest_run: int) -> bool:
        """Whether a start that was cut off by a crash had done it. `newest_run` was the newest on record before."""
        ...


Begin = Callable[[str, Callable[[], None]], None]
"""Has work of that name done: in a thread of its own, say, or at once."""


def in_a_thread(name: str, work: Callable[[], None]) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()


class Scheduler:
    """A `Ticker` calls `step`, from one thread; a simulator calls it itself."""

    def __init__(
        self,
        database: Database,
        schedules: Schedules,
        roster: Roster,
        work: Work,
        report: Report,
        clock: Clock,
        begin: Begin,
    ) -> None:
        self._database = database
        self._schedules = schedules
        self._roster = roster
        self._work = work
        self._report = report
        self._clock = clock
        self._begin = begin
        self._changed = threading.Condition()
        self._under_way: set[str] = set()  # schedules
        self._recovered = False
        self._seen_at = -math.inf  # by the clock on the wall

    def step(self) -> float:
        """Begins at most one start. Returns when to be called next, in seconds of the monotonic clock."""
        try:
            sleep_seconds = self._step(self._clock.now())
        except OffsiteError as error:
            _log.error("cannot read the schedules", reason=str(error))
            sleep_seconds = LOOK_SECONDS
        return self._clock.monotonic() + sleep_seconds

    def _step(self, now: float) -> float:
        if not self._recovered:
            self._recover()
            self._seen_at = self._schedules.last_known_time()
            self._recovered = True
        if now < self._seen_at - _DAY_SECONDS:
            self._schedules.clock_put_back()
        self._seen_at = now
        with self._changed:
            under_way = set(self._under_way)
        if len(under_way) >= STARTS_AT_A_TIME:
            return LOOK_SECONDS  # woken when one has ended
        with self._database.read() as connection:
            due = records.first_due(connection, under_way)
        if due is not None and due.next_at is not None and due.next_at <= now:
            self._start(due, due.next_at, now)
            return 0.0
        self._roster.look()
        return LOOK_SECONDS if due is None or due.next_at is None else min(LOOK_SECONDS, due.next_at - now)

    def _recover(self) -> None:
        """Starts that a crash has cut off are done, or due again."""
        for each in self._schedules.all():
            if each.starting_at is None:
                continue
            with self._database.read() as connection:
                task = records.find_task(connection, each.task_name)
            if task is None or self._work.was_done(task, each.starting_after or 0):
                values: dict[str, object] = {}
            else:
                values = {"next_at": each.starting_at, "starts": each.starts - 1}
            with self._database.transaction() as connection:
                records.update_schedule(connection, each.name, starting_at=None, **values)

    # -- a start ---------------------------------------------------------------------------------------------------

    def _start(self, due: ScheduleRecord, due_at: float, now: float) -> None:
        zone = self._schedules.zone()
        try:
            found = parse(due.specification)
        except BadParameter as error:
            self._tell_invalid(due, str(error))
            return
        following = next_start(found, math.floor(now) + 1, zone)
        if found.count is not None and due.starts + 1 >= found.count:
            following = None
        expired = found.expires is not None and instant_of(found.expires, zone) < now - GRACE_SECONDS
        if expired:
            with self._database.transaction() as connection:
                records.update_schedule(connection, due.name, next_at=None)
        elif not self._take(due, following):
            return  # it was changed or deleted just now
        self._tell_missed(due, found, due_at, now, zone, made_up=not expired)
        if not expired:
            with self._changed:
                self._under_way.add(due.name)
            self._begin(f"start-{due.name}", lambda: self._do(due))
        if following is None:
            self._report(SCHEDULE_EXPIRED, f"Schedule {due.name} of task {due.task_name} has expired.")

    def _take(self, due: ScheduleRecord, following: float | None) -> bool:
        with self._database.transaction() as connection:
            return records.take_start(connection, due, following)

    def stop(self, timeout_seconds: float) -> None:
        """Waits for the starts that are under way. What does not end in time is found at the next start."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, timeout_seconds)

    def _do(self, due: ScheduleRecord) -> None:
        try:
            self._do_task(due)
        except OffsiteError as error:
            _log.error("cannot record the result of a start", schedule=due.name, reason=str(error))
        finally:
            with self._changed:
                self._under_way.discard(due.name)
                self._changed.notify_all()
            self._schedules.wake()

    def _do_task(self, due: ScheduleRecord) -> None:
        with self._database.read() as connection:
            task = records.find_task(connection, due.task_name)
        if task is None:
            return  # it was deleted just now, and the schedule with it

        def done(connection: Connection, error: str | None = None) -> None:
            records.update_task(connection, task.name, last_run_at=self._clock.now(), last_error=error)
            records.update_schedule(connection, due.name, starting_at=None)

        try:
            told = self._work.do(task, done)
        except (OffsiteError, OSError) as error:
            with self._database.transaction() as connection:
                done(connection, str(error))
            self._report(TASK_FAILED, f"Task {task.name}, started by schedule {due.name}, failed: {error}")
        else:
            self._report(TASK_STARTED, f"Task {task.name} was started by schedule {due.name}: {told}.")

    # -- what is told ----------------------------------------------------------------------------------------------

    def _tell_invalid(self, due: ScheduleRecord, sentence: str) -> None:
        with self._database.transaction() as connection:
            records.update_schedule(connection, due.name, next_at=None, error=sentence)
        self._report(TASK_FAILED, f"Schedule {due.name} can no longer start task {due.task_name}: {sentence}")

    def _tell_missed(
        self, due: ScheduleRecord, found: Specification, due_at: float, now: float, zone: tzinfo, *, made_up: bool
    ) -> None:
        if due_at >= now - GRACE_SECONDS:
            return
        count = 1 + count_starts(found, due_at + 1, now - GRACE_SECONDS, zone, COUNTED_MAX - 1)
        many = (
            f"{'At least ' if count == COUNTED_MAX else ''}{count} starts of schedule {due.name} were missed, the first"
        )
        what = many if count > 1 else f"A start of schedule {due.name} was missed,"
        then = (
            f"Task {due.task_name} is now started once."
            if made_up
            else ("The schedule has expired: missed starts are not repeated.")
        )
        self._report(START_MISSED, f"{what} at {local_time(due_at, zone):%Y-%m-%d %H:%M}. {then}")
