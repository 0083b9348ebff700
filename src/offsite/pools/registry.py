"""Which kinds of pools there are. Another one is made by a PoolBackend, and an entry here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offsite.errors import BadParameter, StateDirectoryError
from offsite.escaping import shown
from offsite.events import Report, ignore
from offsite.pools import pool_rows
from offsite.pools.backend import Attached, PoolBackend
from offsite.pools.local.backend import LocalBackend
from offsite.pools.protocol import Pool
from offsite.store.database import Database

DEFAULT = "local"
BACKENDS: dict[str, PoolBackend] = {DEFAULT: LocalBackend()}


def backend(name: str = DEFAULT) -> PoolBackend:
    """Raises BadParameter for a name that no backend has."""
    found = BACKENDS.get(name)
    if found is None:
        raise BadParameter(f"pool backend {shown(name)} does not exist; valid: {', '.join(sorted(BACKENDS))}")
    return found


def backend_of_row(row: Mapping[str, Any]) -> PoolBackend:
    """Of a row of `pools`, of this version or an older one, which had one backend. Raises StateDirectoryError."""
    return _known(row["name"], row.get("backend", DEFAULT))


def open_pool(database: Database, name: str, report: Report = ignore, attached: Attached | None = None) -> Pool:
    """See PoolBackend.open."""
    with database.read() as connection:
        found = dict(pool_rows.all_pools(connection))
    return _known(name, found[name]).open(database, name, report, attached)


def destroy(database: Database, pool: Pool) -> None:
    """See PoolBackend.destroy."""
    with database.read() as connection:
        name = pool_rows.backend_of(connection, pool.id)
    _known(pool.name, name).destroy(database, pool.id)


def clear_remains(database: Database) -> list[str]:
    """See PoolBackend.clear_remains."""
    return [problem for each in BACKENDS.values() for problem in each.clear_remains(database)]


def _known(pool_name: str, name: str) -> PoolBackend:
    found = BACKENDS.get(name)
    if found is None:
        raise StateDirectoryError(
            f"pool {pool_name} is of the backend {name!r}, which this version of Offsite does not support; use "
            "a version that does"
        )
    return found
