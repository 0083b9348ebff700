"""What tasks do: take a snapshot and let old ones go, reset a snapshot, ask for a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from offsite.errors import NameInUse, ObjectNotFound
from offsite.events import VOLUME_CHANGED, VOLUME_CREATED
from offsite.management.images.changes import check_resettable, parent_of, replace_content
from offsite.management.schedules import records
from offsite.management.schedules.records import TaskRecord
from offsite.management.schedules.scheduler import Begin, Scheduler, in_a_thread
from offsite.management.system import Found, System
from offsite.management.task_runner.rotation import rotate
from offsite.pools.protocol import ImageInfo, Snapshot
from offsite.pools.retention import set_priority
from offsite.replication.records.run_records import has_run_after
from offsite.replication.records.set_records import set_name

NUMBERS = 9999  # 0001 to 9999, then from 0001 again
_TOLD = {
    "running": "a run of replication set {} was started",
    "queued": "a run of replication set {} was queued; another run is in progress",
    "dropped": "the queue policy of replication set {} dropped the request; a run is in progress",
}


class TaskWork:
    """The `Work` of a scheduler, on a whole system."""

    def __init__(self, system: System) -> None:
        self._system = system

    def do(self, task: TaskRecord, done: Callable[[Connection], None]) -> str:
        match task.type:
            case "TakeSnapshot":
                return self._take_snapshot(task, done)
            case "ResetSnapshot":
                return self._reset_snapshot(task, done)
            case "Replicate":
                return self._replicate(task, done)

    def was_done(self, task: TaskRecord, newest_run: int) -> bool:
        """A snapshot is taken, or reset, in one transaction with the record that it is done. Of a run there is
        the request on record: whoever it is from, the set was replicated as of then or later. One that failed, as one
        does whose hooks the crash has cut, was no replication."""
        with self._system.database.read() as connection:
            return has_run_after(connection, task.set_id, newest_run)

    def _take_snapshot(self, task: TaskRecord, done: Callable[[Connection], None]) -> str:
        system = self._system
        with system.changing_alone():
            source = self._image(task)
            number, name = self._free_name(task)

            def record(connection: Connection, taken: Sequence[ImageInfo]) -> None:
                image_id = taken[0].id
                records.insert_task_snapshot(connection, image_id, task.name, number)
                records.update_task(connection, task.name, next_snapshot_number=number % NUMBERS + 1)
                if task.retention_priority is not None:
                    set_priority(connection, image_id, task.retention_priority)
                done(connection)

            source.pool.apply([Snapshot(source.image.id, name)], record)
            system.events.report(VOLUME_CREATED, f"Snapshot {name} of {source.image.name} was taken.")
            rotate(system, task)
        return f"snapshot {name} of {source.image.name} was taken"

    def _free_name(self, task: TaskRecord) -> tuple[int, str]:
        """The next number whose name is free: a snapshot that someone has made by hand is not touched."""
        system = self._system
        taken = {image.name for pool in list(system.pools.values()) for image in pool.images()}
        taken |= {group.name for group in system.groups.all()}
        for passed in range(NUMBERS):
            number = (task.next_snapshot_number - 1 + passed) % NUMBERS + 1
            name = f"{task.snapshot_prefix}_S{number:04}"
            if name not in taken:
                return number, name
        raise NameInUse(
            f"all names from {task.snapshot_prefix}_S0001 to _S{NUMBERS} are in use; delete some of these snapshots"
        )

    def _reset_snapshot(self, task: TaskRecord, done: Callable[[Connection], None]) -> str:
        system = self._system
        with system.changing_alone():
            found = self._image(task)
            check_resettable(system, found)
            parent = parent_of(found)
            replace_content(found, parent, lambda connection, _: done(connection))
        message = f"snapshot {found.image.name} was reset to the current content of volume {parent.image.name}"
        system.events.report(VOLUME_CHANGED, f"S{message[1:]}.")
        return message

    def _replicate(self, task: TaskRecord, done: Callable[[Connection], None]) -> str:
        system = self._system
        with system.database.read() as connection:
            name = set_name(connection, task.set_id)
        if name is None:
            raise ObjectNotFound(f"the replication set of task {task.name} was just deleted")
        requested = system.replication.replicate(name, last_snapshot=task.last_snapshot)
        with system.database.transaction() as connection:
            done(connection)
        return _TOLD[requested.state].format(name)

    def _image(self, task: TaskRecord) -> Found:
        for each in self._system.images():
            if each.image.id == task.image_id:
                return each
        raise ObjectNotFound(f"the volume or snapshot of task {task.name} was just deleted")


def scheduler_of(system: System, begin: Begin = in_a_thread) -> Scheduler:
    """What starts the tasks of a whole system."""
    work, report = TaskWork(system), system.events.report
    return Scheduler(system.database, system.schedules, system.roster, work, report, system.clock, begin)
