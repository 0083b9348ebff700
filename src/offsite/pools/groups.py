"""Volume groups: up to 16 volumes and snapshots of one pool, whose snapshots are taken at one instant.

Groups, volumes and snapshots share one name space, so that a command may name either. Which groups
replication needs as they are is not known here: whoever changes a group asks that first.

The functions work within the transaction of the connection that they are given, so that a group and what it is
made for come to be together.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from offsite.errors import BadParameter, InUse, LimitReached, NameInUse, ObjectNotFound, VolumeNotFound
from offsite.names import check_name
from offsite.pools.tables import images, pools, volume_group_members, volume_groups
from offsite.store.database import Database

MEMBERS_MAX = 16  # as on ME4
GROUPS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Group:
    id: int
    uuid: str
    name: str
    created_at: float  # seconds since the epoch
    image_ids: tuple[int, ...]  # by rising id


class Groups:
    """The volume groups of a system, found by name or serial number. Safe to use from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, image_ids: Sequence[int] = ()) -> Group:
        """Raises what `insert_group` raises."""
        with self._database.transaction() as connection:
            insert_group(connection, name, image_ids)
            return _get(connection, name)

    def rename(self, name: str, new_name: str) -> None:
        """Raises ObjectNotFound, BadParameter for a name outside the rules, NameInUse."""
        with self._database.transaction() as connection:
            group = _get(connection, name)
            _check_new_name(connection, new_name)
            connection.execute(update(volume_groups).where(volume_groups.c.id == group.id).values(name=new_name))

    def add(self, name: str, image_ids: Sequence[int]) -> None:
        """Raises ObjectNotFound, or what `add_members` raises."""
        with self._database.transaction() as connection:
            add_members(connection, _get(connection, name), image_ids)

    def check_members(self, image_ids: Sequence[int], name: str | None = None) -> None:
        """Whether these could join the group of this name, or a new one. Raises what `add_members` raises."""
        with self._database.read() as connection:
            check_members(connection, None if name is None else _get(connection, name), image_ids)

    def remove(self, name: str, image_ids: Sequence[int]) -> None:
        """Raises ObjectNotFound, or VolumeNotFound for what is not in the group."""
        with self._database.transaction() as connection:
            group = _get(connection, name)
            for image_id in image_ids:
                where = (volume_group_members.c.group_id == group.id) & (volume_group_members.c.image_id == image_id)
                if connection.execute(delete(volume_group_members).where(where)).rowcount == 0:
                    raise VolumeNotFound(f"{_image_name(connection, image_id)} is not in volume group {group.name}")

    def delete(self, name: str) -> None:
        """Its volumes stay. Raises ObjectNotFound."""
        with self._database.transaction() as connection:
            delete_group(connection, _get(connection, name).id)

    def all(self) -> list[Group]:
        """By name."""
        with self._database.read() as connection:
            return all_groups(connection)

    def get(self, name: str) -> Group:
        """Raises ObjectNotFound."""
        with self._database.read() as connection:
            return _get(connection, name)

    def find(self, name: str) -> Group | None:
        with self._database.read() as connection:
            return look_up(connection, name)


def insert_group(
    connection: Connection, name: str, image_ids: Sequence[int] = (), created_at: float | None = None
) -> int:
    """Makes a group with these members, at `created_at` (seconds since the epoch) or now; returns its id.

    Raises BadParameter for a name outside the rules, NameInUse when a group, volume or snapshot has it, LimitReached
    for one group too many, and what `add_members` raises.
    """
    _check_new_name(connection, name)
    if connection.execute(select(func.count()).select_from(volume_groups)).scalar_one() >= GROUPS_MAX:
        raise LimitReached(f"there are {GROUPS_MAX} volume groups already, which is the maximum; delete one first")
    values = {
        "uuid": uuid.uuid4().hex,
        "name": name,
        "created_at": time.time() if created_at is None else created_at,
    }
    connection.execute(insert(volume_groups).values(values))
    group = _get(connection, name)
    add_members(connection, group, image_ids)
    return group.id


def add_members(connection: Connection, group: Group, image_ids: Sequence[int]) -> None:
    """Raises BadParameter for more than 16 members, for members of two pools, or for one that is listed twice;
    VolumeNotFound for what is no volume or snapshot; InUse for one that is in a group already."""
    check_members(connection, group, image_ids)
    for image_id in image_ids:
        connection.execute(insert(volume_group_members).values(image_id=image_id, group_id=group.id))


