"""One system of the product on a machine that may lose power: what is in memory goes, what is on disk stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection

from offsite.access.certificates import Authority
from offsite.access.maps import Maps
from offsite.errors import OffsiteError
from offsite.events import EventKind
from offsite.management.execution import Request, execute
from offsite.management.grammar import split
from offsite.management.reply import Reply
from offsite.management.schedules.roster import Roster
from offsite.management.schedules.schedules import Schedules
from offsite.management.schedules.task_work import scheduler_of
from offsite.management.schedules.tasks import Tasks as ScheduledTasks
from offsite.management.system import System
from offsite.management.table import Role
from offsite.management.users import User
from offsite.pools.groups import Groups, all_groups
from offsite.pools.local import LocalPool
from offsite.pools.open_image import LocalOpenImage
from offsite.pools.protocol import Change, ImageInfo, Records
from offsite.replication import records
from offsite.replication.attempt import Attempt
from offsite.replication.hooks import HookDirectory
from offsite.replication.identity import SystemIdentity
from offsite.replication.records import SetRecord
from offsite.replication.service import Replication
from offsite.store.database import Database
from offsite.store.settings import Settings
from tests.management.management_bench import OpenElsewhere
from tests.simulation import patching
from tests.simulation.disk import Disk, disks
from tests.simulation.network import SimulatedDialer
from tests.simulation.shadow import Shadow, Violation
from tests.simulation.tasks import Killed

if TYPE_CHECKING:
    from tests.simulation.world import World

PAGE_BYTES = 16384
LARGE_POOL_PAGES, SMALL_POOL_PAGES = 320, 72  # a small one is full now and then
USER = User("anna", Role.MANAGE)
PASSWORD = "Correct-horse-7"


class Clock:
    """Of one machine. Its wall clock may be set."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ahead_seconds = 0.0

    def now(self) -> float:
        return self._world.tasks.now + self.ahead_seconds

    def monotonic(self) -> float:
        return self._world.tasks.now


class SimulatedDatabase(Database):
    """A commit is where power may fail: before it, or just after it."""

    machine: Machine
    depth = 0

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        machine = self.machine
        machine.check_power()
        faults = machine.world.faults
        outermost = not self.depth
        with super().transaction() as connection:
            self.depth += 1
            try:
                yield connection
            finally:
                self.depth -= 1
            if outermost and faults.strikes("power lost before a commit", faults.crash_at_commit / 2):
                machine.lose_power()
                raise Killed
        if outermost and faults.strikes("power lost after a commit", faults.crash_at_commit / 2):
            machine.lose_power()
            raise Killed

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self.machine.check_power()
        with super().read() as connection:
            yield connection


class SimulatedImage(LocalOpenImage):
    """Tells the shadow what is written, whoever writes it."""

    __slots__ = ("_is_writing", "_machine")

    def __init__(self, pool: SimulatedPool, image: Any) -> None:
        super().__init__(pool, image)
        self._machine = pool.machine
        self._is_writing = False  # a write of many pages is made of smaller ones

    def write(self, offset: int, data: memoryview) -> None:
        self._done(offset, len(data), bytes(data), lambda: super(SimulatedImage, self).write(offset, data))

    def write_zeroes(self, offset: int, length: int, *, allocate: bool = False) -> None:
        zeros = bytes(length)
        self._done(
            offset, length, zeros, lambda: super(SimulatedImage, self).write_zeroes(offset, length, allocate=allocate)
        )

    def _done(self, offset: int, length: int, wanted: bytes, call: Callable[[], None]) -> None:
        if self._is_writing:
            call()
            return
        content = self._machine.shadow.images[self._image.name]
        self._is_writing = True
        try:
            call()
        except (OffsiteError, OSError):
            content.put(offset, self._as_it_is(offset, length))
            raise
        except Killed:
            content.put(offset, wanted)  # some of it, perhaps
            raise
        finally:
            self._is_writing = False
        content.put(offset, self._corrupted(offset, wanted))

    def _corrupted(self, offset: int, wanted: bytes) -> bytes:
        """What a run writes to the secondary may be stored otherwise: only its digests can tell."""
        faults = self._machine.world.faults
        if self._image.kind != "internal" or not any(wanted):
            return wanted
        if not faults.strikes("blocks stored otherwise than written", faults.corruption):
            return wanted
        position = next(position for _, position in self._pieces(offset, len(wanted)))
        if position is not None:
            self._machine.disk.write(self._descriptor, bytes([wanted[0] ^ 1]), position)
            return bytes([wanted[0] ^ 1]) + wanted[1:]
        return wanted

    def _as_it_is(self, offset: int, length: int) -> bytes:
        with self._machine.world.faults.none():
            buffer = bytearray(length)
            self.read(offset, memoryview(buffer))
            return bytes(buffer)


