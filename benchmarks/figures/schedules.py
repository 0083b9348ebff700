"""What 1,000 schedules cost: processor time of `offsite serve` (utime and stime of proc(5)) while nobody asks anything.

Three systems run side by side, each a process with 20 volumes of 1 GiB. One has no schedules. One has 1,000, every
hour, of which the first start is tomorrow: they wait. One has the same 1,000 and starts them: while it is stopped,
their next starts are moved into the hour that follows, evenly, so that a start is due every 3.6 seconds, as it would
be all day long. Each start takes a snapshot, and deletes the one that the same task took before (20 tasks, retention
count 1): so its value is the cost of the tasks' own work, too.

After a few seconds in which the starting of the programs settles, their processor times are read every 36 seconds:
each such window has ten starts, and one look of the scheduler at the least. The value of a window is what the system
with schedules has used in it less what the one without has, over its seconds.
"""

from __future__ import annotations

import datetime
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select, update

from benchmarks import systems
from benchmarks.bench import Bench
from benchmarks.measure import Line, Measured, Outcomes, Samples, Unit, below
from benchmarks.processes import CannotMeasure, processor_seconds
from benchmarks.systems import System
from offsite.management.schedules.tables import schedules as table
from offsite.store.database import Database

_SCHEDULES = 1000
_VOLUMES = [f"Volume{number:02}" for number in range(20)]
_HOUR_SECONDS = 3600.0
_EVERY_SECONDS = _HOUR_SECONDS / _SCHEDULES
_STARTS = 10  # in a window
_SETTLE_SECONDS = 6.0  # until the first window
WAITING = Line("1,000 schedules that wait, of a core", Unit.OF_A_CORE, target=below(0.01))
STARTING = Line("1,000 schedules that each start a snapshot every hour, of a core", Unit.OF_A_CORE, target=below(0.01))
IDLE = Line("a system without schedules that nobody uses, of a core", Unit.OF_A_CORE)
LINES = (WAITING, STARTING, IDLE)


def measure(bench: Bench) -> Outcomes:
    idle, waiting, starting = (
        systems.new(bench, name, f"127.0.0.{number}")
        for number, name in enumerate(("Idle", "Waiting", "Starting"), start=1)
    )
    with systems.serving(idle, waiting, starting):
        for system in (idle, waiting, starting):
            for name in _VOLUMES:
                system.create_volume(name, bench.settings.volume_bytes)
        for system in (waiting, starting):
            _create_schedules(system)
    _spread_starts(starting)
    windows: list[list[float]] = []
    with systems.serving(idle, waiting, starting) as processes:
        begun_at = time.time()
        time.sleep(_SETTLE_SECONDS)
        for _ in range(bench.settings.repeat):
            windows.append(_shares(processes))
            bench.say(", ".join(f"{share:.2%}" for share in windows[-1]) + " of a core")
        _check_started(starting, int((time.time() - begun_at) / _EVERY_SECONDS))
    return {
        WAITING: Measured(Samples.of(wait - none for none, wait, _ in windows)),
        STARTING: Measured(Samples.of(start - none for none, _, start in windows)),
        IDLE: Measured(Samples.of(none for none, _, _ in windows)),
    }


def _create_schedules(system: System) -> None:
    tomorrow = datetime.date.today() + datetime.timedelta(days=1)
    for name in _VOLUMES:
        system.ask(
            *("create", "task", "type", "TakeSnapshot", "source-volume", name),
            *("snapshot-prefix", name, "retention-count", "1", f"{name}Task"),
        )
    words = ("create", "schedule", "schedule-specification", f"start {tomorrow} 12:00 every 1 hours", "task-name")

    def create(number: int) -> None:
        system.ask(*words, f"{_VOLUMES[number % len(_VOLUMES)]}Task", f"Schedule{number:04}")

    with ThreadPoolExecutor(4) as asking:
        list(asking.map(create, range(_SCHEDULES)))


def _spread_starts(system: System) -> None:
    """Of a system that is stopped: each schedule starts once in the hour to come."""
    database = Database(system.state / "state.db")
    try:
        with database.transaction() as connection:
            names = connection.execute(select(table.c.name).order_by(table.c.name)).scalars().all()
            if len(names) != _SCHEDULES:
                raise CannotMeasure(f"there are {len(names)} schedules, not {_SCHEDULES}")
            now = time.time()
            for number, name in enumerate(names):
                at = now + (number + 1) * _EVERY_SECONDS
                connection.execute(update(table).where(table.c.name == name).values(next_at=at))
    finally:
        database.close()


def _shares(processes: Sequence[subprocess.Popen[bytes]]) -> list[float]:
    """Of a core, for each process, in one window of them all."""
    start, before = time.perf_counter(), [processor_seconds(process.pid) for process in processes]
    time.sleep(_STARTS * _EVERY_SECONDS)
    seconds, after = time.perf_counter() - start, [processor_seconds(process.pid) for process in processes]
    return [(last - first) / seconds for first, last in zip(before, after, strict=True)]


def _check_started(system: System, due: int) -> None:
    """Raises CannotMeasure when fewer tasks were started than were due, or one has failed: that would be cheap."""
    found = system.ask("show", "schedules")["schedules"]
    started = sum(int(each["starts"]) for each in found)
    errors = [each["error-message"] for each in found if each["error-message"]]
    if started < due - 1 or errors:
        raise CannotMeasure(f"{started} starts of {due} that were due, {len(errors)} with an error: {errors[:1]}")
