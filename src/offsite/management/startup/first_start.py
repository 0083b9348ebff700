"""What a new system gets: its identity, pool A, and its first user.

The identity is written last, together with the user, so that a first start that was cut is made good by the
next one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import insert, select, update

from offsite.clock import Clock
from offsite.errors import BadParameter
from offsite.management.accounts.users import FIRST_USER, Users, check_password
from offsite.management.command_table.command import Role
from offsite.names import check_name
from offsite.pools import pool_rows, registry
from offsite.pools.backend import NewPool
from offsite.store.database import Database
from offsite.store.tables import system as table
from offsite.units import MIB

FIRST_POOL = "A"
POOL_BYTES_MIN, POOL_BYTES_MAX = MIB, 32 << 40


@dataclass(frozen=True, slots=True)
class Identity:
    uuid: str
    name: str


def identity(database: Database, name: str | None) -> Identity | None:
    """Who the system is; None before its first start is complete. A `name` that differs becomes its name."""
    if name is not None:
        check_name(name, "system name")
    with database.transaction() as connection:
        row = connection.execute(select(table)).first()
        if row is None:
            return None
        if name is not None and name != row.name:
            connection.execute(update(table).values(name=name))
        return Identity(row.uuid, name or row.name)


def start_first(
    database: Database,
    users: Users,
    clock: Clock,
    name: str,
    pool_bytes: int | None,
    password: str | None,
    tell: Callable[[str], None],
) -> Identity:
    """Makes what a new system needs; returns who it is.

    Without a `password` for its first user one is made up, and told before it is durable: a start that is cut between
    the two is made good by the next one, which tells another. Raises BadParameter before anything is made.
    """
    check_name(name, "system name")
    made_up = password is None
    password = secrets.token_urlsafe(12) if password is None else password
    check_password(password)
    _make_pool(database, pool_bytes)
    new = Identity(str(uuid4()), name)
    if made_up:
        tell(password)
    with database.transaction() as connection:
        if not users.all():
            users.create(FIRST_USER, password, Role.MANAGE)
        connection.execute(insert(table).values(id=1, uuid=new.uuid, name=new.name, created_at=clock.now()))
    return new


def _make_pool(database: Database, pool_bytes: int | None) -> None:
    with database.read() as connection:
        if any(name == FIRST_POOL for name, _ in pool_rows.all_pools(connection)):
            return
    backend = registry.backend()
    size_bytes = backend.first_size_bytes(database.path.parent) if pool_bytes is None else pool_bytes
    if not POOL_BYTES_MIN <= size_bytes <= POOL_BYTES_MAX:
        raise BadParameter(f"pool size {size_bytes} bytes is outside 1 MiB to 32 TiB")
    backend.create(database, NewPool(FIRST_POOL, size_bytes)).close()