class SimulatedPool(LocalPool):
    """The real pool, and beside it what it has to hold."""

    machine: Machine

    def open(self, image_id: int) -> SimulatedImage:
        with self.lock:
            image = self.find(image_id)
            opened = SimulatedImage(self, image)
            image.visitors.add(opened)
            return opened

    def apply(self, changes: Sequence[Change], records: Records | None = None) -> list[ImageInfo]:
        machine = self.machine
        machine.world.tasks.switch()
        machine.check_power()

        def cut_off_here(connection: Connection) -> None:
            machine.shadow.cut = after = machine.shadow.changed(changes, names)
            if records is not None:
                records(connection)
            machine.world.checks.about_to_commit(changes, after, volumes)

        names = {image_id: image.name for image_id, image in self.by_id.items()}
        volumes = {image_id for image_id, image in self.by_id.items() if image.kind == "volume"}
        try:
            infos = super().apply(changes, cut_off_here)
        except Exception:
            machine.shadow.cut = None
            raise
        assert machine.shadow.cut is not None
        machine.shadow.images, machine.shadow.cut = machine.shadow.cut, None
        machine.world.checks.committed(machine)
        machine.world.tasks.switch()
        return infos

    def flush(self, records: Records | None = None) -> None:
        self.machine.world.tasks.switch()
        super().flush(records)
        self.machine.shadow.settle()
        self.machine.world.tasks.switch()

    def content(self, image_id: int) -> bytes:
        """All of an image, as a host would read it."""
        with self.machine.world.faults.none():
            opened = LocalOpenImage(self, self.find(image_id))
            buffer = bytearray(opened.size_bytes)
            opened.begin()
            opened.read(0, memoryview(buffer))
            opened.end()
            return bytes(buffer)


