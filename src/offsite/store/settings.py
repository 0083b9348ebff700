"""Settings that a user may change while the system runs: what there are, their defaults and their limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert

from offsite.errors import BadParameter
from offsite.store.database import Database
from offsite.store.tables.management import settings as table

V = TypeVar("V")


@dataclass(frozen=True)
class Setting(Generic[V]):
    """`parse` takes text and returns the value, or raises BadParameter that tells the rule."""

    name: str
    default: str
    parse: Callable[[str], V]
    help: str


def whole_number(what: str, least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most):
            raise BadParameter(f"{what} {text[:100]!r} is not a whole number from {least} to {most}")
        return int(text)

    return parse


def one_of(what: str, *words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise BadParameter(f"{what} {text[:100]!r} is not one of {', '.join(words)}")
        return text

    return parse


RUNS_AT_A_TIME = Setting(
    "runs-at-a-time", "2", whole_number("number of runs at a time", 1, 64), "How many runs send at the same time."
)
RETRY_CADENCE = Setting(
    "retry-cadence",
    "offsite",
    one_of("retry cadence", "offsite", "me4"),
    "When a run that failed is tried again. offsite: after 1 s, doubling to 10 min; me4: six times after 10 min, "
    "then every hour. As soon as a peer that was gone is back it is tried in any case.",
)


class Settings:
    """The settings of one system. Safe to use from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, setting: Setting[V]) -> V:
        with self._database.read() as connection:
            text = connection.execute(select(table.c.value).where(table.c.name == setting.name)).scalar()
        return setting.parse(setting.default if text is None else text)

    def set(self, setting: Setting[V], text: str) -> None:
        """Durably. Raises BadParameter, with nothing changed."""
        setting.parse(text)
        with self._database.transaction() as connection:
            if text == setting.default:
                connection.execute(delete(table).where(table.c.name == setting.name))
                return
            statement = insert(table).values(name=setting.name, value=text)
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": text}))
