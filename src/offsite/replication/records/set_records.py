"""The records of replication sets and their members.

Every function works within the transaction of the connection that it is given, so that a step of a run can be one
transaction with what it does to images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, delete, insert, select, update

from offsite.pools import catalog
from offsite.pools.groups import group_name
from offsite.replication.records.run_states import UNFINISHED
from offsite.replication.records.tables import replication_sets, runs, set_members

Role = Literal["primary", "secondary"]
QueuePolicy = Literal["discard", "queue-latest"]
SnapshotHistory = Literal["disabled", "secondary", "both"]
RetentionPriority = Literal["never-delete", "low", "medium", "high"]


@dataclass(frozen=True)
class MemberRecord:
    image_id: int
    remote_name: str


@dataclass(frozen=True)
class SetRecord:
    id: int
    uuid: str
    name: str
    role: Role
    state: Literal["preparing", "ready"]
    peer_id: int
    remote_pool: str
    generation: int
    created_at: float
    members: tuple[MemberRecord, ...]
    group_id: int | None  # the volume group here that the members are; none: a single volume or snapshot
    remote_group: str | None
    queue_policy: QueuePolicy
    snapshot_history: SnapshotHistory
    snapshot_basename: str | None
    snapshot_count: int | None
    snapshot_retention_priority: RetentionPriority
    next_snapshot_number: int
    suspended: bool  # by a user
    before_snapshot: str | None  # hooks, by the names of their files
    after_snapshot: str | None
    hook_timeout_seconds: int
    minimum_snapshot_count: int  # of the history on this side, set by this system's users
    minimum_snapshot_age_hours: int


def busy_sets(connection: Connection, peer_id: int) -> list[str]:
    """Names of the sets, primary here, that may send to the peer now: a run of theirs has not ended, and nobody has
    suspended them."""
    unfinished = (runs.c.set_id == replication_sets.c.id) & runs.c.state.in_(UNFINISHED)
    chosen = (
        select(replication_sets.c.name)
        .where(replication_sets.c.peer_id == peer_id, replication_sets.c.role == "primary")
        .where(~replication_sets.c.suspended, select(runs.c.id).where(unfinished).exists())
        .order_by(replication_sets.c.name)
    )
    return list(connection.execute(chosen).scalars())


# Asked all the time: to put a statement together anew would take as long as SQLite does.
_ALL_MEMBERS = select(set_members).order_by(set_members.c.position)
_ALL_SETS = select(replication_sets).order_by(replication_sets.c.name)


def all_sets(connection: Connection) -> list[SetRecord]:
    members: dict[int, list[MemberRecord]] = {}
    for row in connection.execute(_ALL_MEMBERS).mappings():
        members.setdefault(row["set_id"], []).append(MemberRecord(row["image_id"], row["remote_name"]))
    rows = connection.execute(_ALL_SETS).mappings()
    return [SetRecord(**row, members=tuple(members.get(row["id"], ()))) for row in rows]


def insert_set(connection: Connection, values: dict[str, Any], members: Sequence[MemberRecord]) -> None:
    set_id = connection.execute(insert(replication_sets).values(values).returning(replication_sets.c.id)).scalar_one()
    for position, member in enumerate(members):
        row = {"set_id": set_id, "position": position}
        connection.execute(insert(set_members).values(**row, image_id=member.image_id, remote_name=member.remote_name))


def update_set(connection: Connection, set_id: int, **values: Any) -> None:
    connection.execute(update(replication_sets).where(replication_sets.c.id == set_id).values(values))


def own_names(connection: Connection, replication_set: SetRecord) -> tuple[str | None, list[str]]:
    """What the set's volume group on this side is called, if it has one, and its volumes, in the order of members; no
    volumes when one is not there, for the set has been deleted meanwhile."""
    names = catalog.image_names(connection, [member.image_id for member in replication_set.members])
    group = group_name(connection, replication_set.group_id)
    found = [names[member.image_id] for member in replication_set.members if member.image_id in names]
    return group, found if len(found) == len(replication_set.members) else []


def update_remote_names(
    connection: Connection, replication_set: SetRecord, group: str | None, names: Sequence[str]
) -> None:
    """What they are called on the other side."""
    update_set(connection, replication_set.id, remote_group=group)
    for position, name in enumerate(names):
        at = (set_members.c.set_id == replication_set.id) & (set_members.c.position == position)
        connection.execute(update(set_members).where(at).values(remote_name=name))


def find_set(connection: Connection, uuid: str) -> SetRecord | None:
    return next((each for each in all_sets(connection) if each.uuid == uuid), None)


def set_name(connection: Connection, set_id: int | None) -> str | None:
    """None for a set that is not there."""
    return connection.execute(select(replication_sets.c.name).where(replication_sets.c.id == set_id)).scalar()


def delete_set(connection: Connection, set_id: int) -> None:
    connection.execute(delete(replication_sets).where(replication_sets.c.id == set_id))
