"""The types of objects that more than one subject answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from offsite.management.command_table.reply import Kind, ObjectType, Property, Row, row
from offsite.management.system import Found, System
from offsite.pools import retention

VOLUME = ObjectType(
    "volumes",
    "volume",
    (
        Property("volume-name", "Name"),
        Property("storage-pool-name", "Pool"),
        Property("volume-type", "Type"),
        Property("size", "Size", Kind.SIZE),
        Property("allocated-size", "Allocated", Kind.SIZE),
        Property("volume-parent-name", "Snapshot of"),
        Property("volume-group-name", "Group"),
        Property("cs-replication-role", "Replication"),
        Property("replication-set"),
        Property("creation-date-time", "Created", Kind.TIME),
        Property("serial-number"),
        Property("volume-parent"),
        Property("volume-group"),  # as ME4 has it: a word for those in no group
    ),
)
UNGROUPED = "UNGROUPEDVOLUMES"

SNAPSHOT = ObjectType(
    "snapshots",
    "snapshot",
    (
        Property("name", "Name"),
        Property("storage-pool-name", "Pool"),
        Property("master-volume-name", "Snapshot of"),
        Property("creation-date-time", "Created", Kind.TIME),
        Property("total-size", "Size", Kind.SIZE),
        Property("snap-data", "Data", Kind.SIZE),
        Property("retention-priority", "Retention"),
        Property("serial-number"),
        Property("volume-parent"),
    ),
)


def volume_rows(system: System, found: Sequence[Found]) -> tuple[Row, ...]:
    parents, roles = _names(system), system.replication_roles()
    groups = {image_id: group.name for group in system.groups.all() for image_id in group.image_ids}
    return tuple(_volume_row(each, parents, roles, groups.get(each.image.id, "")) for each in found)


def _volume_row(
    found: Found, parents: Mapping[int | None, tuple[str, str]], roles: Mapping[int, tuple[str, str]], group: str
) -> Row:
    image = found.image
    parent_name, parent_uuid = parents.get(image.parent_id, ("", ""))
    role, set_name = roles.get(image.id, ("", ""))
    return row(
        VOLUME,
        {
            "volume-name": image.name,
            "storage-pool-name": found.pool.name,
            "volume-type": "base" if image.kind == "volume" else image.kind,
            "size": image.size_bytes,
            "allocated-size": image.allocated_bytes,
            "volume-parent-name": parent_name,
            "volume-group-name": group,
            "cs-replication-role": role,
            "replication-set": set_name,
            "creation-date-time": image.created_at,
            "serial-number": image.uuid,
            "volume-parent": parent_uuid,
            "volume-group": group or UNGROUPED,
        },
    )


def snapshot_rows(system: System, found: Sequence[Found]) -> tuple[Row, ...]:
    parents = _names(system)
    with system.database.read() as connection:
        priorities = retention.priorities(connection)
    return tuple(_snapshot_row(each, parents, priorities.get(each.image.id, retention.NEVER_DELETE)) for each in found)


def _snapshot_row(found: Found, parents: Mapping[int | None, tuple[str, str]], priority: str) -> Row:
    image = found.image
    parent_name, parent_uuid = parents.get(image.parent_id, ("", ""))
    return row(
        SNAPSHOT,
        {
            "name": image.name,
            "storage-pool-name": found.pool.name,
            "master-volume-name": parent_name,
            "creation-date-time": image.created_at,
            "total-size": image.size_bytes,
            "snap-data": image.allocated_bytes,
            "retention-priority": priority,
            "serial-number": image.uuid,
            "volume-parent": parent_uuid,
        },
    )


def _names(system: System) -> dict[int | None, tuple[str, str]]:
    """Name and serial number of each volume and snapshot, by its id, which is unique in the system."""
    return {each.image.id: (each.image.name, each.image.uuid) for each in system.images()}
