"""The rows of pools, whatever their backend, and of what deleted ones have left behind.

As in `groups`, functions that get a connection work within its transaction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from offsite.errors import InUse, NameInUse, ObjectNotFound
from offsite.pools.space import Thresholds
from offsite.pools.tables import pool_remains, pools
from offsite.store.database import Database

_LEVELS = ("low", "middle", "high")


def all_pools(connection: Connection) -> list[tuple[str, str]]:
    """Name and backend of each."""
    return [(row.name, row.backend) for row in connection.execute(select(pools.c.name, pools.c.backend))]


def read_pool(connection: Connection, name: str) -> RowMapping:
    """Raises ObjectNotFound."""
    row = connection.execute(select(pools).where(pools.c.name == name)).mappings().one_or_none()
    if row is None:
        raise ObjectNotFound(f"pool {name!r} does not exist")
    return row


def backend_of(connection: Connection, pool_id: int) -> str:
    return str(connection.execute(select(pools.c.backend).where(pools.c.id == pool_id)).scalar_one())


def check_new_pool(connection: Connection, name: str) -> None:
    """Raises NameInUse."""
    if connection.execute(select(pools.c.id).where(pools.c.name == name)).first() is not None:
        raise NameInUse(f"pool {name!r} exists already")


def insert_pool(connection: Connection, **values: Any) -> int:
    """Returns its id. Thresholds and instant need not be given. Raises NameInUse."""
    defaults = _columns(Thresholds()) | {"created_at": time.time()}
    try:
        return int(connection.execute(insert(pools).values(defaults | values).returning(pools.c.id)).scalar_one())
    except IntegrityError as error:
        raise NameInUse(f"pool {values['name']!r} exists already") from error


def settings_of(row: RowMapping) -> tuple[Thresholds, bool]:
    """Thresholds, and whether the pool overcommits."""
    return Thresholds(*(row[f"{level}_threshold_percent"] for level in _LEVELS)), row["overcommit"]


def write_settings(connection: Connection, pool_id: int, thresholds: Thresholds, overcommit: bool) -> None:
    values = {**_columns(thresholds), "overcommit": overcommit}
    connection.execute(update(pools).where(pools.c.id == pool_id).values(values))


def _columns(thresholds: Thresholds) -> dict[str, Any]:
    return {f"{level}_threshold_percent": getattr(thresholds, level) for level in _LEVELS}


def delete_pool(connection: Connection, pool_id: int) -> None:
    """What the pool was on is one of the remains with that. Raises InUse when an image is in it."""
    row = connection.execute(select(pools).where(pools.c.id == pool_id)).one()
    try:
        connection.execute(delete(pools).where(pools.c.id == pool_id))
    except IntegrityError as error:
        raise InUse(f"pool {row.name} has volumes or snapshots; delete them first") from error
    connection.execute(insert(pool_remains).values(uuid=row.uuid, path=row.path, backend=row.backend))


def remains(database: Database, backend: str) -> Sequence[Row[Any]]:
    """`uuid` and `path` of the deleted pools of a backend of which something may be left."""
    with database.read() as connection:
        return connection.execute(select(pool_remains).where(pool_remains.c.backend == backend)).all()


def forget_remains(database: Database, uuid: str) -> None:
    with database.transaction() as connection:
        connection.execute(delete(pool_remains).where(pool_remains.c.uuid == uuid))
