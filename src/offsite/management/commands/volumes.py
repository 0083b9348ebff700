"""Volumes: create, delete, expand, rename, copy, roll back, show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection

from offsite.access.maps import LUN_MAX
from offsite.errors import BadParameter, NotAllowed
from offsite.escaping import shown
from offsite.events import VOLUME_CHANGED, VOLUME_CREATED
from offsite.management.command_table import values
from offsite.management.command_table.command import Role, Subject, keyword, positional
from offsite.management.command_table.reply import Reply
from offsite.management.command_table.values import Choice
from offsite.management.commands.mapping import make_maps, resolve_initiators
from offsite.management.commands.objects import VOLUME, volume_rows
from offsite.management.images import import_copy
from offsite.management.images.changes import delete_from_pool, replace_content
from offsite.management.system import SIZE_STEP_BYTES, Context, Found, System, check_size
from offsite.pools.ancestry import is_snapshot_of
from offsite.pools.groups import add_members, insert_group, look_up
from offsite.pools.protocol import (
    SIZE_BYTES_MAX,
    Clone,
    Create,
    ImageInfo,
    Pool,
    Rename,
    Resize,
)
from offsite.pools.retention import PRIORITIES, set_priority
from offsite.units import format_size

COMMANDS = Subject("Volumes")

ACCESS = values.choice(
    Choice("read-write", 3, also=("rw",)), Choice("read-only", 1, also=("ro",)), Choice("no-access", 0)
)
LUN = values.integer(0, LUN_MAX)
RETENTION = values.choice(*(Choice(word, code) for code, word in enumerate(PRIORITIES)))  # the codes are ME4's
RETENTION_HELP = "Retention priority of the snapshot. It is stored and shown, but has no effect yet."


@COMMANDS.command(
    "create volume",
    "Creates a volume. Space is allocated as it is written. With access, initiator or lun, it is mapped as well.",
    keyword("access", ACCESS, "Access of the hosts to the volume."),
    keyword(
        "initiator",
        values.references("initiator"),
        "Nicknames or ids of the initiators to map the volume to. Default: all initiators.",
    ),
    keyword("lun", LUN, "LUN of the volume at these initiators."),
    keyword("pool", values.reference("pool"), "Pool in which to create the volume.", required=True),
    keyword("size", values.size(), "Size of the volume.", required=True),
    keyword(
        "volume-group",
        values.name("volume group"),
        "Volume group to add the volume to. It is created if it does not exist.",
    ),
    positional("name", values.name("volume"), "Name of the new volume.", named=True),
    examples=("create volume pool A size 100GiB Sales",),
    returns=(VOLUME,),
    acts_on=("pool",),
)
def create_volume(
    context: Context,
    pool: str,
    size: int,
    name: str,
    access: str | None = None,
    initiator: tuple[str, ...] | None = None,
    lun: int | None = None,
    volume_group: str | None = None,
) -> Reply:
    system = context.system
    where = system.pool(pool)
    size_bytes = check_size(size, where)
    system.check_new_name(name)
    initiators = resolve_initiators(system, initiator)
    mapped = access is not None or initiator is not None or lun is not None

    def join(connection: Connection, made: Sequence[ImageInfo]) -> None:
        """In the volume's own transaction: refused together."""
        if mapped:
            make_maps(system, [made[0].id], initiators, access or "read-write", lun)
        if volume_group is not None:
            _join_group(system, connection, made[0].id, volume_group)

    (image,) = where.apply([Create(name, size_bytes)], join)
    system.events.report(
        VOLUME_CREATED, f"Volume {name} of {format_size(size_bytes)} was created in pool {where.name}."
    )
    return Reply(f"Volume {name} was created.", volume_rows(system, [Found(where, image)]))


def _join_group(system: System, connection: Connection, image_id: int, name: str) -> None:
    group = look_up(connection, name)
    if group is None:
        insert_group(connection, name, [image_id])
        return
    system.check_group_free(group)
    add_members(connection, group, [image_id])


def _check_deletable(context: Context, names: tuple[str, ...]) -> None:
    for each in names:
        context.system.check_deletable(context.system.base_volume(each))


def _delete_question(context: Context, names: tuple[str, ...]) -> str:
    found = [context.system.base_volume(each) for each in names]
    listed = ", ".join(f"{each.image.name} ({format_size(each.image.allocated_bytes)} written)" for each in found)
    also = context.system.tasks_that_go(each.image.id for each in found)
    return f"Delete {listed}? All data will be lost, and hosts that use it will get errors.{also}"


