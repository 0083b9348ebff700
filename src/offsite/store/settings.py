"""Settings that a user may change while the system runs: what there are, their defaults and their limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dateutil import tz
from sqlalchemy import Connection, bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from offsite.errors import BadParameter
from offsite.store.database import Database
from offsite.store.tables import settings as table

V = TypeVar("V")


@dataclass(frozen=True)
class Setting(Generic[V]):
    """`parse` takes text and returns the value, or raises BadParameter that tells the rule."""

    name: str
    default: str
    parse: Callable[[str], V]
    help: str

    @property
    def limits(self) -> str:
        """What its values may be, in a few words; empty where only `help` can tell."""
        return self.parse.limits if isinstance(self.parse, Limited) else ""


@dataclass(frozen=True)
class Limited(Generic[V]):
    """A `parse` that can tell its limits."""

    limits: str
    parse: Callable[[str], V]

    def __call__(self, text: str) -> V:
        return self.parse(text)


def whole_number(what: str, least: int, most: int) -> Limited[int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most):
            raise BadParameter(f"{what} {text[:100]!r} is not a whole number from {least} to {most}")
        return int(text)

    return Limited(f"{least} to {most}", parse)


def one_of(what: str, *words: str) -> Limited[str]:
    def parse(text: str) -> str:
        if text not in words:
            raise BadParameter(f"{what} {text[:100]!r} is not one of {', '.join(words)}")
        return text

    return Limited(", ".join(words), parse)


def time_zone(text: str) -> str:
    """The IANA name of a time zone, or nothing."""
    if text and not _is_time_zone(text):
        raise BadParameter(
            f"time zone {text[:100]!r} is unknown on this machine; give a name of the IANA database, such as "
            "Europe/London or UTC, or an empty value for the zone of the machine"
        )
    return text


def _is_time_zone(text: str) -> bool:
    # dateutil takes names of files and POSIX rules as well, which are not for users to give.
    if len(text) > 64 or not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", text):
        return False
    try:
        found = tz.gettz(text)
    except (ValueError, OSError):  # a directory, or a file that holds something else
        return False
    return found is not None and not isinstance(found, (tz.tzstr, tz.tzlocal))


RUNS_AT_A_TIME = Setting(
    "runs-at-a-time",
    "2",
    whole_number("number of runs at a time", 1, 64),
    "Number of runs that can send at the same time.",
)
RETRY_CADENCE = Setting(
    "retry-cadence",
    "offsite",
    one_of("retry cadence", "offsite", "me4"),
    "When a failed run is retried. offsite: after 1 s, doubling to 10 min; me4: six times after 10 min, then every "
    "hour. When an unreachable peer answers again, the run is retried at once in any case.",
)
MAXIMUM_REPLICATION_SETS = Setting(
    "maximum-replication-sets",
    "32",
    whole_number("maximum of replication sets", 1, 1024),
    "Maximum number of replication sets, primary and secondary together. ME4 allows 32.",
)
MAXIMUM_PEER_CONNECTIONS = Setting(
    "maximum-peer-connections",
    "4",
    whole_number("maximum of peer connections", 1, 64),
    "Maximum number of peer connections. ME4 allows 4.",
)
MAXIMUM_NBD_CONNECTIONS = Setting(
    "maximum-nbd-connections",
    "256",
    whole_number("maximum of NBD connections", 16, 4096),
    "Maximum number of NBD connections of all hosts together. One host cannot use the last quarter of them.",
)
MAXIMUM_IMAGES_PER_PEER = Setting(
    "maximum-images-per-peer",
    "2048",
    whole_number("maximum of images per peer", 1, 16_384),
    "Maximum number of volumes and snapshots that one peer may create on this system, including those of deleted sets.",
)
MINIMUM_SCHEDULE_INTERVAL = Setting(
    "minimum-schedule-interval",
    "60",
    whole_number("minimum schedule interval", 1, 525_600),
    "Shortest interval between starts of a new schedule, in minutes.",
)
TIME_ZONE = Setting(
    "time-zone",
    "",
    time_zone,
    "Time zone of schedules and bandwidth calendars, by its IANA name (Europe/London). Empty: that of the machine.",
)
NOTICE_INTERVAL = Setting(
    "notice-interval",
    "60",
    whole_number("notice interval", 1, 86400),
    "Minimum time between two messages of a notice, in seconds. Events in between are combined into one message.",
)

PEER_GONE_AFTER = Setting(
    "peer-gone-after",
    "300",
    whole_number("time until an unreachable peer is reported", 1, 86400),
    "Time for which a peer has to be unreachable before an event reports it, in seconds.",
)
CLOCK_SKEW_WARNING = Setting(
    "clock-skew-warning",
    "5",
    whole_number("clock skew to report", 1, 86400),
    "Difference between the clocks of a peer and this system that an event reports, in seconds.",
)

ALL: tuple[Setting[Any], ...] = (
    RUNS_AT_A_TIME,
    RETRY_CADENCE,
    MAXIMUM_REPLICATION_SETS,
    MAXIMUM_PEER_CONNECTIONS,
    MAXIMUM_NBD_CONNECTIONS,
    MAXIMUM_IMAGES_PER_PEER,
    MINIMUM_SCHEDULE_INTERVAL,
    TIME_ZONE,
    NOTICE_INTERVAL,
    PEER_GONE_AFTER,
    CLOCK_SKEW_WARNING,
)
"""Every setting there is: what `show settings` lists and `set setting` can change."""


class Settings:
    """The settings of one system. Safe to use from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, setting: Setting[V]) -> V:
        return setting.parse(self.text(setting))

    @staticmethod
    def read(connection: Connection, setting: Setting[V]) -> V:
        """The value within a transaction, for who reads more in it."""
        return setting.parse(_text(connection, setting))

    def text(self, setting: Setting[V]) -> str:
        """The value as it was written."""
        with self._database.read() as connection:
            return _text(connection, setting)

    def set(self, setting: Setting[V], text: str) -> None:
        """Durably. Raises BadParameter, with nothing changed."""
        setting.parse(text)
        with self._database.transaction() as connection:
            if text == setting.default:
                connection.execute(delete(table).where(table.c.name == setting.name))
                return
            statement = insert(table).values(name=setting.name, value=text)
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": text}))


# Asked all the time: to put it together anew would take as long as SQLite does.
_VALUE = select(table.c.value).where(table.c.name == bindparam("name"))


def _text(connection: Connection, setting: Setting[Any]) -> str:
    text = connection.execute(_VALUE, {"name": setting.name}).scalar()
    return setting.default if text is None else str(text)
