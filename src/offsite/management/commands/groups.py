"""Volume groups: create, rename, add and remove members, delete, show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offsite.errors import NotAllowed, ObjectNotFound
from offsite.events import VOLUME_GROUP_CHANGED, VOLUME_GROUP_CREATED, VOLUME_GROUP_DELETED
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Role, Subject, keyword, positional
from offsite.management.command_table.object_types import ObjectType, Row
from offsite.management.command_table.reply import Reply
from offsite.management.commands.objects import volume_rows
from offsite.management.images.changes import delete_from_pool
from offsite.management.system import Context, Found, System
from offsite.pools.groups import MEMBERS_MAX, Group, delete_group
from offsite.units import format_size

COMMANDS = Subject("Volume groups")


@dataclass(frozen=True, slots=True)
class GroupView:
    group: Group
    members: Sequence[Found]
    role: str
    set_name: str


VOLUME_GROUP = ObjectType[GroupView](
    "volume-groups",
    "volume-group",
    (
        properties.text("group-name", lambda view: view.group.name, "Name", key=True, display_name="Name"),
        properties.text(
            "storage-pool-name",
            lambda view: view.members[0].pool.name if view.members else "",
            "Pool",
            of_type="pools",
            display_name="Pool",
        ),
        properties.number("member-count", lambda view: len(view.members), "Members"),
        properties.text("volume-names", lambda view: _listed(view.members), "Volumes"),
        properties.text("cs-replication-role", lambda view: view.role, "Replication"),
        properties.text("replication-set", lambda view: view.set_name, of_type="replication-sets"),
        properties.time(
            "creation-date-time", lambda view: view.group.created_at, "Created", display_name="Creation Date/Time"
        ),
        properties.text("serial-number", lambda view: view.group.uuid),
    ),
)
MEMBERS = values.references("volume", "snapshot", list_max=MEMBERS_MAX)
ALL = ("all",)


def _check_joining(context: Context, volumes: tuple[str, ...] = (), group: str | None = None, **_: object) -> None:
    """Whether these could join the group, or a new one. Raises NotAllowed for a secondary volume: whose it is, is up to
    its set."""
    system = context.system
    into = None if group is None else system.groups.get(group)
    found = [system.image(each) for each in volumes]
    for each in found:
        system.check_not_secondary(each, "put in a volume group")
    if into is not None:
        system.check_group_free(into)
    system.groups.check_members(_ids(found), None if into is None else into.uuid)


@COMMANDS.command(
    "create volume-group",
    f"Creates a volume group: up to {MEMBERS_MAX} volumes and snapshots of one pool whose snapshots are taken at one "
    "instant, and which are mapped and replicated together.",
    keyword("volumes", MEMBERS, "Names of the first members. More can be added later."),
    positional(
        "name",
        values.name("volume group"),
        "Name of the new group. No volume or snapshot may have the same name.",
        named=True,
    ),
    examples=("create volume-group volumes Sales,Accounts Books",),
    returns=(VOLUME_GROUP,),
    acts_on=("volumes",),
    acceptance=_check_joining,
)
def create_volume_group(context: Context, name: str, volumes: tuple[str, ...] = ()) -> Reply:
    system = context.system
    found = [system.image(each) for each in volumes]
    group = system.groups.create(name, _ids(found))
    message = f"Volume group {name} was created with {_listed(found) or 'no volumes'}."
    system.events.report(VOLUME_GROUP_CREATED, message)
    return Reply(message, _rows(system, [group]))


def _check_renamable(context: Context, group: str, **_: object) -> None:
    found = context.system.groups.get(group)
    role, set_name = context.system.group_roles().get(found.id, ("", ""))
    if role == "secondary":
        raise NotAllowed(
            f"volume group {found.name} is the secondary volume group of replication set {set_name} and cannot be "
            "renamed; delete the set first"
        )


@COMMANDS.command(
    "set volume-group",
    "Renames a volume group. A secondary volume group cannot be renamed.",
    keyword("name", values.name("volume group"), "New name of the group.", required=True),
    positional("group", values.reference("volume group"), "Current name of the group."),
    examples=("set volume-group name Ledgers Books",),
    acceptance=_check_renamable,
)
def set_volume_group(context: Context, name: str, group: str) -> Reply:
    system = context.system
    found = system.groups.get(group)
    with system.database.transaction():
        _check_renamable(context, found.uuid)
        system.groups.rename(found.uuid, name)
    system.replication.volumes_renamed()
    message = f"Volume group {found.name} was renamed to {name}."
    system.events.report(VOLUME_GROUP_CHANGED, message)
    return Reply(message)


@COMMANDS.command(
    "add volume-group-members",
    "Adds volumes to a volume group. Refused while the group is in a replication set.",
    keyword("volumes", MEMBERS, "Names of volumes and snapshots that are in no group.", required=True),
    positional("group", values.reference("volume group"), "Name of the volume group."),
    examples=("add volume-group-members volumes Taxes Books",),
    returns=(VOLUME_GROUP,),
    acts_on=("volumes", "group"),
    acceptance=_check_joining,
)
def add_volume_group_members(context: Context, volumes: tuple[str, ...], group: str) -> Reply:
    system = context.system
    found, members = system.groups.get(group), [system.image(each) for each in volumes]
    with system.database.transaction():  # so that no replication set is made of it meanwhile
        system.check_group_free(found)
        system.groups.add(found.uuid, _ids(members))
    return _changed(system, found, f"Volume group {found.name}: added {_listed(members)}.")


def _check_free(context: Context, group: str, **_: object) -> None:
    context.system.check_group_free(context.system.groups.get(group))


@COMMANDS.command(
    "remove volume-group-members",
    "Removes volumes from a volume group without deleting them. Refused while the group is in a replication set.",
    keyword("volumes", MEMBERS, "Names of the members to remove.", required=True),
    positional("group", values.reference("volume group"), "Name of the volume group."),
    examples=("remove volume-group-members volumes Taxes Books",),
    returns=(VOLUME_GROUP,),
    acceptance=_check_free,
)
def remove_volume_group_members(context: Context, volumes: tuple[str, ...], group: str) -> Reply:
    system = context.system
    found, members = system.groups.get(group), [system.image(each) for each in volumes]
    with system.database.transaction():
        system.check_group_free(found)
        system.groups.remove(found.uuid, _ids(members))
    return _changed(system, found, f"Volume group {found.name}: removed {_listed(members)}.")


def _check_deletable(context: Context, names: tuple[str, ...], delete_volumes: bool = False) -> None:
    """Raises ObjectNotFound, or InUse when replication needs a group, or a volume that is to go with it."""
    system = context.system
    for each in _chosen(system, names):
        system.check_group_free(each)
        for member in system.members(each) if delete_volumes else ():
            system.check_deletable(member)


def _delete_question(context: Context, names: tuple[str, ...], delete_volumes: bool) -> str:
    system = context.system
    found = _chosen(system, names)
    listed = ", ".join(each.name for each in found)
    members = [member for each in found for member in system.members(each)]
    if not delete_volumes or not members:
        return f"Delete volume group{'s' if len(found) > 1 else ''} {listed}? Its volumes are kept."
    written = ", ".join(f"{each.image.name} ({format_size(each.image.allocated_bytes)} written)" for each in members)
    return (
        f"Delete volume group{'s' if len(found) > 1 else ''} {listed} with {written}? All data on these volumes "
        "will be lost, and hosts that use them will get errors."
        f"{system.tasks_that_go(each.image.id for each in members)}"
    )


@COMMANDS.command(
    "delete volume-groups",
    "Deletes volume groups, with or without their volumes. Refused while a group is in a replication set.",
    keyword("delete-volumes", values.boolean(), "Whether to delete the volumes as well.", default=False),
    positional("names", values.references("volume group", or_all=True), "Names of the groups, or all."),
    confirmation=_delete_question,
    examples=("delete volume-groups Books", "delete volume-groups delete-volumes yes Books"),
    acceptance=_check_deletable,
)
def delete_volume_groups(context: Context, names: tuple[str, ...], delete_volumes: bool) -> Reply:
    system = context.system
    found = _chosen(system, names)
    for each in found:
        if delete_volumes and each.image_ids:
            _delete_with_volumes(system, each)
        else:
            with system.database.transaction():
                system.check_group_free(each)
                system.groups.delete(each.uuid)
        system.events.report(VOLUME_GROUP_DELETED, f"Volume group {each.name} was deleted.")
    listed = ", ".join(each.name for each in found)
    return Reply(f"Volume group{'s' if len(found) > 1 else ''} {listed} deleted. {system.roster.look()}".rstrip())


def _chosen(system: System, names: tuple[str, ...]) -> list[Group]:
    """The groups of these names, or all. Raises ObjectNotFound."""
    every = names == ALL and system.groups.find(ALL[0]) is None
    found = system.groups.all() if every else [system.groups.get(each) for each in names]
    if not found:
        raise ObjectNotFound("there are no volume groups; there is nothing to delete")
    return found


def _delete_with_volumes(system: System, group: Group) -> None:
    members = system.members(group)
    doomed = [each.image for each in members]
    delete_from_pool(
        system, members[0].pool, doomed, "Volume", lambda connection, _: delete_group(connection, group.id)
    )


@COMMANDS.command(
    "show volume-groups",
    "Lists volume groups and their members.",
    positional(
        "names", values.references("volume group"), "Names of the groups to list. Default: all.", required=False
    ),
    role=Role.MONITOR,
    returns=(VOLUME_GROUP,),
)
def show_volume_groups(context: Context, names: tuple[str, ...] | None = None) -> Reply:
    groups = context.system.groups
    return Reply(rows=_rows(context.system, groups.all() if names is None else [groups.get(each) for each in names]))


def _changed(system: System, group: Group, message: str) -> Reply:
    system.events.report(VOLUME_GROUP_CHANGED, message)
    return Reply(message, _rows(system, [system.groups.get(group.uuid)]))


def _rows(system: System, groups: Sequence[Group]) -> tuple[Row, ...]:
    roles = system.group_roles()
    return tuple(_row(system, each, *roles.get(each.id, ("", ""))) for each in groups)


def _row(system: System, group: Group, role: str, set_name: str) -> Row:
    members = system.members(group)
    return VOLUME_GROUP.row(GroupView(group, members, role, set_name), volume_rows(system, members))


def _ids(found: Sequence[Found]) -> list[int]:
    return [each.image.id for each in found]


def _listed(found: Sequence[Found]) -> str:
    return ", ".join(each.image.name for each in found)
