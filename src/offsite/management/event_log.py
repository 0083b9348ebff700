"""The events of a system: told from any thread, logged at once, and kept in the database.

Who tells an event may hold locks or be in the middle of a host's write. So telling never waits: a thread of
its own writes what was told, many events in one transaction.

    report ──► log line
          └──► queue (bounded) ──► writer thread ──► events table (bounded)
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import structlog
from sqlalchemy import delete, func, insert, select

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

_log = structlog.get_logger("offsite.events")


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    at: float  # seconds since the epoch
    code: int
    severity: Severity
    message: str
    recommended_action: str


class EventLog:
    """Keeps the newest events. Safe to use from any thread."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[dict[str, object]] = deque()
        self._writing = False
        self._stopping = False
        self._thread = threading.Thread(target=self._write_until_stopped, name="events", daemon=True)
        self._thread.start()

    def report(self, kind: EventKind, message: str) -> None:
        """A `Report`. When the disk is so slow that too many events wait, the event is in the log only."""
        message = message[:MESSAGE_CHARACTERS_MAX]
        getattr(_log, _LEVELS[kind.severity])(message, code=kind.code)
        record: dict[str, object] = {
            "at": self._clock.now(),
            "code": kind.code,
            "severity": int(kind.severity),
            "message": message,
            "recommended_action": kind.recommended_action,
        }
        with self._changed:
            if len(self._waiting) < WAITING_MAX:
                self._waiting.append(record)
            self._changed.notify_all()

    def newest(self, count: int, timeout_seconds: float = 5.0) -> list[Event]:
        """At most `count` events, newest first, with those that were told before this call."""
        self.flush(timeout_seconds)
        with self._database.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.id.desc()).limit(count))
            return [
                Event(row.id, row.at, row.code, Severity(row.severity), row.message, row.recommended_action)
                for row in rows
            ]

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
                records = list(self._waiting)
                self._waiting.clear()
                self._writing = True
            try:
                self._write(records)
            except OffsiteError as error:  # a full or failed disk must not silence the log as well
                _log.error("events could not be kept", count=len(records), error=str(error))

    def _write(self, records: list[dict[str, object]]) -> None:
        with self._database.transaction() as connection:
            connection.execute(insert(table), records)
            newest = connection.execute(select(func.max(table.c.id))).scalar_one()
            connection.execute(delete(table).where(table.c.id <= newest - EVENTS_MAX))
