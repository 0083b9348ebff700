"""How many runs of each set are in which state, counted in the database."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select

from offsite.replication.records.tables import replication_sets, runs
from offsite.store.database import Database


def run_counts(database: Database) -> Mapping[str, Mapping[str, int]]:
    """Of the runs on record, by the uuid of their set and their state: one query for all sets."""
    statement = (
        select(replication_sets.c.uuid, runs.c.state, func.count().label("count"))
        .join_from(runs, replication_sets)
        .group_by(runs.c.set_id, runs.c.state)
    )
    found: dict[str, dict[str, int]] = {}
    with database.read() as connection:
        for row in connection.execute(statement).mappings():
            found.setdefault(row["uuid"], {})[row["state"]] = row["count"]
    return found
