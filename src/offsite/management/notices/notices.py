"""Notices: to whom events are sent, from which severity on.

Their URLs hold secrets. So notices are kept in a file of their own beside the keys, with mode 0600, and not in
the database:

    {"version": 1, "notices": [{"name": …, "severity": "warning", "url": …, "created_at": …}]}
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import structlog

from offsite.clock import Clock
from offsite.errors import LimitReached, NameInUse, ObjectNotFound, OffsiteError, StateDirectoryError
from offsite.escaping import shown
from offsite.events import NOTICE_CHANGED, NOTICE_DELIVERED, NOTICE_FAILED, Report, Severity
from offsite.management.events.event_log import Told
from offsite.management.notices.courier import Courier, Deliveries, Pace, Sender
from offsite.management.notices.messages import is_wanted
from offsite.management.notices.urls import Service, check_url, shown_url
from offsite.names import check_name
from offsite.store.private_files import write_atomically
from offsite.store.settings import NOTICE_INTERVAL, TIME_ZONE, Setting, Settings
from offsite.store.system_zone import zone_of

FILE = "notices"
NOTICES_MAX = 16
FILE_BYTES_MAX = 1 << 20
_OWN_CODES = (NOTICE_FAILED.code, NOTICE_DELIVERED.code)  # are not sent: each would lead to the next

Level = Literal["informational", "warning", "error", "critical"]
LEVELS: tuple[Level, ...] = ("informational", "warning", "error", "critical")

V = TypeVar("V")

_log = structlog.get_logger("offsite.notices")


class NoticeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    severity: Level
    url: str
    created_at: float

    @property
    def least(self) -> Severity:
        return Severity[self.severity.upper()]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    notices: list[NoticeRecord]


@dataclass(frozen=True, slots=True)
class NoticeInfo:
    """A notice, with nothing secret."""

    name: str
    severity: Level
    url: str  # what of it may be shown
    created_at: float
    deliveries: Deliveries


class Notices:
    """The notices of a system. Safe to use from any thread.

    Raises StateDirectoryError when its file is damaged.
    """

    def __init__(
        self,
        keys_directory: Path,
        system_name: str,
        settings: Settings,
        report: Report,
        clock: Clock,
        open_service: Callable[[str], Sender] = Service,
        pace: Pace | None = None,
    ) -> None:
        self._path = keys_directory / FILE
        self._system_name = system_name
        self._settings = settings
        self._report = report
        self._clock = clock
        self._open_service = open_service
        self._pace = pace or Pace()
        self._lock = threading.Lock()
        # Replaced as a whole, so that `tell` waits for no lock.
        self._couriers: dict[str, tuple[NoticeRecord, Courier]] = {
            each.name: (each, self._courier(each, check_first=True)) for each in _load(self._path)
        }

    def tell(self, event: Told) -> None:
        """Has an event sent to all who want it. Never waits."""
        if event.code in _OWN_CODES:
            return
        for record, courier in self._couriers.values():
            if is_wanted(event.severity, record.least):
                courier.tell(event)

    def create(self, name: str, severity: Level, url: str) -> NoticeInfo:
        """Raises BadParameter, NameInUse, LimitReached for one too many."""
        check_name(name, "notice name")
        check_url(url)
        record = NoticeRecord(name, severity, url, self._clock.now())
        with self._lock:
            if name in self._couriers:
                raise NameInUse(f"notice {shown(name)} already exists; delete it first, or choose another name")
            if len(self._couriers) >= NOTICES_MAX:
                raise LimitReached(f"there are {NOTICES_MAX} notices, which is the maximum; delete one first")
            self._save([*(each for each, _ in self._couriers.values()), record])
            self._couriers = {**self._couriers, name: (record, self._courier(record))}
        self._report(NOTICE_CHANGED, f"Notice {name} of events of severity {severity} and above was created.")
        return self.get(name)

    def delete(self, name: str) -> None:
        """Raises ObjectNotFound. What waits to be sent is tried once more."""
        with self._lock:
            _, courier = self._find(name)
            left = {each: pair for each, pair in self._couriers.items() if each != name}
            self._save([record for record, _ in left.values()])
            self._couriers = left
        courier.stop()
        self._report(NOTICE_CHANGED, f"Notice {name} was deleted.")

    def get(self, name: str) -> NoticeInfo:
        """Raises ObjectNotFound."""
        return _info(*self._find(name))

    def all(self) -> list[NoticeInfo]:
        return [_info(*pair) for _, pair in sorted(self._couriers.items())]

    def test(self, name: str) -> None:
        """Sends a message now. Raises ObjectNotFound, or NoticeNotSent with the reason."""
        _, courier = self._find(name)
        text = f"This is a test of notice {name} of system {self._system_name}."
        courier.send_now(
            Told(
                self._clock.now(), NOTICE_CHANGED.code, Severity.INFORMATIONAL, text, NOTICE_CHANGED.recommended_action
            )
        )

    def stop(self, timeout_seconds: float) -> None:
        """Has what waits tried once more, and ends."""
        couriers = [courier for _, courier in self._couriers.values()]
        for courier in couriers:
            courier.stop()
        until = self._clock.monotonic() + timeout_seconds
        for courier in couriers:
            courier.join(max(0.0, until - self._clock.monotonic()))

    def _courier(self, record: NoticeRecord, *, check_first: bool = False) -> Courier:
        def changed(error: str | None) -> None:
            if error is None:
                self._report(NOTICE_DELIVERED, f"Notice {record.name} recovered: its messages are sent again.")
            else:
                self._report(NOTICE_FAILED, f"Notice {record.name} cannot be sent: {error}")

        return Courier(
            name=record.name,
            system_name=self._system_name,
            open_service=lambda: self._open_service(record.url),
            interval_seconds=lambda: self._setting(NOTICE_INTERVAL),
            zone=lambda: zone_of(self._setting(TIME_ZONE)),
            changed=changed,
            clock=self._clock,
            pace=self._pace,
            check_first=check_first,
        )

    def _setting(self, setting: Setting[V]) -> V:
        try:
            return self._settings.get(setting)
        except OffsiteError as error:  # a failed disk is just what notices have to tell of
            _log.error("cannot read a setting; its default is used", setting=setting.name, error=str(error))
            return setting.parse(setting.default)

    def _find(self, name: str) -> tuple[NoticeRecord, Courier]:
        found = self._couriers.get(name)
        if found is None:
            raise ObjectNotFound(f"notice {shown(name)} does not exist; `show notices` lists all notices")
        return found

    def _save(self, records: list[NoticeRecord]) -> None:
        try:
            write_atomically(self._path, msgspec.json.encode(_File(1, records)))
        except OSError as error:
            raise StateDirectoryError(
                f"{self._path} cannot be written: {error.strerror}; nothing was changed"
            ) from error


def _info(record: NoticeRecord, courier: Courier) -> NoticeInfo:
    return NoticeInfo(record.name, record.severity, shown_url(record.url), record.created_at, courier.deliveries())


def _load(path: Path) -> list[NoticeRecord]:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateDirectoryError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(content, type=_File).notices
    except (msgspec.DecodeError, UnicodeDecodeError):
        # What is wrong with it is left out: that might repeat a part of a URL.
        raise StateDirectoryError(
            f"{path} is damaged: not a file of notices; restore it from a copy, or remove it and create the notices "
            "again"
        ) from None
