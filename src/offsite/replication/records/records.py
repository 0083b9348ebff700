"""Replication's records in the state database: peers, sets and runs, as plain values. (Points: point_records.)

Every function works within the transaction of the connection that it is given, so that a step of a run can
be one transaction with what it does to images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update

from offsite.replication.naming.snapshot_numbers import later_number, number_after
from offsite.store.tables.pools import images, volume_groups
from offsite.store.tables.replication import peers, replication_sets, runs, set_members

Role = Literal["primary", "secondary"]
RUNS_KEPT = 1000

RunState = Literal["preparing", "queued", "running", "success", "failed", "aborted", "dropped"]
QueuePolicy = Literal["discard", "queue-latest"]
SnapshotHistory = Literal["disabled", "secondary", "both"]
RetentionPriority = Literal["never-delete", "low", "medium", "high"]


@dataclass(frozen=True)
class PeerRecord:
    id: int
    name: str
    system_uuid: str
    system_name: str
    address: str
    certificate: bytes
    created_at: float
    bandwidth_limit: int | None  # bytes a second; None: no limit
    bandwidth_calendar: str
    secondary_sets: bool  # whether it may make sets here
    secondary_size_limit: int | None  # bytes, of all its volumes here together; None: no limit


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


@dataclass(frozen=True)
class RunRecord:
    uuid: str
    set_id: int
    state: RunState
    started_at: float
    ended_at: float | None
    changed_bytes: int
    wire_bytes: int
    digest: str | None
    error: str | None
    snapshot_number: int | None
    source: str | None  # name of the snapshot that is sent; none: the volumes as they were
    after_snapshot_due: bool  # the hook of that name has not ended; until then nothing is sent


# Peers


# Asked all the time, as those of sets and runs below: to put them together anew would take as long as SQLite does.
_ALL_PEERS = select(peers).order_by(peers.c.name)
_PEER_OF_CERTIFICATE = select(peers).where(peers.c.certificate == bindparam("certificate"))
_PEER_OF_ID = select(peers.c.id).where(peers.c.id == bindparam("peer"))


def all_peers(connection: Connection) -> list[PeerRecord]:
    return [PeerRecord(**row) for row in connection.execute(_ALL_PEERS).mappings()]


def find_peer(connection: Connection, certificate: bytes) -> PeerRecord | None:
    row = connection.execute(_PEER_OF_CERTIFICATE, {"certificate": certificate}).mappings().first()
    return PeerRecord(**row) if row else None


def has_peer(connection: Connection, peer_id: int) -> bool:
    """Asked before what is known of a peer is put on record: its peer connection may have been deleted just now."""
    return connection.execute(_PEER_OF_ID, {"peer": peer_id}).first() is not None


def insert_peer(connection: Connection, values: dict[str, Any]) -> None:
    connection.execute(insert(peers).values(values))


def update_peer(connection: Connection, peer_id: int, values: dict[str, Any]) -> None:
    connection.execute(update(peers).where(peers.c.id == peer_id).values(values))


def delete_peer(connection: Connection, peer_id: int) -> None:
    connection.execute(delete(peers).where(peers.c.id == peer_id))


def peer_name(connection: Connection, peer_id: int) -> str:
    """What the system at the other end calls itself."""
    return str(connection.execute(select(peers.c.system_name).where(peers.c.id == peer_id)).scalar_one())


def busy_sets(connection: Connection, peer_id: int) -> list[str]:
    """Names of the sets, primary here, that may send to the peer now: a run of theirs has not ended, and nobody has
    suspended them."""
    unfinished = (runs.c.set_id == replication_sets.c.id) & runs.c.state.in_(("preparing", "queued", "running"))
    chosen = (
        select(replication_sets.c.name)
        .where(replication_sets.c.peer_id == peer_id, replication_sets.c.role == "primary")
        .where(~replication_sets.c.suspended, select(runs.c.id).where(unfinished).exists())
        .order_by(replication_sets.c.name)
    )
    return list(connection.execute(chosen).scalars())


# Sets


_ALL_MEMBERS = select(set_members).order_by(set_members.c.position)
_ALL_SETS = select(replication_sets).order_by(replication_sets.c.name)
_RUN_OF_UUID = select(runs).where(runs.c.uuid == bindparam("uuid"))
_NEWEST_RUN_IN = (
    select(runs)
    .where(runs.c.set_id == bindparam("set"), runs.c.state == bindparam("state"))
    .order_by(runs.c.id.desc())
    .limit(1)
)
_UNFINISHED_RUNS = select(runs).where(runs.c.state.in_(("preparing", "queued", "running"))).order_by(runs.c.id)


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


def own_names(connection: Connection, of: SetRecord) -> tuple[str | None, list[str]]:
    """What the set's volume group on this side is called, if it has one, and its volumes, in the order of members; no
    volumes when one is not there, for the set has been deleted meanwhile."""
    chosen = select(images.c.id, images.c.name).where(images.c.id.in_(member.image_id for member in of.members))
    names = {row.id: row.name for row in connection.execute(chosen)}
    group = connection.execute(select(volume_groups.c.name).where(volume_groups.c.id == of.group_id)).scalar()
    found = [names[member.image_id] for member in of.members if member.image_id in names]
    return group, found if len(found) == len(of.members) else []


def update_remote_names(connection: Connection, of: SetRecord, group: str | None, names: Sequence[str]) -> None:
    """What they are called on the other side."""
    update_set(connection, of.id, remote_group=group)
    for position, name in enumerate(names):
        at = (set_members.c.set_id == of.id) & (set_members.c.position == position)
        connection.execute(update(set_members).where(at).values(remote_name=name))


def find_set(connection: Connection, uuid: str) -> SetRecord | None:
    return next((each for each in all_sets(connection) if each.uuid == uuid), None)


def delete_set(connection: Connection, set_id: int) -> None:
    connection.execute(delete(replication_sets).where(replication_sets.c.id == set_id))


# Runs


def set_runs(connection: Connection, set_id: int, limit: int = 100) -> list[RunRecord]:
    """Newest first."""
    rows = connection.execute(
        select(runs).where(runs.c.set_id == set_id).order_by(runs.c.id.desc()).limit(limit)
    ).mappings()
    return [_run(row) for row in rows]


def find_run(connection: Connection, uuid: str) -> RunRecord | None:
    row = connection.execute(_RUN_OF_UUID, {"uuid": uuid}).mappings().first()
    return _run(row) if row else None


def _run(row: RowMapping) -> RunRecord:
    return RunRecord(**{key: value for key, value in row.items() if key not in ("id", "end_order")})


def unfinished_runs(connection: Connection) -> list[RunRecord]:
    """Those of all sets that are being prepared, queued or under way, oldest first."""
    return [_run(row) for row in connection.execute(_UNFINISHED_RUNS).mappings()]


def runs_with_hook_due(connection: Connection) -> list[RunRecord]:
    """Those whose after-snapshot hook has not ended, oldest first."""
    chosen = select(runs).where(runs.c.after_snapshot_due).order_by(runs.c.id)
    return [_run(row) for row in connection.execute(chosen).mappings()]


def last_ended_run(connection: Connection, set_id: int) -> RunRecord | None:
    """The run that was done last, in one way or another; a request that was dropped was none."""
    done = runs.c.state.in_(("success", "failed", "aborted"))
    chosen = select(runs).where(runs.c.set_id == set_id, done).order_by(runs.c.end_order.desc(), runs.c.id.desc())
    row = connection.execute(chosen.limit(1)).mappings().first()
    return _run(row) if row else None


def set_run_in(connection: Connection, set_id: int, state: RunState) -> RunRecord | None:
    """The newest run of a set that is in this state."""
    row = connection.execute(_NEWEST_RUN_IN, {"set": set_id, "state": state}).mappings().first()
    return _run(row) if row else None


def insert_run(
    connection: Connection, set_id: int, uuid: str, started_at: float, state: RunState = "running", **values: Any
) -> None:
    """A new run. Of a set's runs only the newest thousand stay on record."""
    newest = select(runs.c.id).where(runs.c.set_id == set_id).order_by(runs.c.id.desc())
    oldest_kept = newest.offset(RUNS_KEPT - 1).limit(1).scalar_subquery()
    connection.execute(delete(runs).where(runs.c.set_id == set_id, runs.c.id <= oldest_kept))
    values |= {"uuid": uuid, "set_id": set_id, "state": state, "started_at": started_at}
    connection.execute(insert(runs).values(**values, changed_bytes=0, wire_bytes=0, **_end_order(set_id, values)))