def check_members(connection: Connection, group: Group | None, image_ids: Sequence[int]) -> None:
    """Whether these could join this group, or a new one. Raises what `add_members` raises."""
    present = () if group is None else group.image_ids
    count = len(present) + max(1, len(image_ids))  # who asks whether some could join names none yet
    if group is not None and count > MEMBERS_MAX:
        raise BadParameter(f"volume group {group.name} would have {count} members; at most {MEMBERS_MAX} are allowed")
    other: tuple[str, str] | None = None
    for image_id in (*present[:1], *image_ids):
        other = _checked(connection, image_id, other)
    for position, image_id in enumerate(image_ids):
        _check_in_no_group(connection, image_id)
        if image_id in image_ids[:position]:
            raise BadParameter(f"{_image_name(connection, image_id)} is listed twice; once is enough")


def find_group(connection: Connection, name: str) -> Group | None:
    """The group of this name."""
    return _one(connection, volume_groups.c.name == name)


def look_up(connection: Connection, name: str) -> Group | None:
    """The group of this name or serial number."""
    return find_group(connection, name) or _one(connection, volume_groups.c.uuid == name.lower())


def group_of(connection: Connection, image_id: int) -> Group | None:
    """The group that an image is in."""
    of = select(volume_group_members.c.group_id).where(volume_group_members.c.image_id == image_id)
    return _one(connection, volume_groups.c.id.in_(of))


def group_name(connection: Connection, group_id: int | None) -> str | None:
    """None for a group that is not there."""
    return connection.execute(select(volume_groups.c.name).where(volume_groups.c.id == group_id)).scalar()


def members(connection: Connection, group_id: int) -> tuple[int, ...]:
    """Ids of its images, rising."""
    table = volume_group_members
    chosen = select(table.c.image_id).where(table.c.group_id == group_id).order_by(table.c.image_id)
    return tuple(connection.execute(chosen).scalars())


def all_groups(connection: Connection) -> list[Group]:
    """By name."""
    table = volume_group_members
    image_ids: dict[int, list[int]] = {}
    for row in connection.execute(select(table).order_by(table.c.image_id)):
        image_ids.setdefault(row.group_id, []).append(row.image_id)
    rows = connection.execute(select(volume_groups).order_by(volume_groups.c.name)).mappings()
    return [Group(**row, image_ids=tuple(image_ids.get(row["id"], ()))) for row in rows]


def delete_group(connection: Connection, group_id: int) -> None:
    """Its volumes stay. A group that is not there has been deleted."""
    connection.execute(delete(volume_groups).where(volume_groups.c.id == group_id))


def _get(connection: Connection, name: str) -> Group:
    group = look_up(connection, name)
    if group is None:
        raise ObjectNotFound(f"volume group {name!r} does not exist; `show volume-groups` lists the existing ones")
    return group


def _one(connection: Connection, where: ColumnElement[bool]) -> Group | None:
    row = connection.execute(select(volume_groups).where(where)).mappings().first()
    return None if row is None else Group(**row, image_ids=members(connection, row["id"]))


def _check_new_name(connection: Connection, name: str) -> None:
    check_name(name, "volume group name")
    if find_group(connection, name) is not None:
        raise NameInUse(f"volume group {name!r} exists already; choose another name")
    if connection.execute(select(images.c.id).where(images.c.name == name)).first() is not None:
        raise NameInUse(f"the name {name!r} is in use by a volume or snapshot; choose another name")


def _checked(connection: Connection, image_id: int, other: tuple[str, str] | None) -> tuple[str, str]:
    """Names of a volume or snapshot and of its pool, which has to be that of the `other`."""
    chosen = select(images.c.name, images.c.kind, pools.c.name.label("pool")).join(pools).where(images.c.id == image_id)
    row = connection.execute(chosen).first()
    if row is None or row.kind == "internal":
        raise VolumeNotFound(f"image {image_id} is not a volume or snapshot and cannot be in a volume group")
    if other is not None and row.pool != other[1]:
        raise BadParameter(
            f"volume {other[0]} is in pool {other[1]} and {row.name} in pool {row.pool}; a volume group requires "
            "volumes of one pool"
        )
    return row.name, row.pool


def _check_in_no_group(connection: Connection, image_id: int) -> None:
    present = group_of(connection, image_id)
    if present is not None:
        name = _image_name(connection, image_id)
        raise InUse(f"{name} is in volume group {present.name} already; a volume can be in one group only")


def _image_name(connection: Connection, image_id: int) -> str:
    name = connection.execute(select(images.c.name).where(images.c.id == image_id)).scalar()
    return f"image {image_id}" if name is None else f"volume {name}"
