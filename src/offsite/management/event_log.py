"""The events of a system: told from any thread, logged at once, and kept in the database.

Who tells an event may hold locks or be in the middle of a host's write. So telling never waits: a thread of
its own writes what was told, many events in one transaction.

    report ──► log line
          ├──► count by severity
          ├──► whoever listens: notices, which have a queue of their own
          └──► queue (bounded) ──► writer thread ──► events table (bounded)
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import structlog
from sqlalchemy import ColumnElement, delete, func, insert, select

from offsite.clock import Clock
from offsite.errors import OffsiteError
from offsite.events import EventKind, Severity
from offsite.store.database import Database
from offsite.store.tables.management import events as table

EVENTS_MAX = 10_000
WAITING_MAX = 1_000
MESSAGE_CHARACTERS_MAX = 1_000
_LEVELS = {
    Severity.INFORMATIONAL: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "error",
    Severity.CRITICAL: "critical",
    Severity.RESOLVED: "info",
}

_ERRORS = (Severity.WARNING, Severity.ERROR, Severity.CRITICAL)  # what ME4's filter `error` shows

_log = structlog.get_logger("offsite.events")


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it was told."""

    at: float  # seconds since the epoch
    code: int
    severity: Severity
    message: str
    recommended_action: str


@dataclass(frozen=True, slots=True)
class Event(Told):
    """An event as it is kept. Ids rise with time."""

    id: int


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are wanted: those that fulfil everything given."""

    since: float | None = None  # at this instant or after it
    before: float | None = None  # before this instant
    first_id: int | None = None
    last_id: int | None = None
    errors_only: bool = False  # warnings and worse

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        if self.since is not None:
            yield table.c.at >= self.since
        if self.before is not None:
            yield table.c.at < self.before
        if self.first_id is not None:
            yield table.c.id >= self.first_id
        if self.last_id is not None:
            yield table.c.id <= self.last_id
        if self.errors_only:
            yield table.c.severity.in_([int(each) for each in _ERRORS])


class EventLog:
    """Keeps the newest events. Safe to use from any thread."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[Told] = deque()
        self._told: Counter[Severity] = Counter()
        self._listeners: list[Callable[[Told], None]] = []
        self._writing = False
        self._stopping = False
        self._thread = threading.Thread(target=self._write_until_stopped, name="events", daemon=True)
        self._thread.start()

    def listen(self, listener: Callable[[Told], None]) -> None:
        """Has every event from now on told to `listener` too, which must not wait for anything."""
        self._listeners.append(listener)

    def report(self, kind: EventKind, message: str) -> None:
        """A `Report`. When the disk is so slow that too many events wait, the event is in the log only."""
        message = message[:MESSAGE_CHARACTERS_MAX]
        getattr(_log, _LEVELS[kind.severity])(message, code=kind.code)
        told = Told(self._clock.now(), kind.code, kind.severity, message, kind.recommended_action)
        with self._changed:
            self._told[kind.severity] += 1
            if len(self._waiting) < WAITING_MAX:
                self._waiting.append(told)
            self._changed.notify_all()
        for listener in self._listeners:
            listener(told)

    def counts(self) -> Mapping[Severity, int]:
        """How many events of each severity were told since the system was started."""
        with self._changed:
            return {severity: self._told[severity] for severity in Severity}

    def newest(self, count: int, wanted: EventFilter | None = None, timeout_seconds: float = 5.0) -> list[Event]:
        """At most `count` events, newest first, with those that were told before this call."""
        self.flush(timeout_seconds)
        statement = select(table).where(*(wanted or EventFilter()).conditions())
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(table.c.id.desc()).limit(count)).mappings()
            return [Event(**{**row, "severity": Severity(row["severity"])}) for row in rows]

    def flush(self, timeout_seconds: float) -> bool:
        """Returns once all that was told before is in the database; False when that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._writing, timeout_seconds)

    def stop(self, timeout_seconds: float) -> None:
        """Writes what waits, then ends the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_seconds)

    def _write_until_stopped(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if not self._waiting:
                    return
                told = list(self._waiting)
                self._waiting.clear()
                self._writing = True
            try:
                self._write(told)
            except OffsiteError as error:  # a full or failed disk must not silence the log as well
                _log.error("events could not be kept", count=len(told), error=str(error))

    def _write(self, told: list[Told]) -> None:
        with self._database.transaction() as connection:
            connection.execute(insert(table), [asdict(each) for each in told])
            newest = connection.execute(select(func.max(table.c.id))).scalar_one()
            connection.execute(delete(table).where(table.c.id <= newest - EVENTS_MAX))