def put_run(connection: Connection, set_id: int, uuid: str, started_at: float, **values: Any) -> None:
    """A run as it is now, whether it is on record already or not."""
    if find_run(connection, uuid) is None:
        insert_run(connection, set_id, uuid, started_at, **values)
    else:
        update_run(connection, uuid, started_at=started_at, **values)


def put_request(connection: Connection, set_id: int, uuid: str, number: int, now: float, **values: Any) -> None:
    """What has become of a request so far; it has taken its number of the snapshot history."""
    take_number(connection, set_id, number)
    put_run(connection, set_id, uuid, now, snapshot_number=number, **values)


def take_number(connection: Connection, set_id: int, number: int) -> None:
    """The number of the snapshot history that a request had: the next request has the next one. It never goes back."""
    table = replication_sets
    now = connection.execute(select(table.c.next_snapshot_number).where(table.c.id == set_id)).scalar_one()
    update_set(connection, set_id, next_snapshot_number=later_number(number_after(number), now))


def number_used(connection: Connection, set_id: int, run: str, number: int) -> None:
    """The number that a run has got in the end. Those that wait behind it go on after it."""
    update_run(connection, run, snapshot_number=number)
    take_number(connection, set_id, number)
    waiting = (runs.c.set_id == set_id) & runs.c.state.in_(("queued", "preparing")) & (runs.c.uuid != run)
    rows = connection.execute(select(runs.c.uuid, runs.c.snapshot_number).where(waiting).order_by(runs.c.id)).all()
    for row in rows:
        number = later_number(row.snapshot_number or 0, number_after(number))
        update_run(connection, row.uuid, snapshot_number=number)
        take_number(connection, set_id, number)


