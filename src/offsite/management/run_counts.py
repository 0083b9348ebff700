"""How many runs of each set ended how, counted in the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import func, select

from offsite.store.database import Database
from offsite.store.tables.replication import replication_sets, runs


@dataclass(slots=True)
class RunCounts:
    """Of the runs of one set that are on record."""

    by_state: dict[str, int] = field(default_factory=dict)
    last_success_at: float | None = None  # when the newest that succeeded ended


def run_counts(database: Database) -> Mapping[str, RunCounts]:
    """Of each set that has runs, by the set's uuid: one query for all."""
    statement = (
        select(
            replication_sets.c.uuid, runs.c.state, func.count().label("count"), func.max(runs.c.ended_at).label("at")
        )
        .join_from(runs, replication_sets)
        .group_by(runs.c.set_id, runs.c.state)
    )
    found: dict[str, RunCounts] = {}
    with database.read() as connection:
        for row in connection.execute(statement).mappings():
            counts = found.setdefault(row["uuid"], RunCounts())
            counts.by_state[row["state"]] = row["count"]
            if row["state"] == "success":
                counts.last_success_at = row["at"]
    return found
