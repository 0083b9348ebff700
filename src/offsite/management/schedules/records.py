"""Tasks and schedules in the state database, as plain values. Each function works within the transaction of the
connection that it is given."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, insert, select, update

from offsite.management.events.event_log import last_event_at
from offsite.management.schedules.tables import schedules, task_snapshots, tasks
from offsite.pools.needs import Need
from offsite.replication.records.run_records import newest_run_id

TaskType = Literal["TakeSnapshot", "ResetSnapshot", "Replicate"]


@dataclass(frozen=True, slots=True)
class TaskRecord:
    name: str
    type: TaskType
    created_at: float  # seconds since the epoch, as all that end so
    set_id: int | None = None  # Replicate: of which set
    image_id: int | None = None  # TakeSnapshot: of which volume; ResetSnapshot: which snapshot
    last_snapshot: bool = False  # Replicate: the newest snapshot there is, and not a new one
    snapshot_prefix: str | None = None
    retention_count: int | None = None
    retention_priority: str | None = None
    next_snapshot_number: int = 1
    last_run_at: float | None = None
    last_error: str | None = None  # of the last start; none: it went well


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    name: str
    specification: str
    task_name: str
    created_at: float
    next_at: float | None = None  # none: it has expired, or its specification cannot be read
    starts: int = 0
    error: str | None = None  # why its specification cannot be read
    starting_at: float | None = None  # the instant whose start is under way
    starting_after: int | None = None  # the newest run on record when that start began


def all_tasks(connection: Connection) -> list[TaskRecord]:
    """By name."""
    return [TaskRecord(**row) for row in connection.execute(select(tasks).order_by(tasks.c.name)).mappings()]


def find_task(connection: Connection, name: str) -> TaskRecord | None:
    row = connection.execute(select(tasks).where(tasks.c.name == name)).mappings().first()
    return TaskRecord(**row) if row else None


def count_tasks(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(tasks)).scalar_one()


def insert_task(connection: Connection, record: TaskRecord) -> None:
    connection.execute(insert(tasks).values(**asdict(record)))


def update_task(connection: Connection, name: str, **values: Any) -> None:
    connection.execute(update(tasks).where(tasks.c.name == name).values(values))


def delete_task(connection: Connection, name: str) -> None:
    """With its schedules. Snapshots that it has taken stay."""
    connection.execute(delete(tasks).where(tasks.c.name == name))


def insert_task_snapshot(connection: Connection, image_id: int, task_name: str, number: int) -> None:
    connection.execute(insert(task_snapshots).values(image_id=image_id, task_name=task_name, number=number))


def snapshots_of_task(connection: Connection, task_name: str) -> list[int]:
    """Ids of the snapshots that it has taken and still looks after, oldest first: ids rise with each new image."""
    table = task_snapshots
    chosen = select(table.c.image_id).where(table.c.task_name == task_name).order_by(table.c.image_id)
    return list(connection.execute(chosen).scalars())


def find_tasks_of(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    """What needs images to stay: the tasks that are of them."""
    chosen = select(tasks.c.image_id, tasks.c.name).where(tasks.c.image_id.in_(image_ids)).order_by(tasks.c.name)
    for row in connection.execute(chosen):
        yield row.image_id, Need(f"task {row.name} uses it")


def note_kept(connection: Connection, image_id: int) -> bool:
    """On record: users were told that the snapshot stays. Returns whether they are to be told now."""
    table = task_snapshots
    chosen = update(table).where(table.c.image_id == image_id, ~table.c.kept_told)
    return connection.execute(chosen.values(kept_told=True)).rowcount == 1


def all_schedules(connection: Connection) -> list[ScheduleRecord]:
    """By name."""
    rows = connection.execute(select(schedules).order_by(schedules.c.name)).mappings()
    return [ScheduleRecord(**row) for row in rows]


def schedules_of_set(connection: Connection, set_id: int) -> list[ScheduleRecord]:
    """Those whose task replicates this set, by name."""
    chosen = select(schedules).join(tasks).where(tasks.c.set_id == set_id).order_by(schedules.c.name)
    return [ScheduleRecord(**row) for row in connection.execute(chosen).mappings()]


def find_schedule(connection: Connection, name: str) -> ScheduleRecord | None:
    row = connection.execute(select(schedules).where(schedules.c.name == name)).mappings().first()
    return ScheduleRecord(**row) if row else None


def count_schedules(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(schedules)).scalar_one()


def first_due(connection: Connection, leave_out: Collection[str] = ()) -> ScheduleRecord | None:
    """The schedule whose next start comes first, but for those named; by the index."""
    chosen = select(schedules).where(schedules.c.next_at.is_not(None), schedules.c.name.not_in(leave_out))
    row = connection.execute(chosen.order_by(schedules.c.next_at).limit(1)).mappings().first()
    return ScheduleRecord(**row) if row else None


def last_known_time(connection: Connection) -> float:
    """Of events and starts; 0 when there are none."""
    last_start = connection.execute(select(func.max(tasks.c.last_run_at))).scalar() or 0.0
    return max(last_event_at(connection), last_start)


def insert_schedule(connection: Connection, record: ScheduleRecord) -> None:
    connection.execute(insert(schedules).values(**asdict(record)))


def update_schedule(connection: Connection, name: str, **values: Any) -> None:
    connection.execute(update(schedules).where(schedules.c.name == name).values(values))


def take_start(connection: Connection, due: ScheduleRecord, next_at: float | None) -> bool:
    """On record: this start is under way, and `next_at` is the next. False when the schedule is not as it was read."""
    same = (schedules.c.name == due.name) & (schedules.c.next_at == due.next_at)
    same &= schedules.c.specification == due.specification
    values = {"next_at": next_at, "starts": due.starts + 1, "starting_at": due.next_at}
    values["starting_after"] = newest_run_id(connection)
    return connection.execute(update(schedules).where(same).values(values)).rowcount == 1


def delete_schedule(connection: Connection, name: str) -> None:
    connection.execute(delete(schedules).where(schedules.c.name == name))
