"""The events of a system: told from any thread, logged at once, and kept in the database.

Who tells an event may hold locks or be in the middle of a host's write. So telling never waits: a thread of
its own writes what was told, many events in one transaction.

    report ──► log line
          ├──► count by severity
          ├──► whoever listens: notices, which have a queue of their own
          └──► queue (bounded) ──► writer thread ──► events table (bounded)

Both bounds are for each ring by itself: events of one source, those from warnings on apart from the others. So no
number of failed logins, of runs that a peer asks for, or of its own routine work makes a system forget what a user
did, or that something broke.

While the database cannot be written, events stay in the queue, are shown from there, and are written later.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import structlog
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from offsite.clock import Clock
from offsite.errors import OffsiteError
from offsite.escaping import escaped
from offsite.events import EventKind, Severity, Source
from offsite.management.events.tables import events as table
from offsite.store.database import Database

KEPT_MAX = {Source.OPERATOR: 10_000, Source.SYSTEM: 10_000, Source.PEER: 5_000, Source.STRANGER: 1_000}  # in each ring
EVENTS_MAX = 2 * sum(KEPT_MAX.values())
WAITING_MAX = 1_000  # of each ring
RETRY_SECONDS = 5.0  # after the database could not be written
MESSAGE_CHARACTERS_MAX = 1_000
_LEVELS = {
    Severity.INFORMATIONAL: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "error",
    Severity.CRITICAL: "critical",
    Severity.RESOLVED: "info",
}

_ERRORS = (Severity.WARNING, Severity.ERROR, Severity.CRITICAL)  # what ME4's filter `error` shows

_COLUMNS = [each for each in table.c if each is not table.c.ring]

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

    def fits(self, event: Event) -> bool:
        """The same, of an event that is not in the database yet."""
        return (
            (self.since is None or event.at >= self.since)
            and (self.before is None or event.at < self.before)
            and (self.first_id is None or event.id >= self.first_id)
            and (self.last_id is None or event.id <= self.last_id)
            and (not self.errors_only or event.severity in _ERRORS)
        )


class EventLog:
    """Keeps the newest events. Safe to use from any thread."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Source, Told]] = deque()  # each until it is in the database
        self._waiting_in: Counter[str] = Counter()  # how many in each ring
        self._writes = 0  # that went well
        self._told: Counter[Severity] = Counter()
        self._listeners: list[Callable[[Told], None]] = []
        self._cannot_write = False
        self._stopping = False
        self._thread = threading.Thread(target=self._write_until_stopped, name="events", daemon=True)
        self._thread.start()

    def listen(self, listener: Callable[[Told], None]) -> None:
        """Has every event from now on told to `listener` too, which must not wait for anything."""
        self._listeners.append(listener)

    def report(self, kind: EventKind, message: str) -> None:
        """A `Report`. When the disk is so slow that too many events wait, the event is in the log only."""
        message = escaped(message[:MESSAGE_CHARACTERS_MAX])[:MESSAGE_CHARACTERS_MAX]
        getattr(_log, _LEVELS[kind.severity])(message, code=kind.code)
        source = kind.source()
        ring = _ring(source, kind.severity)
        told = Told(self._clock.now(), kind.code, kind.severity, message, kind.recommended_action)
        with self._changed:
            self._told[kind.severity] += 1
            if self._waiting_in[ring] < WAITING_MAX:
                self._waiting_in[ring] += 1
                self._waiting.append((source, told))
            self._changed.notify_all()
        for listener in self._listeners:
            listener(told)

    def counts(self) -> Mapping[Severity, int]:
        """How many events of each severity were told since the system was started."""
        with self._changed:
            return {severity: self._told[severity] for severity in Severity}

    def newest(self, count: int, wanted: EventFilter | None = None, timeout_seconds: float = 5.0) -> list[Event]:
        """At most `count` events, newest first, with those that were told before this call."""
        wanted = wanted or EventFilter()
        self.flush(timeout_seconds)
        while True:
            with self._changed:
                waiting, writes = list(self._waiting), self._writes
            kept, last_id = self._kept(count, wanted)
            with self._changed:
                if writes == self._writes:
                    break  # else some may have come from the one into the other meanwhile
        told = [Event(**asdict(each), id=last_id + number) for number, (_, each) in enumerate(waiting, 1)]
        return [*(each for each in reversed(told) if wanted.fits(each)), *kept][:count]

    def _kept(self, count: int, wanted: EventFilter) -> tuple[list[Event], int]:
        """Events in the database, newest first, and the id of the last one there."""
        statement = select(*_COLUMNS).where(*wanted.conditions()).order_by(table.c.id.desc()).limit(count)
        with self._database.read() as connection:
            rows = connection.execute(statement).mappings().all()
            last_id = connection.execute(select(func.max(table.c.id))).scalar_one() or 0
        return [Event(**{**row, "severity": Severity(row["severity"])}) for row in rows], last_id

    def flush(self, timeout_seconds: float) -> bool:
        """Returns once all that was told before is in the database; False when that took too long or cannot be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._cannot_write, timeout_seconds)
            return not self._waiting

    def stop(self, timeout_seconds: float) -> None:
        """Writes what waits, then ends the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_seconds)

    def _write_until_stopped(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if not self._waiting:
                    return
                told = list(self._waiting)
            try:
                self._write(told)
            except OffsiteError as error:  # a full or failed disk must not silence the log as well
                if not self._cannot_write:
                    _log.error(
                        "cannot store events; they stay in memory, are shown, and will be stored later",
                        error=str(error),
                    )
                if not self._wait_to_retry():
                    return
                continue
            with self._changed:
                for source, event in told:
                    self._waiting.popleft()
                    self._waiting_in[_ring(source, event.severity)] -= 1
                self._writes += 1
                self._cannot_write = False
                self._changed.notify_all()

    def _wait_to_retry(self) -> bool:
        """Whether there is a next time: one more once it is told to stop."""
        with self._changed:
            is_last = self._stopping
            self._cannot_write = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopping, RETRY_SECONDS)
            return not is_last

    def _write(self, told: list[tuple[Source, Told]]) -> None:
        rings = {_ring(source, event.severity): KEPT_MAX[source] for source, event in told}
        rows = [{**asdict(event), "ring": _ring(source, event.severity)} for source, event in told]
        with self._database.transaction() as connection:
            connection.execute(insert(table), rows)
            for ring, most in rings.items():
                in_ring = select(table.c.id).where(table.c.ring == ring).order_by(table.c.id.desc())
                newest_too_many = in_ring.offset(most).limit(1).scalar_subquery()
                connection.execute(delete(table).where(table.c.ring == ring, table.c.id <= newest_too_many))


def last_event_at(connection: Connection) -> float:
    """The latest instant that an event in the database has; 0 when there is none."""
    return float(connection.execute(select(func.max(table.c.at))).scalar() or 0.0)


def _ring(source: Source, severity: Severity) -> str:
    return f"{source}: severe" if severity in _ERRORS else str(source)
