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


@COMMANDS.command(
    "create volume-group",
    f"Makes a volume group: up to {MEMBERS_MAX} volumes and snapshots of one pool that are snapshotted at one instant, "
    "mapped and replicated together.",
    keyword("volumes", MEMBERS, "Its first members; more can be added later."),
    positional("name", values.name("volume group"), "Its name, which no volume or snapshot may have.", named=True),
    examples=("create volume-group volumes Sales,Accounts Books",),
    returns=(VOLUME_GROUP,),
)
def create_volume_group(context: Context, name: str, volumes: tuple[str, ...] = ()) -> Reply:
    system = context.system
    found = _joining(system, volumes)
    group = system.groups.create(name, _ids(found))
    message = f"Volume group {name} was created with {_listed(found) or 'no volumes'}."
    system.events.report(VOLUME_GROUP_CREATED, message)
    return Reply(message, _rows(system, [group]))


@COMMANDS.command(
    "set volume-group",
    "Gives a volume group another name. That of a secondary volume group stays as it is.",
    keyword("name", values.name("volume group"), "The new name.", required=True),
    positional("group", values.reference("volume group"), "The group, by its present name."),
    examples=("set volume-group name Ledgers Books",),
)
def set_volume_group(context: Context, name: str, group: str) -> Reply:
    system = context.system
    found = system.groups.get(group)
    with system.database.transaction():
        role, set_name = system.group_roles().get(found.id, ("", ""))
        if role == "secondary":
            raise NotAllowed(
                f"volume group {found.name} is the secondary volume group of replication set {set_name} and cannot be "
                "renamed; delete the set first"
            )
        system.groups.rename(found.uuid, name)
    system.replication.volumes_renamed()
    message = f"Volume group {found.name} is called {name} now."
    system.events.report(VOLUME_GROUP_CHANGED, message)
    return Reply(message)


@COMMANDS.command(
    "add volume-group-members",
    "Adds volumes to a group. Refused while the group is in a replication set.",
    keyword("volumes", MEMBERS, "Volumes and snapshots that are in no group.", required=True),
    positional("group", values.reference("volume group"), "The group."),
    examples=("add volume-group-members volumes Taxes Books",),
    returns=(VOLUME_GROUP,),
)
def add_volume_group_members(context: Context, volumes: tuple[str, ...], group: str) -> Reply:
    system = context.system
    found, members = system.groups.get(group), _joining(system, volumes)
    with system.database.transaction():  # so that no replication set is made of it meanwhile
        system.check_group_free(found)
        system.groups.add(found.uuid, _ids(members))
    return _changed(system, found, f"Volume group {found.name} has {_listed(members)} as well now.")


def _joining(system: System, names: Sequence[str]) -> list[Found]:
    """Raises VolumeNotFound, and NotAllowed for a secondary volume: whose it is, is up to its set."""
    found = [system.image(each) for each in names]
    for each in found:
        system.check_not_secondary(each, "put in a volume group")
    return found


@COMMANDS.command(
    "remove volume-group-members",
    "Takes volumes out of a group; they stay. Refused while the group is in a replication set.",
    keyword("volumes", MEMBERS, "Members of the group.", required=True),
    positional("group", values.reference("volume group"), "The group."),
    examples=("remove volume-group-members volumes Taxes Books",),
    returns=(VOLUME_GROUP,),
)
def remove_volume_group_members(context: Context, volumes: tuple[str, ...], group: str) -> Reply:
    system = context.system
    found, members = system.groups.get(group), [system.image(each) for each in volumes]
    with system.database.transaction():
        system.check_group_free(found)
        system.groups.remove(found.uuid, _ids(members))
    return _changed(system, found, f"Volume group {found.name} is without {_listed(members)} now.")


def _delete_question(context: Context, names: tuple[str, ...], delete_volumes: bool) -> str:
    system = context.system
    found = _deletable(system, names, delete_volumes)
    listed = ", ".join(each.name for each in found)
    members = [member for each in found for member in system.members(each)]
    if not delete_volumes or not members:
        return f"Delete volume group{'s' if len(found) > 1 else ''} {listed}? Volumes in a group stay."
    written = ", ".join(f"{each.image.name} ({format_size(each.image.allocated_bytes)} written)" for each in members)
    return (
        f"Delete volume group{'s' if len(found) > 1 else ''} {listed} with {written}? What is on these volumes will be "
        f"lost, and hosts that use them get errors.{system.tasks_that_go(each.image.id for each in members)}"
    )


@COMMANDS.command(
    "delete volume-groups",
    "Deletes volume groups, alone or with their volumes. Refused while a group is in a replication set.",
    keyword("delete-volumes", values.boolean(), "Whether the volumes go as well.", default=False),
    positional("names", values.references("volume group", or_all=True), "The groups, or all."),
    confirmation=_delete_question,
    examples=("delete volume-groups Books", "delete volume-groups delete-volumes yes Books"),
)
def delete_volume_groups(context: Context, names: tuple[str, ...], delete_volumes: bool) -> Reply:
    system = context.system
    found = _deletable(system, names, delete_volumes)
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


def _deletable(system: System, names: tuple[str, ...], delete_volumes: bool) -> list[Group]:
    """The groups of these names. Raises ObjectNotFound, or InUse when replication needs one, or a volume of it."""
    every = names == ALL and system.groups.find(ALL[0]) is None
    found = system.groups.all() if every else [system.groups.get(each) for each in names]
    if not found:
        raise ObjectNotFound("there are no volume groups; there is nothing to delete")
    for each in found:
        system.check_group_free(each)
        for member in system.members(each) if delete_volumes else ():
            system.check_deletable(member)
    return found


def _delete_with_volumes(system: System, group: Group) -> None:
    members = system.members(group)
    doomed = [each.image for each in members]
    delete_from_pool(
        system, members[0].pool, doomed, "Volume", lambda connection, _: delete_group(connection, group.id)
    )


@COMMANDS.command(
    "show volume-groups",
    "Lists volume groups and what is in them.",
    positional("names", values.references("volume group"), "Only these.", required=False),
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
