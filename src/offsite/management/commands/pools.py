"""Pools: create, set, delete, show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from offsite.errors import BadParameter, DeviceNotEmpty, InUse, LimitReached, NameInUse
from offsite.events import POOL_CHANGED, POOL_CREATED, POOL_DELETED, POOL_REMAINS
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Needs, Role, Subject, flag, keyword, positional
from offsite.management.command_table.object_types import ObjectType, Row
from offsite.management.command_table.reply import Reply
from offsite.management.command_table.values import Choice
from offsite.management.commands.enumerations import HEALTH
from offsite.management.system import Context, System
from offsite.pools import registry
from offsite.pools.backend import NewPool, PoolBackend
from offsite.pools.health import Health
from offsite.pools.protocol import Capacity, Pool
from offsite.pools.registry import DEFAULT
from offsite.pools.space import Thresholds

COMMANDS = Subject("Pools")

POOLS_MAX = 16
OVERCOMMIT = values.boolean(Choice("enabled", 1), Choice("disabled", 0))
_OF_SOME_BACKENDS = ("size", "device", "page-size", "overwrite")


@dataclass(frozen=True, slots=True)
class PoolView:
    pool: Pool
    capacity: Capacity
    health: Health
    health_reason: str
    kinds: Sequence[str]  # of its images


POOL = ObjectType[PoolView](
    "pools",
    "pool",
    (
        properties.text("name", lambda view: view.pool.name, "Name", key=True),
        properties.size("total-size", lambda view: view.capacity.size_bytes, "Size"),
        properties.size("allocated-size", lambda view: view.capacity.allocated_bytes, "Allocated"),
        properties.size("total-avail", lambda view: view.capacity.available_bytes, "Available", display_name="Avail"),
        properties.size("provisioned-size", lambda view: view.capacity.provisioned_bytes, "Provisioned"),
        properties.size("page-size", lambda view: view.capacity.allocation_bytes, "Page"),
        properties.number("volumes", lambda view: view.kinds.count("volume"), "Volumes"),
        properties.number("snapshots", lambda view: view.kinds.count("snapshot"), "Snapshots"),
        properties.yes_no("overcommit", lambda view: view.pool.overcommit, "Overcommit", words=("Disabled", "Enabled")),
        properties.percent("low-threshold", lambda view: view.pool.thresholds.low),
        properties.percent("middle-threshold", lambda view: view.pool.thresholds.middle),
        properties.percent("high-threshold", lambda view: view.pool.thresholds.high),
        properties.enumeration("health", HEALTH, lambda view: view.health.word, "Health"),
        properties.text("health-reason", lambda view: view.health_reason, "Reason", display_name="Reason"),
    ),
)


def _overwrite_question(context: Context, name: str, backend: str, **given: Any) -> str | None:
    system = context.system
    kind, new = _checked_new(system, name, backend, given)
    found = kind.contents(system.database, new)
    where = kind.location(system.database, new)
    return f"Create pool {name} on {where}? The device has {found}; all of this will be lost." if found else None


@COMMANDS.command(
    "create pool",
    "Creates a pool in a file in the state directory, or on an empty block device.",
    keyword("size", values.size(), "Size of the pool. Required unless a device is given."),
    keyword("device", values.text("device"), "Absolute path of an empty block device. The pool uses the whole device."),
    keyword("page-size", values.size(), "Unit of allocation, from 4KiB to 1MiB. Default of a local pool: 16KiB."),
    flag(
        "overwrite",
        "Uses the device even if it holds data, which is then lost. A device that is in use is refused in any case.",
        needs=Needs("device"),
    ),
    keyword("backend", values.text("backend"), "Type of storage of the pool.", default=DEFAULT),
    flag("no-overcommit", "Disables overcommit: the sizes of the volumes may not add up to more than the pool has."),
    positional("name", values.name("pool"), "Name of the new pool: letters, digits, _ and -.", named=True),
    examples=("create pool size 500GiB B", "create pool device /dev/sdb B"),
    confirmation=_overwrite_question,
    returns=(POOL,),
    errors=(DeviceNotEmpty,),
)
def create_pool(context: Context, name: str, backend: str, **given: Any) -> Reply:
    system = context.system
    kind, new = _checked_new(system, name, backend, given)
    where = kind.location(system.database, new)
    pool = kind.create(system.database, new, system.events.report)
    system.pools[name] = pool
    system.events.report(POOL_CREATED, f"Pool {name} was created on {where}.")
    return Reply(f"Pool {name} was created.", (_row(pool),))


def _checked_new(system: System, name: str, backend: str, given: dict[str, Any]) -> tuple[PoolBackend, NewPool]:
    """Raises BadParameter, NameInUse, InUse."""
    if not all(c.isascii() and (c.isalnum() or c in "_-") for c in name):  # it becomes part of a file's name
        raise BadParameter(f"pool name {name!r} has characters other than letters, digits, _ and -")
    if name in system.pools:
        raise NameInUse(f"pool {name} exists already; choose another name")
    if len(system.pools) >= POOLS_MAX:
        raise LimitReached(f"there are {POOLS_MAX} pools already, which is the maximum; delete one first")
    kind = registry.backend(backend)
    for word in _OF_SOME_BACKENDS:
        if given.get(word.replace("-", "_")) and word not in kind.capabilities.parameters:
            raise BadParameter(f"the parameter {word} does not apply to a pool of the backend {kind.name}; omit it")
    new = NewPool(
        name,
        given.get("size"),
        given.get("device"),
        given.get("page_size"),
        given.get("overwrite", False),
        not given.get("no_overcommit", False),
    )
    kind.location(system.database, new)
    return kind, new


@COMMANDS.command(
    "set pool",
    "Changes the thresholds and the overcommit setting of a pool.",
    keyword("low-threshold", values.percent(), "Allocated share of the pool that causes the first event."),
    keyword("middle-threshold", values.percent(), "Allocated share that causes the second event."),
    keyword("high-threshold", values.percent(), "Allocated share that causes the third event, an error."),
    keyword(
        "overcommit",
        OVERCOMMIT,
        "Whether the sizes of the volumes may add up to more than the pool has.",
    ),
    positional("pool", values.reference("pool"), "Name of the pool."),
    examples=("set pool high-threshold 95% A",),
    returns=(POOL,),
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
    before = found.thresholds
    thresholds = Thresholds(
        low_threshold or before.low, middle_threshold or before.middle, high_threshold or before.high
    )
    found.configure(thresholds, overcommit=found.overcommit if overcommit is None else overcommit)
    system.events.report(POOL_CHANGED, f"Settings of pool {found.name} were changed.")
    return Reply(f"Pool {found.name} was changed.", (_row(found),))


def _check_empty(context: Context, pool: str) -> None:
    found = context.system.pool(pool)
    count = len(found.images())
    if count:
        raise InUse(f"pool {found.name} has {count} volumes and snapshots; delete them first")


def _delete_question(context: Context, pool: str) -> str:
    return f"Delete pool {context.system.pool(pool).name}?"


@COMMANDS.command(
    "delete pools",
    "Deletes a pool that has no volumes or snapshots.",
    positional("pool", values.reference("pool"), "Name of the pool."),
    confirmation=_delete_question,
    acceptance=_check_empty,
)
def delete_pools(context: Context, pool: str) -> Reply:
    system = context.system
    found = system.pool(pool)
    registry.destroy(system.database, found)
    del system.pools[found.name]
    found.abandon()
    system.events.report(POOL_DELETED, f"Pool {found.name} was deleted.")
    for problem in registry.clear_remains(system.database):
        system.events.report(POOL_REMAINS, f"{problem}.")
    return Reply(f"Pool {found.name} was deleted.")


@COMMANDS.command(
    "show pools",
    "Lists the pools with their capacity and use.",
    positional("pool", values.reference("pool"), "Name of the pool to show. Default: all pools.", required=False),
    role=Role.MONITOR,
    returns=(POOL,),
)
def show_pools(context: Context, pool: str | None = None) -> Reply:
    system = context.system
    found = [system.pool(pool)] if pool is not None else [each for _, each in sorted(system.pools.items())]
    return Reply(rows=tuple(map(_row, found)))


def _row(pool: Pool) -> Row:
    return POOL.row(PoolView(pool, pool.capacity(), *pool.health, [image.kind for image in pool.images()]))