class Machine:
    """`directory` outlives a crash; all else is made anew by `start`."""

    def __init__(self, world: World, name: str, directory: Path, template: Path, authority: Authority) -> None:
        self.world = world
        self.name = name
        self.host = name.lower()
        self.clock = Clock(world)
        self.authority = authority
        self.directory = directory
        self.shadow = Shadow()
        self.is_up = self.is_set_up = False
        # As of the last change of images, which the making and the deleting of a secondary half always is:
        self.secondary_ids: set[int] = set()  # of images
        self.primaries: dict[tuple[str, int], str] = {}  # uuid, generation and name of sets
        self.events: list[tuple[EventKind, str]] = []
        self.identity = SystemIdentity(str(patching._uuid4()), name)
        directory.mkdir(parents=True)
        shutil.copy(template / "state.db", directory / "state.db")
        shutil.copy(template / "pool-A.data", directory / "pool-A.data")

    # -- power -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Everything that a start does, but for what listens to people and hosts."""
        tasks = self.world.tasks
        tasks.owner, before = self, tasks.owner
        try:
            with self.world.faults.none():
                self._open()
            self.is_up = True
            self._check_after_crash()
            with self.world.faults.none():
                self.replication.recover()
        finally:
            tasks.owner = before
        conductor, upkeep, scheduler = self.replication.conductor, self.replication.upkeep, scheduler_of(self.system)
        conductor.wake = self._ticker("conductor", conductor.step)
        upkeep.wake = self._ticker("upkeep", upkeep.step)
        self.system.schedules.wake = self._ticker("scheduler", scheduler.step)

    def _open(self) -> None:
        self.database = SimulatedDatabase.__new__(SimulatedDatabase)
        self.database.machine = self
        self._powered = True
        self.database.__init__(self.directory / "state.db")  # type: ignore[misc]  # it asks its machine for power
        self.pool = cast(SimulatedPool, SimulatedPool.load(self.database, "A", self._report))
        self.pool.machine = self
        self.disk = disks[self.pool.store.descriptor] = Disk(self.world.faults, self.world.random)
        self.replication = Replication(
            self.database,
            {"A": self.pool},
            self.authority,
            self.identity,
            (self.host, 7443),
            lambda user, password: (user, password) == ("manage", PASSWORD),
            HookDirectory(self.directory / "hooks"),
            self._report,
            self.clock,
            SimulatedDialer(self.world.network, self),
            self._start_attempt,
            self.world.tasks.sleep,
        )
        self.system = self._make_system()

    def _make_system(self) -> System:
        settings, roster = Settings(self.database), Roster(self.database, self._report)
        return System(
            uuid=self.identity.uuid,
            name=self.name,
            state_directory=self.directory,
            database=self.database,
            pools={"A": self.pool},
            groups=Groups(self.database),
            maps=Maps(self.database),
            authority=self.authority,
            replication=self.replication,
            targets=(OpenElsewhere(),),
            users=cast(Any, None),
            sessions=cast(Any, None),
            events=cast(Any, self),
            notices=cast(Any, None),
            settings=settings,
            tasks=ScheduledTasks(self.database, roster, self._report),
            schedules=Schedules(self.database, settings, roster, self._report, self.clock),
            roster=roster,
            clock=self.clock,
            started_at=self.clock.now(),
            addresses={},
            changing=cast(Any, patching.Lock()),
        )

    def lose_power(self) -> None:
        """At once. A task of this machine that asks for it has to raise Killed itself."""
        if not self.is_up:
            return
        self.is_up = self._powered = False
        self.disk.lose_power(self.pool.store.descriptor)
        self.world.checks.broken_ledgers.update(self.group_names)
        self.world.tasks.kill(self)
        self.world.network.lost(self)
        self.world.note(f"{self.name} has lost power")

    def off(self) -> None:
        """Lets go of the files of a machine that has lost power."""
        del disks[self.pool.store.descriptor]
        os.close(self.pool.store.descriptor)
        self.database.close()

    def check_power(self) -> None:
        if not self._powered:
            raise Killed

    def _check_after_crash(self) -> None:
        found = {image.name: self.pool.content(image_id) for image_id, image in self.pool.by_id.items()}
        problem = self.shadow.after_crash(found)
        if problem:
            raise Violation(f"P1: after power was lost on {self.name}: {problem}")
        self.world.checks.committed(self)

    # -- what there is -------------------------------------------------------------------------------------------

    @property
    def group_names(self) -> list[str]:
        with Database.read(self.database) as connection:
            return [group.name for group in all_groups(connection)]

    def sets(self) -> list[SetRecord]:
        """By name."""
        with Database.read(self.database) as connection:
            return sorted(records.all_sets(connection), key=lambda of: of.name)

    # -- what it does ------------------------------------------------------------------------------------------------

    def do(self, line: str) -> Reply:
        """A command. Raises OffsiteError."""
        reply = execute(self.system, Request(split(line)), USER)
        assert isinstance(reply, Reply)
        return reply

    def report(self, kind: EventKind, message: str) -> None:
        """For commands, which tell their events to an event log."""
        self._report(kind, message)

    def _report(self, kind: EventKind, message: str) -> None:
        self.events.append((kind, message))
        self.world.note(f"{self.name}: {kind.code} {message}")

    def _start_attempt(self, attempt: Attempt) -> None:
        self.world.tasks.spawn(f"{self.name}-run", attempt.work, self)

    def _ticker(self, name: str, step: Callable[[], float | None]) -> Callable[[], None]:
        woken = patching.Event()

        def run() -> None:
            while True:
                woken.clear()
                due = step()
                self.world.tasks.switch()
                self.world.tasks.wait(woken.is_set, due)

        self.world.tasks.spawn(f"{self.name}-{name}", run, self)
        return woken.set
