"""In which order snapshots may be deleted by themselves when space for them is short (ME4's retention priority).

Those of low priority go first, medium after all of low, high after all of medium; never-delete, which is what a
snapshot without a record has, never.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from offsite.errors import BadParameter
from offsite.pools.tables import snapshot_retention as table

PRIORITIES = ("never-delete", "low", "medium", "high")
NEVER_DELETE = PRIORITIES[0]


def set_priority(connection: Connection, image_id: int, priority: str) -> None:
    """Within the transaction of `connection`. Raises BadParameter for what is no priority."""
    if priority not in PRIORITIES:
        raise BadParameter(f"retention priority {priority!r} is not one of {', '.join(PRIORITIES)}")
    if priority == NEVER_DELETE:
        connection.execute(delete(table).where(table.c.image_id == image_id))
        return
    statement = insert(table).values(image_id=image_id, priority=priority)
    connection.execute(statement.on_conflict_do_update(index_elements=["image_id"], set_={"priority": priority}))


def priorities(connection: Connection) -> dict[int, str]:
    """The priorities of all snapshots that may be deleted, by their ids."""
    return {row.image_id: row.priority for row in connection.execute(select(table))}