@COMMANDS.command(
    "delete volumes",
    "Deletes volumes. Hosts that use them are disconnected. Snapshots of the volumes are kept.",
    positional("names", values.references("volume"), "Names of the volumes."),
    confirmation=_delete_question,
    examples=("delete volumes Sales,Accounts",),
    acceptance=_check_deletable,
)
def delete_volumes(context: Context, names: tuple[str, ...]) -> Reply:
    system = context.system
    return delete_images(system, [system.base_volume(each) for each in names], "Volume")


def delete_images(system: System, found: list[Found], noun: str) -> Reply:
    """Deletes those of each pool in one transaction."""
    by_pool: dict[Pool, list[ImageInfo]] = defaultdict(list)
    for each in found:
        by_pool[each.pool].append(each.image)
    for pool, doomed in by_pool.items():
        delete_from_pool(system, pool, doomed, noun)
    listed = ", ".join(each.image.name for each in found)
    return Reply(f"{noun}{'s' if len(found) > 1 else ''} {listed} deleted. {system.roster.look()}".rstrip())


def _check_expandable(context: Context, name: str, **_: object) -> None:
    context.system.check_not_secondary(context.system.base_volume(name), "expanded")


@COMMANDS.command(
    "expand volume",
    "Expands a volume by a size, or to the free space of its pool.",
    keyword("size", values.size_or_max(), "Size to add; max: all free space of the pool.", required=True),
    positional("name", values.reference("volume"), "Name of the volume."),
    examples=("expand volume size 50GiB Sales",),
    returns=(VOLUME,),
    acceptance=_check_expandable,
)
def expand_volume(context: Context, name: str, size: int | None) -> Reply:
    system = context.system
    found = system.base_volume(name)
    before = found.image.size_bytes
    if size is None:
        capacity = found.pool.capacity()
        free = capacity.size_bytes - capacity.allocated_bytes
        after = min(before + free, SIZE_BYTES_MAX) // SIZE_STEP_BYTES * SIZE_STEP_BYTES
        after = max(after, before)
    else:
        if size == 0:
            raise BadParameter("size 0 does not expand the volume; specify at least 1B")
        after = check_size(before + size, found.pool)
    (image,) = found.pool.apply([Resize(found.image.id, after)])
    message = f"Volume {image.name} was expanded from {format_size(before)} to {format_size(after)}."
    system.events.report(VOLUME_CHANGED, message)
    return Reply(message, volume_rows(system, [Found(found.pool, image)]))


def _check_settable(
    context: Context, volume: str, name: str | None = None, snapshot_retention_priority: str | None = None
) -> None:
    """Of a volume there is nothing but the name to change."""
    found = context.system.image(volume)
    if name is not None or (snapshot_retention_priority is None and found.image.kind == "volume"):
        context.system.check_not_secondary(found, "renamed")


@COMMANDS.command(
    "set volume",
    "Renames a volume or snapshot, or changes the retention priority of a snapshot.",
    keyword("name", values.name("volume"), "New name of the volume or snapshot."),
    keyword("snapshot-retention-priority", RETENTION, RETENTION_HELP),
    positional("volume", values.reference("volume", "snapshot"), "Current name of the volume or snapshot."),
    examples=("set volume name Sales2026 Sales", "set volume snapshot-retention-priority low Sales-Monday"),
    acceptance=_check_settable,
)
def set_volume(
    context: Context, volume: str, name: str | None = None, snapshot_retention_priority: str | None = None
) -> Reply:
    system, priority = context.system, snapshot_retention_priority
    if name is None and priority is None:
        raise BadParameter("set volume: no change specified; give name, snapshot-retention-priority, or both")
    found = system.image(volume) if priority is None else system.snapshot(volume)
    said = []
    if name is not None:
        system.check_new_name(name)
        said.append(f"Volume {found.image.name} was renamed to {name}.")
    if priority is not None:
        said.append(f"The retention priority of snapshot {name or found.image.name} was changed to {priority}.")
    _change(system, found, name, priority)
    message = " ".join(said)
    system.events.report(VOLUME_CHANGED, message)
    return Reply(message)