def update_run(connection: Connection, uuid: str, **values: Any) -> None:
    of_run = select(runs.c.set_id).where(runs.c.uuid == uuid).scalar_subquery()
    connection.execute(update(runs).where(runs.c.uuid == uuid).values(values | _end_order(of_run, values)))


def _end_order(set_id: Any, values: dict[str, Any]) -> dict[str, Any]:
    """For a run that ends with these values: it is the last of its set to have ended, whatever the clock says."""
    if values.get("ended_at") is None:
        return {}
    others = runs.alias()
    last = select(func.coalesce(func.max(others.c.end_order), 0) + 1).where(others.c.set_id == set_id)
    return {"end_order": last.scalar_subquery()}


def drop_runs(connection: Connection, uuids: Sequence[str], now: float, error: str) -> None:
    """Those of these runs that have not ended have nothing left to do."""
    unfinished = runs.c.uuid.in_(uuids) & runs.c.state.in_(("preparing", "queued", "running"))
    connection.execute(update(runs).where(unfinished).values(state="dropped", ended_at=now, error=error))


def end_other_runs(connection: Connection, set_id: int, uuid: str, now: float, error: str) -> None:
    """Runs of the set that are on record as running, but are not this one, have failed."""
    stale = (runs.c.set_id == set_id) & (runs.c.state == "running") & (runs.c.uuid != uuid)
    values: dict[str, Any] = {"state": "failed", "ended_at": now, "error": error}
    connection.execute(update(runs).where(stale).values(values | _end_order(set_id, values)))
