"""Snapshots: create, delete, reset, show."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from offsite.errors import BadParameter
from offsite.events import VOLUME_CHANGED, VOLUME_CREATED
from offsite.management.command_table import values
from offsite.management.command_table.command import Role, Subject, keyword, positional
from offsite.management.command_table.reply import Reply
from offsite.management.commands.objects import SNAPSHOT, snapshot_rows
from offsite.management.commands.volumes import RETENTION, RETENTION_HELP, delete_images
from offsite.management.images.changes import check_resettable, parent_of, replace_content
from offsite.management.system import Context, Found
from offsite.names import check_name
from offsite.pools.protocol import ImageInfo, Snapshot
from offsite.pools.retention import NEVER_DELETE, set_priority

COMMANDS = Subject("Snapshots")

SOURCES_MAX = 16  # as on ME4
SOURCES = values.references("volume", "snapshot", "volume group", list_max=SOURCES_MAX)


def _check_sources(context: Context, volumes: tuple[str, ...], **_: object) -> None:
    """So many volumes, all of one pool, that snapshots of them can be taken at one instant."""
    sources = context.system.images_or_members(volumes)
    if len(sources) > SOURCES_MAX:
        raise BadParameter(f"{len(sources)} volumes are given; at most {SOURCES_MAX} are allowed in one command")
    pool = sources[0].pool
    for each in sources:
        if each.pool is not pool:
            raise BadParameter(
                f"volume {sources[0].image.name} is in pool {pool.name} and {each.image.name} in pool "
                f"{each.pool.name}; snapshots at one instant require volumes of one pool"
            )


@COMMANDS.command(
    "create snapshots",
    "Takes snapshots of up to 16 volumes and snapshots of one pool at one instant. A snapshot can be mapped and "
    "written like a volume. A volume group stands for its members in the order of their names.",
    keyword("volumes", SOURCES, "Names of the volumes, snapshots or volume groups.", required=True),
    keyword("snapshot-retention-priority", RETENTION, RETENTION_HELP, default=NEVER_DELETE),
    positional(
        "names",
        values.names("snapshot", SOURCES_MAX),
        "Names of the new snapshots, in the same order. For a volume group, NAME stands for NAME-1, NAME-2 and so on.",
        named=True,
    ),
    examples=(
        "create snapshots volumes Sales,Accounts Sales-Monday,Accounts-Monday",
        "create snapshots volumes Books Monday",
    ),
    returns=(SNAPSHOT,),
    acts_on=("volumes",),
    acceptance=_check_sources,
)
def create_snapshots(
    context: Context, volumes: tuple[str, ...], names: tuple[str, ...], snapshot_retention_priority: str
) -> Reply:
    system = context.system
    sources = system.images_or_members(volumes)
    names = _names_for(len(sources), names, of_group=len(sources) > len(volumes))
    priority = snapshot_retention_priority
    pool = sources[0].pool
    for name in names:
        system.check_new_name(name)

    def record(connection: Connection, made: Sequence[ImageInfo]) -> None:
        if priority is not None:
            for image in made:
                set_priority(connection, image.id, priority)

    changes = [Snapshot(each.image.id, name) for each, name in zip(sources, names, strict=True)]
    taken = [Found(pool, image) for image in pool.apply(changes, record)]
    listed = ", ".join(names)
    system.events.report(VOLUME_CREATED, f"Snapshots {listed} of {', '.join(volumes)} were taken.")
    return Reply(f"Snapshot{'s' if len(names) > 1 else ''} {listed} taken.", snapshot_rows(system, taken))


def _names_for(count: int, names: tuple[str, ...], *, of_group: bool) -> tuple[str, ...]:
    """A name for each of `count` snapshots: those given, or for a group the one given with a number for each."""
    if len(names) == count:
        return names
    if of_group and len(names) == 1:
        return tuple(check_name(f"{names[0]}-{number}", "snapshot name") for number in range(1, count + 1))
    raise BadParameter(
        f"{count} volumes and {len(names)} snapshot names are given; one name for each volume is required"
        + (", or one name for all members of a group" if of_group else "")
    )


def _check_deletable(context: Context, names: tuple[str, ...]) -> None:
    for each in names:
        context.system.check_deletable(context.system.snapshot(each))


def _delete_question(context: Context, names: tuple[str, ...]) -> str:
    found = [context.system.snapshot(each) for each in names]
    also = context.system.tasks_that_go(each.image.id for each in found)
    return f"Delete {', '.join(each.image.name for each in found)}? All data will be lost.{also}"


@COMMANDS.command(
    "delete snapshot",
    "Deletes snapshots. Hosts that use them are disconnected.",
    positional("names", values.references("snapshot"), "Names of the snapshots."),
    confirmation=_delete_question,
    examples=("delete snapshot Sales-Monday",),
    acceptance=_check_deletable,
)
def delete_snapshot(context: Context, names: tuple[str, ...]) -> Reply:
    system = context.system
    return delete_images(system, [system.snapshot(each) for each in names], "Snapshot")


def _check_resettable(context: Context, snapshot: str) -> None:
    check_resettable(context.system, context.system.snapshot(snapshot))


def _reset_question(context: Context, snapshot: str) -> str:
    found = context.system.snapshot(snapshot)
    parent = parent_of(found)
    return (
        f"Reset snapshot {found.image.name} to the current content of volume {parent.image.name}? All data on the "
        "snapshot will be lost. Unmount it on all hosts first."
    )


@COMMANDS.command(
    "reset snapshot",
    "Replaces a snapshot's content with its volume's current content. Its name and maps are kept.",
    positional("snapshot", values.reference("snapshot"), "Name of the snapshot."),
    confirmation=_reset_question,
    acceptance=_check_resettable,
)
def reset_snapshot(context: Context, snapshot: str) -> Reply:
    found = context.system.snapshot(snapshot)
    parent = parent_of(found)
    replace_content(found, parent)
    message = f"Snapshot {found.image.name} was reset to the current content of volume {parent.image.name}."
    context.system.events.report(VOLUME_CHANGED, message)
    return Reply(message)


@COMMANDS.command(
    "show snapshots",
    "Lists snapshots.",
    keyword("pool", values.reference("pool"), "Lists only snapshots in this pool."),
    keyword("volume", values.reference("volume", "snapshot"), "Lists only snapshots of this volume or snapshot."),
    positional("names", values.references("snapshot"), "Names of the snapshots to list. Default: all.", required=False),
    role=Role.MONITOR,
    returns=(SNAPSHOT,),
)
def show_snapshots(
    context: Context, names: tuple[str, ...] | None = None, pool: str | None = None, volume: str | None = None
) -> Reply:
    system = context.system
    found = system.chosen(names, "snapshot")
    if pool is not None:
        where = system.pool(pool)
        found = [each for each in found if each.pool is where]
    if volume is not None:
        parent_id = system.image(volume).image.id
        found = [each for each in found if each.image.parent_id == parent_id]
    return Reply(rows=snapshot_rows(system, found))