def _change(system: System, found: Found, name: str | None, priority: str | None) -> None:
    """Both in one transaction."""

    def record(connection: Connection, _: object) -> None:
        if priority is not None:
            set_priority(connection, found.image.id, priority)

    if name is not None:
        found.pool.apply([Rename(found.image.id, name)], record)
        system.replication.volumes_renamed()
        return
    with system.database.transaction() as connection:
        record(connection, None)


@COMMANDS.command(
    "copy volume",
    "Creates an independent volume with the current content of a volume or snapshot. In the same pool the copy shares "
    "unchanged pages with its source and is created at once.",
    keyword(
        "destination-pool",
        values.reference("pool"),
        "Pool in which to create the copy. Default: the pool of the source.",
    ),
    keyword("name", values.name("volume"), "Name of the copy.", required=True),
    positional("source", values.reference("volume", "snapshot"), "Name of the volume or snapshot to copy."),
    examples=("copy volume name SalesTest Sales",),
    alone=False,
    slow=True,
    returns=(VOLUME,),
)
def copy_volume(context: Context, name: str, source: str, destination_pool: str | None = None) -> Reply:
    system = context.system
    found = system.image(source)
    target = found.pool if destination_pool is None else system.pool(destination_pool)
    system.check_new_name(name)
    if target is found.pool:
        (image,) = target.apply([Clone(found.image.id, name)])
    else:
        check_size(found.image.size_bytes, target)
        image = import_copy.copy(found.pool, found.image, target, name, system.check_stopping)
    message = f"Volume {name} was created as a copy of {found.image.name}."
    system.events.report(VOLUME_CREATED, message)
    return Reply(message, volume_rows(system, [Found(target, image)]))


def _check_rollback(context: Context, volume: str, snapshot: str | None = None) -> None:
    system, found = context.system, context.system.image(volume)
    origin = None if snapshot is None else system.snapshot(snapshot)
    system.check_not_secondary(found, "rolled back")
    system.check_not_open(found)
    if origin is not None and not is_snapshot_of(found.pool.images(), origin.image, found.image):
        raise NotAllowed(
            f"{shown(origin.image.name)} is not a snapshot of volume {shown(found.image.name)}; "
            f"`show snapshots volume {found.image.name}` lists its snapshots"
        )


def _rollback_question(context: Context, snapshot: str, volume: str) -> str:
    found, origin = context.system.image(volume), context.system.snapshot(snapshot)
    return (
        f"Roll volume {found.image.name} back to snapshot {origin.image.name}? All data written to the volume since "
        "then will be lost. Unmount it on all hosts first."
    )


@COMMANDS.command(
    "rollback volume",
    "Replaces a volume's content with that of one of its snapshots. Data written since is lost. Unmount it first.",
    keyword("snapshot", values.reference("snapshot"), "Name of a snapshot of this volume.", required=True),
    positional("volume", values.reference("volume"), "Name of the volume."),
    confirmation=_rollback_question,
    examples=("rollback volume snapshot Monday Sales",),
    acceptance=_check_rollback,
)
def rollback_volume(context: Context, snapshot: str, volume: str) -> Reply:
    system = context.system
    found, origin = system.image(volume), system.snapshot(snapshot)
    replace_content(found, origin)
    message = f"Volume {found.image.name} was rolled back to snapshot {origin.image.name}."
    system.events.report(VOLUME_CHANGED, message)
    return Reply(message)


@COMMANDS.command(
    "show volumes",
    "Lists volumes and snapshots.",
    keyword("pool", values.reference("pool"), "Lists only those in this pool."),
    keyword(
        "type",
        values.choice("base", "snapshot", "all"),
        "Lists only volumes (base), only snapshots, or all.",
        default="all",
    ),
    positional(
        "names",
        values.references("volume", "snapshot"),
        "Names of the volumes and snapshots to list. Default: all.",
        required=False,
    ),
    role=Role.MONITOR,
    returns=(VOLUME,),
)
def show_volumes(context: Context, type: str, names: tuple[str, ...] | None = None, pool: str | None = None) -> Reply:
    system = context.system
    found = system.chosen(names)
    if pool is not None:
        where = system.pool(pool)
        found = [each for each in found if each.pool is where]
    if type != "all":
        kind = "volume" if type == "base" else type
        found = [each for each in found if each.image.kind == kind]
    return Reply(rows=volume_rows(system, found))
