"""Pools: create, set, delete, show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import update

from offsite.errors import BadParameter, InUse, NameInUse
from offsite.escaping import shown
from offsite.events import POOL_CHANGED, POOL_CREATED, POOL_DELETED, POOL_REMAINS
from offsite.management.command_table import values
from offsite.management.command_table.command import Role, Subject, flag, keyword, positional
from offsite.management.command_table.reply import Kind, ObjectType, Property, Reply, Row, row
from offsite.management.system import Context, System
from offsite.pools.local.creation import clear_remains, contents_of_device, delete_row
from offsite.pools.local.pool import PAGE_BYTES, PAGE_BYTES_MAX, PAGE_BYTES_MIN, LocalPool
from offsite.pools.space import Thresholds
from offsite.pools.tables import pools as table
from offsite.units import format_size

COMMANDS = Subject("Pools")

POOLS_MAX = 16
POOL = ObjectType(
    "pools",
    "pool",
    (
        Property("name", "Name"),
        Property("total-size", "Size", Kind.SIZE),
        Property("allocated-size", "Allocated", Kind.SIZE),
        Property("total-avail", "Available", Kind.SIZE),
        Property("provisioned-size", "Promised", Kind.SIZE),
        Property("page-size", "Page", Kind.SIZE),
        Property("volumes", "Volumes", Kind.NUMBER),
        Property("snapshots", "Snapshots", Kind.NUMBER),
        Property("overcommit", "Overcommit", Kind.YES_NO),
        Property("low-threshold", kind=Kind.PERCENT),
        Property("middle-threshold", kind=Kind.PERCENT),
        Property("high-threshold", kind=Kind.PERCENT),
        Property("health", "Health"),
        Property("health-numeric", kind=Kind.NUMBER),
        Property("health-reason", "Reason"),
    ),
)


def _overwrite_question(
    context: Context, name: str, size: int | None = None, device: str | None = None, overwrite: bool = False, **_: Any
) -> str | None:
    path = _pool_path(context.system, name, size, device, overwrite)
    found = contents_of_device(context.system.database, path) if device is not None and overwrite else ""
    return f"Make pool {name} on {path}? That has {found}, and all of it is lost." if found else None


@COMMANDS.command(
    "create pool",
    "Makes a pool, in a file of its own in the state directory, or on an empty block device.",
    keyword("size", values.size(), "How much it may hold; needed unless a device is given."),
    keyword("device", values.text("device"), "An empty block device, by its absolute path; the pool takes all of it."),
    keyword("page-size", values.size(), "The unit of allocation, 4KiB to 1MiB; by default, 16KiB."),
    flag("overwrite", "Takes the device though something is on it, which is then lost; never one that is in use."),
    flag("no-overcommit", "Volumes may not be promised more space than the pool has."),
    positional("name", values.name("pool"), "Its name: letters, digits, _ and -, such as B.", named=True),
    examples=("create pool size 500GiB B", "create pool device /dev/sdb B"),
    confirmation=_overwrite_question,
)
def create_pool(
    context: Context,
    name: str,
    size: int | None = None,
    device: str | None = None,
    page_size: int = PAGE_BYTES,
    overwrite: bool = False,
    no_overcommit: bool = False,
) -> Reply:
    system = context.system
    path = _pool_path(system, name, size, device, overwrite)
    if page_size.bit_count() != 1 or not PAGE_BYTES_MIN <= page_size <= PAGE_BYTES_MAX:
        raise BadParameter(
            f"page-size {page_size} bytes is not a power of two from {format_size(PAGE_BYTES_MIN)} to "
            f"{format_size(PAGE_BYTES_MAX)}"
        )
    pool = LocalPool.create(
        system.database,
        name,
        path,
        size or 0,
        page_size,
        overcommit=not no_overcommit,
        overwrite=overwrite,
        report=system.events.report,
    )
    system.pools[name] = pool
    system.events.report(POOL_CREATED, f"Pool {name} was created on {path}.")
    return Reply(f"Pool {name} was created.", (_row(pool),))


def _pool_path(system: System, name: str, size: int | None, device: str | None, overwrite: bool) -> Path:
    if not all(c.isascii() and (c.isalnum() or c in "_-") for c in name):  # it becomes part of a file's name
        raise BadParameter(f"pool name {name!r} has other characters than letters, digits, _ and -")
    if name in system.pools:
        raise NameInUse(f"pool {name} exists already; choose another name")
    if len(system.pools) >= POOLS_MAX:
        raise InUse(f"there are {POOLS_MAX} pools, and no more are allowed")
    if (size is None) == (device is None):
        raise BadParameter("give either a size, for a pool in a file, or a device, and not both")
    if overwrite and device is None:
        raise BadParameter("overwrite is for a device only; a pool without one is made in a new file")
    if device is None:
        return Path(f"pool-{name}.data")
    path = Path(device)
    if not path.is_absolute() or not path.is_block_device():
        raise BadParameter(f"device {shown(device)} is not the absolute path of a block device")
    return path


@COMMANDS.command(
    "set pool",
    "Changes when a pool tells that it fills up, and whether volumes may be promised more space than it has.",
    keyword("low-threshold", values.percent(), "Percent in use at which the first event is told."),
    keyword("middle-threshold", values.percent(), "At which the second is told."),
    keyword("high-threshold", values.percent(), "At which the last is told, as an error."),
    keyword("overcommit", values.boolean("enabled", "disabled"), "Whether more may be promised than is there."),
    positional("pool", values.reference("pool"), "The pool."),
    examples=("set pool high-threshold 95% A",),
)
def set_pool(
    context: Context,
    pool: str,
    low_threshold: float | None = None,
    middle_threshold: float | None = None,
    high_threshold: float | None = None,
    overcommit: bool | None = None,
) -> Reply:
    system = context.system
    found = system.pool(pool)
    before = found.space.thresholds
    thresholds = Thresholds(
        low_threshold or before.low, middle_threshold or before.middle, high_threshold or before.high
    )
    allowed = found.overcommit if overcommit is None else overcommit
    capacity = found.capacity()
    if not allowed and capacity.provisioned_bytes > capacity.size_bytes:
        raise InUse(
            f"overcommit of pool {found.name} cannot be disabled: {format_size(capacity.provisioned_bytes)} are "
            f"promised to volumes, and it has {format_size(capacity.size_bytes)}"
        )
    with system.database.transaction() as connection:
        connection.execute(
            update(table)
            .where(table.c.id == found.id)
            .values(
                overcommit=allowed,
                low_threshold_percent=thresholds.low,
                middle_threshold_percent=thresholds.middle,
                high_threshold_percent=thresholds.high,
            )
        )
    found.overcommit = allowed
    found.space.set_thresholds(thresholds)
    system.events.report(POOL_CHANGED, f"Settings of pool {found.name} were changed.")
    return Reply(f"Pool {found.name} was changed.", (_row(found),))


def _delete_question(context: Context, pool: str) -> str:
    return f"Delete pool {_empty(context.system, pool).name}?"


@COMMANDS.command(
    "delete pools",
    "Deletes a pool that has no volumes and no snapshots any more.",
    positional("pool", values.reference("pool"), "The pool."),
    confirmation=_delete_question,
)
def delete_pools(context: Context, pool: str) -> Reply:
    system = context.system
    found = _empty(system, pool)
    delete_row(system.database, found.id)
    del system.pools[found.name]
    found.abandon()
    system.events.report(POOL_DELETED, f"Pool {found.name} was deleted.")
    for problem in clear_remains(system.database):
        system.events.report(POOL_REMAINS, f"{problem}.")
    return Reply(f"Pool {found.name} was deleted.")


def _empty(system: System, pool: str) -> LocalPool:
    found = system.pool(pool)
    count = len(found.images())
    if count:
        raise InUse(f"pool {found.name} has {count} volumes and snapshots; delete those first")
    return found


@COMMANDS.command(
    "show pools",
    "Lists the pools, and how much of each is in use.",
    positional("pool", values.reference("pool"), "Only this one.", required=False),
    role=Role.MONITOR,
)
def show_pools(context: Context, pool: str | None = None) -> Reply:
    system = context.system
    found = [system.pool(pool)] if pool is not None else [each for _, each in sorted(system.pools.items())]
    return Reply(rows=tuple(map(_row, found)))


def _row(pool: LocalPool) -> Row:
    capacity, thresholds = pool.capacity(), pool.space.thresholds
    health, reason = pool.health
    kinds = [image.kind for image in pool.images()]
    return row(
        POOL,
        {
            "name": pool.name,
            "total-size": capacity.size_bytes,
            "allocated-size": capacity.allocated_bytes,
            "total-avail": capacity.available_bytes,
            "provisioned-size": capacity.provisioned_bytes,
            "page-size": capacity.allocation_bytes,
            "volumes": kinds.count("volume"),
            "snapshots": kinds.count("snapshot"),
            "overcommit": pool.overcommit,
            "low-threshold": thresholds.low,
            "middle-threshold": thresholds.middle,
            "high-threshold": thresholds.high,
            "health": health.word,
            "health-numeric": health.value,
            "health-reason": reason,
        },
    )
