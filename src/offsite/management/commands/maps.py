"""Who may use what: maps, initiators and their certificates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offsite.access.maps import Initiator, Map
from offsite.access.nicknames import delete_nickname as remove_nickname
from offsite.access.nicknames import set_nickname
from offsite.errors import MapNotFound
from offsite.events import MAP_CHANGED
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Role, Subject, keyword, positional
from offsite.management.command_table.object_types import ObjectType, Row
from offsite.management.command_table.reply import Reply
from offsite.management.commands.enumerations import ACCESS as ACCESS_CODES
from offsite.management.commands.mapping import make_maps, resolve_initiators
from offsite.management.commands.volumes import ACCESS, LUN
from offsite.management.system import Context, Found, System

COMMANDS = Subject("Maps and initiators")


@dataclass(frozen=True, slots=True)
class MappingView:
    map: Map
    nickname: str


@dataclass(frozen=True, slots=True)
class InitiatorView:
    initiator: Initiator
    is_mapped: bool


VOLUME_VIEW = ObjectType[Found](
    "volume-view",
    "volume-view",
    (
        properties.text(
            "volume-name", lambda found: found.image.name, "Volume", key=True, of_type="volumes", display_name="Name"
        ),
        properties.text("volume-serial", lambda found: found.image.uuid),
    ),
)
MAPPING = ObjectType[MappingView](
    "volume-view-mappings",
    "host-view",
    (
        properties.text("identifier", lambda view: view.map.initiator or EVERYONE, "Initiator"),
        properties.text("nickname", lambda view: view.nickname, "Nickname"),
        properties.enumeration("access", ACCESS_CODES, lambda view: view.map.access, "Access"),
        properties.text(
            "lun", lambda view: "" if view.map.lun is None else str(view.map.lun), "LUN", display_name="LUN"
        ),
    ),
    joined=True,
)
INITIATOR = ObjectType[InitiatorView](
    "initiator",
    "initiator",
    (
        properties.text("id", lambda view: view.initiator.id, "Initiator", key=True, display_name="ID"),
        properties.text("nickname", lambda view: view.initiator.nickname or "", "Nickname"),
        properties.time("last-seen", lambda view: view.initiator.last_seen_at, "Last seen"),
        properties.yes_no("mapped", lambda view: view.is_mapped, "Mapped"),
    ),
)
EVERYONE = "all other initiators"  # ME4's words for the default map
MAPPED = "Names of volumes, snapshots or volume groups. A group stands for its members."
MAPPABLE = values.references("volume", "snapshot", "volume group")


def _check_mappable(context: Context, names: tuple[str, ...], **_: object) -> None:
    for each in context.system.images_or_members(names):
        context.system.check_not_secondary(each, "mapped")


@COMMANDS.command(
    "map volume",
    "Maps volumes or snapshots to initiators. Without an initiator, sets the default map, which applies to all "
    "initiators without a map of their own.",
    keyword("access", ACCESS, "Access of the initiators.", default="read-write"),
    keyword("initiator", values.references("initiator"), "Nicknames or ids of the initiators. Default: all."),
    keyword("lun", LUN, "LUN of the first volume. Further volumes get the LUNs after it."),
    positional("names", MAPPABLE, MAPPED),
    examples=("map volume Sales", "map volume initiator tls:web1 access read-only lun 1 Sales-Monday"),
    returns=(VOLUME_VIEW,),
    acceptance=_check_mappable,
)
def map_volume(
    context: Context,
    names: tuple[str, ...],
    access: str,
    initiator: tuple[str, ...] | None = None,
    lun: int | None = None,
) -> Reply:
    system = context.system
    found = system.images_or_members(names)
    initiators = resolve_initiators(system, initiator)
    make_maps(system, [each.image.id for each in found], initiators, access, lun)
    for target in system.targets:
        target.recheck()
    whom = ", ".join(each or "everyone" for each in initiators)
    message = f"{_listed(found)} mapped to {whom} with access {access}."
    system.events.report(MAP_CHANGED, message)
    return Reply(message, _view(system, found))


def _check_mapped(context: Context, names: tuple[str, ...], initiator: tuple[str, ...] | None = None) -> None:
    """Whether these are mapped to anyone: from whom they go is not known yet when somebody only asks."""
    system = context.system
    found, whom = system.images_or_members(names), resolve_initiators(system, initiator)
    mapped = {each.image_id for each in system.maps.maps()}
    for each in found:
        if each.image.id not in mapped:
            raise _not_mapped(each, whom[0])


def _not_mapped(found: Found, initiator: str | None) -> MapNotFound:
    name = found.image.name
    return MapNotFound(f"volume {name} is not mapped to {initiator or 'everyone'}; `show maps {name}` lists its maps")


@COMMANDS.command(
    "unmap volume",
    "Unmaps volumes from initiators and disconnects them. Without an initiator, removes the default map.",
    keyword(
        "initiator", values.references("initiator"), "Nicknames or ids of the initiators. Default: the default map."
    ),
    positional("names", MAPPABLE, MAPPED),
    examples=("unmap volume Sales",),
    acceptance=_check_mapped,
    errors=(MapNotFound,),
)
def unmap_volume(context: Context, names: tuple[str, ...], initiator: tuple[str, ...] | None = None) -> Reply:
    system = context.system
    found = system.images_or_members(names)
    initiators = resolve_initiators(system, initiator)
    there = {(each.image_id, each.initiator) for each in system.maps.maps()}
    for each in found:
        for one in initiators:
            if (each.image.id, one or "") not in there:
                raise _not_mapped(each, one)
    with system.database.transaction():
        for each in found:
            for one in initiators:
                system.maps.unmap(each.image.id, one)
    for target in system.targets:
        target.recheck()
    message = f"{_listed(found)} unmapped from {', '.join(each or 'everyone' for each in initiators)}."
    system.events.report(MAP_CHANGED, message)
    return Reply(message)


@COMMANDS.command(
    "show maps",
    "Lists volumes and the initiators that they are mapped to.",
    positional("names", MAPPABLE, "Names of the volumes, snapshots or volume groups. Default: all.", required=False),
    role=Role.MONITOR,
    returns=(VOLUME_VIEW,),
)
def show_maps(context: Context, names: tuple[str, ...] | None = None) -> Reply:
    system = context.system
    return Reply(rows=_view(system, system.images() if names is None else system.images_or_members(names)))


def _view(system: System, found: Sequence[Found]) -> tuple[Row, ...]:
    nicknames = {each.id: each.nickname or "" for each in system.maps.initiators()}
    by_image: dict[int, list[Row]] = {}
    for each in system.maps.maps():
        mapping = MAPPING.row(MappingView(each, nicknames.get(each.initiator, "")))
        by_image.setdefault(each.image_id, []).append(mapping)
    return tuple(VOLUME_VIEW.row(each, by_image[each.image.id]) for each in found if each.image.id in by_image)


@COMMANDS.command(
    "show initiators",
    "Lists the initiators that have connected or have a nickname.",
    role=Role.MONITOR,
    returns=(INITIATOR,),
)
def show_initiators(context: Context) -> Reply:
    maps = context.system.maps
    mapped = {each.initiator for each in maps.maps()}
    return Reply(rows=tuple(INITIATOR.row(InitiatorView(each, each.id in mapped)) for each in maps.initiators()))


@COMMANDS.command(
    "set initiator",
    "Sets the nickname of an initiator. Other commands accept it in place of the id.",
    keyword("id", values.reference("initiator"), "Id of the initiator: tls:NAME or nbd:ADDRESS.", required=True),
    keyword("nickname", values.name("initiator"), "New nickname.", required=True),
    examples=("set initiator id nbd:192.0.2.7 nickname web1",),
    acts_on=("id",),
)
def set_initiator(context: Context, id: str, nickname: str) -> Reply:
    (initiator,) = resolve_initiators(context.system, [id])
    assert initiator is not None
    set_nickname(context.system.database, initiator, nickname)
    return Reply(f"The nickname of initiator {initiator} was set to {nickname}.")


@COMMANDS.command(
    "delete initiator-nickname",
    "Deletes the nickname of an initiator. Its maps are kept.",
    positional("nickname", values.reference("nickname"), "Nickname to delete."),
)
def delete_initiator_nickname(context: Context, nickname: str) -> Reply:
    system = context.system
    initiator = next((each.id for each in system.maps.initiators() if each.nickname == nickname), "")
    remove_nickname(system.database, nickname)
    name = initiator.removeprefix("tls:")
    good = [each for each in system.certificates.all(name) if each.revoked_at is None] if name != initiator else []
    still = f" Its certificates remain valid; `revoke initiator-certificate initiator {initiator}` revokes them."
    return Reply(f"Nickname {nickname} was deleted.{still if good else ''}")


def _listed(found: Sequence[Found]) -> str:
    return f"Volume{'s' if len(found) > 1 else ''} {', '.join(each.image.name for each in found)}"
