"""The types of objects that more than one subject answers with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offsite.management.command_table import properties
from offsite.management.command_table.object_types import ObjectType, Row
from offsite.management.commands.enumerations import RETENTION_PRIORITY, VOLUME_TYPE
from offsite.management.system import Found, System
from offsite.pools import retention
from offsite.pools.protocol import ImageInfo

UNGROUPED = "UNGROUPEDVOLUMES"  # what ME4 has as the group of a volume in none


@dataclass(frozen=True, slots=True)
class VolumeView:
    """A volume or snapshot, with what is told of it from elsewhere; empty where there is no such thing."""

    pool_name: str
    image: ImageInfo
    parent: ImageInfo | None
    group: str = ""
    role: str = ""
    set_name: str = ""
    retention_priority: str = retention.NEVER_DELETE

    @property
    def parent_name(self) -> str:
        return "" if self.parent is None else self.parent.name

    @property
    def parent_serial(self) -> str:
        return "" if self.parent is None else self.parent.uuid


VOLUME = ObjectType[VolumeView](
    "volumes",
    "volume",
    (
        properties.text("volume-name", lambda view: view.image.name, "Name", key=True, display_name="Name"),
        properties.text("storage-pool-name", lambda view: view.pool_name, "Pool", of_type="pools", display_name="Pool"),
        properties.enumeration(
            "volume-type",
            VOLUME_TYPE,
            lambda view: "base" if view.image.kind == "volume" else view.image.kind,
            "Type",
            display_name="Type",
        ),
        properties.size("size", lambda view: view.image.size_bytes, "Size"),
        properties.size("allocated-size", lambda view: view.image.allocated_bytes, "Allocated"),
        properties.text("volume-parent-name", lambda view: view.parent_name, "Snapshot of", of_type="volumes"),
        properties.text("volume-group-name", lambda view: view.group, "Group", of_type="volume-groups"),
        properties.text("cs-replication-role", lambda view: view.role, "Replication"),
        properties.text("replication-set", lambda view: view.set_name, of_type="replication-sets"),
        properties.time(
            "creation-date-time", lambda view: view.image.created_at, "Created", display_name="Creation Date/Time"
        ),
        properties.text("serial-number", lambda view: view.image.uuid),
        properties.text("volume-parent", lambda view: view.parent_serial),
        properties.text("volume-group", lambda view: view.group or UNGROUPED),
    ),
)

SNAPSHOT = ObjectType[VolumeView](
    "snapshots",
    "snapshot",
    (
        properties.text("name", lambda view: view.image.name, "Name", key=True),
        properties.text("storage-pool-name", lambda view: view.pool_name, "Pool", of_type="pools", display_name="Pool"),
        properties.text("master-volume-name", lambda view: view.parent_name, "Snapshot of", of_type="volumes"),
        properties.time(
            "creation-date-time", lambda view: view.image.created_at, "Created", display_name="Creation Date/Time"
        ),
        properties.size("total-size", lambda view: view.image.size_bytes, "Size"),
        properties.size("snap-data", lambda view: view.image.allocated_bytes, "Data"),
        properties.enumeration(
            "retention-priority", RETENTION_PRIORITY, lambda view: view.retention_priority, "Retention"
        ),
        properties.text("serial-number", lambda view: view.image.uuid),
        properties.text("volume-parent", lambda view: view.parent_serial),
    ),
)


def volume_rows(system: System, found: Sequence[Found]) -> tuple[Row, ...]:
    images, roles = _images(system), system.replication_roles()
    groups = {image_id: group.name for group in system.groups.all() for image_id in group.image_ids}
    return tuple(
        VOLUME.row(
            VolumeView(
                each.pool.name,
                each.image,
                images.get(each.image.parent_id),
                groups.get(each.image.id, ""),
                *roles.get(each.image.id, ("", "")),
            )
        )
        for each in found
    )


def snapshot_rows(system: System, found: Sequence[Found]) -> tuple[Row, ...]:
    images = _images(system)
    with system.database.read() as connection:
        priorities = retention.priorities(connection)
    return tuple(
        SNAPSHOT.row(
            VolumeView(
                each.pool.name,
                each.image,
                images.get(each.image.parent_id),
                retention_priority=priorities.get(each.image.id, retention.NEVER_DELETE),
            )
        )
        for each in found
    )


def _images(system: System) -> dict[int | None, ImageInfo]:
    """Every volume and snapshot by its id, which is unique in the system."""
    return {each.image.id: each.image for each in system.images()}
