"""One system of the product on a machine that may lose power: what is in memory goes, what is on disk stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from offsite.access.certificates import Authority
from offsite.access.initiator_certificates import InitiatorCertificates
from offsite.access.maps import Maps
from offsite.errors import OffsiteError
from offsite.events import EventKind
from offsite.management.accounts.users import User
from offsite.management.command_table.command import Role
from offsite.management.command_table.parser import split
from offsite.management.command_table.reply import Reply
from offsite.management.execution import Request, execute
from offsite.management.needs import needs_of_all_floors
from offsite.management.schedules.roster import Roster
from offsite.management.schedules.scheduler import Scheduler
from offsite.management.schedules.schedules import Schedules
from offsite.management.schedules.tasks import Tasks as ScheduledTasks
from offsite.management.system import System
from offsite.management.task_runner.task_work import scheduler_of
from offsite.pools.groups import Groups, all_groups
from offsite.pools.needs import Needs
from offsite.replication.link.identity import SystemIdentity
from offsite.replication.records import peer_records, set_records
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.set_records import SetRecord
from offsite.replication.runs.attempt import Attempt
from offsite.replication.runs.hooks import HookDirectory
from offsite.replication.service import Replication
from offsite.store.database import Database
from offsite.store.settings import Settings
from offsite.targets.common.counters import Counters
from tests.management.management_bench import OpenElsewhere
from tests.simulation import patching
from tests.simulation.disk import Disk, disks
from tests.simulation.network import SimulatedDialer
from tests.simulation.pool import SimulatedDatabase, SimulatedPool
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


class AnyUser:
    """Who gives a command is nobody's concern here."""

    def current(self, user: User) -> User:
        return user


@dataclass(frozen=True)
class Copy:
    """Of a state directory, and what it has to hold."""

    directory: Path
    shadow: Shadow
    had: dict[str, set[str]]
    bases: dict[str, str]


class Machine:
    """`directory` outlives a crash; all else is made anew by `start`."""

    def __init__(self, world: World, name: str, directory: Path, template: Path, authority: Authority) -> None:
        self.world = world
        self.name = self.label = name  # a twin has the same name
        self.host = name.lower()
        self.clock = Clock(world)
        self.authority = authority
        self.directory = directory
        self.shadow = Shadow()
        self.is_up = self.is_set_up = False
        # As of the last change of images, which the making and the deleting of a secondary half always is:
        self.secondary_ids: set[int] = set()  # of images
        self.primaries: dict[tuple[str, int], str] = {}  # uuid, generation and name of sets
        self.had: dict[str, set[str]] = {}  # points of primary sets, by the set's uuid, that were ever taken here
        self.bases: dict[str, str] = {}  # of secondary sets, by their uuid
        self.copy: Copy | None = None
        self.was_put_back = False  # or has a twin
        self.partner: Machine | None = None  # of a system that lives twice, the one that is served
        self.groups_ever: set[str] = set()
        self.full_until = 0.0  # its disk
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
                try:
                    self._open()
                except OffsiteError as error:
                    raise Violation(f"P1: after power was lost, {self.label} does not start: {error}") from error
            self.is_up = True
            self._check_after_crash()
            with self.world.faults.none():
                self.replication.recover()
        finally:
            tasks.owner = before
        dispatcher, reconciler, scheduler = self.replication.dispatcher, self.replication.reconciler, self._scheduler()
        dispatcher.wake = self._ticker("dispatcher", dispatcher.step)
        reconciler.wake = self._ticker("reconciler", reconciler.step)
        self.system.schedules.wake = self._ticker("scheduler", scheduler.step)

    def _scheduler(self) -> Scheduler:
        def begin(name: str, work: Callable[[], None]) -> None:
            self.world.tasks.spawn(f"{self.name} {name}", work, self)

        return scheduler_of(self.system, begin)

    def _open(self) -> None:
        self.database = SimulatedDatabase.__new__(SimulatedDatabase)
        self.database.machine = self
        self._powered = True
        self.database.__init__(self.directory / "state.db")  # type: ignore[misc]  # it asks its machine for power
        self.pool = cast(SimulatedPool, SimulatedPool.load(self.database, "A", self._report))
        self.pool.machine = self
        self.disk = disks[self.pool.store.descriptor] = Disk(self.world.faults, self.world.random)
        needs = needs_of_all_floors(self.database)
        self.replication = Replication(
            self.database,
            {"A": self.pool},
            needs,
            self.authority,
            self.identity,
            (self.host, 7443),
            lambda user, password, _host: (user, password) == ("manage", PASSWORD),
            HookDirectory(self.directory / "hooks"),
            self._report,
            self.clock,
            SimulatedDialer(self.world.network, self),
            self._start_attempt,
            self.world.tasks.sleep,
        )
        self.system = self._make_system(needs)

    def _make_system(self, needs: Needs) -> System:
        settings, roster = Settings(self.database), Roster(self.database, self._report)
        return System(
            uuid=self.identity.uuid,
            name=self.name,
            state_directory=self.directory,
            database=self.database,
            pools={"A": self.pool},
            groups=Groups(self.database),
            needs=needs,
            maps=Maps(self.database),
            authority=self.authority,
            certificates=InitiatorCertificates(self.database),
            replication=self.replication,
            targets=(OpenElsewhere(),),
            counters=Counters(),
            users=cast(Any, AnyUser()),
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
        self.groups_ever.update(self.group_names)
        self.world.checks.broken_ledgers.update(self.group_names)
        self.world.tasks.kill(self)
        self.world.network.lost(self)
        self.world.note(f"{self.label} has lost power")

    def off(self) -> None:
        """Lets go of the files of a machine that has lost power."""
        del disks[self.pool.store.descriptor]
        os.close(self.pool.store.descriptor)
        self.database.close()

    def take_copy(self) -> None:
        """Of a machine that is off, as somebody does who wants to be able to go back."""
        directory = self.directory.with_name(f"{self.label}-copy")
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.directory, directory)
        self.copy = Copy(directory, deepcopy(self.shadow), deepcopy(self.had), dict(self.bases))

    def put_back(self) -> None:
        """The machine, which is off, starts from its copy."""
        assert self.copy is not None
        shutil.rmtree(self.directory)
        shutil.copytree(self.copy.directory, self.directory)
        self.shadow = deepcopy(self.copy.shadow)
        self.had, self.bases = deepcopy(self.copy.had), dict(self.copy.bases)
        self.was_put_back = True
        self.partner = None

    def twin(self, label: str, *, of_the_copy: bool) -> Machine:
        """Another machine with the same system, as it is on the disk of this one, which is off, or as it was copied."""
        twin = copy(self)
        twin.label, twin.directory = label, self.directory.with_name(label)
        source = self.copy if of_the_copy else self
        assert source is not None
        shutil.copytree(source.directory, twin.directory)
        twin.shadow, twin.had, twin.bases = deepcopy(source.shadow), deepcopy(source.had), dict(source.bases)
        twin.clock = Clock(self.world)
        twin.clock.ahead_seconds = self.clock.ahead_seconds
        twin.copy, twin.events, twin.groups_ever, twin.partner = None, [], set(self.groups_ever), None
        self.was_put_back = twin.was_put_back = True
        return twin

    def check_power(self) -> None:
        if not self._powered:
            raise Killed

    def _check_after_crash(self) -> None:
        found = {image.name: self.pool.content(image_id) for image_id, image in self.pool.by_id.items()}
        problem = self.shadow.after_crash(found)
        if problem:
            raise Violation(f"P1: after power was lost on {self.label}: {problem}")
        self.world.checks.committed(self)

    # -- what there is -------------------------------------------------------------------------------------------

    @property
    def group_names(self) -> list[str]:
        with Database.read(self.database) as connection:
            return [group.name for group in all_groups(connection)]

    def peers(self) -> list[PeerRecord]:
        with Database.read(self.database) as connection:
            return peer_records.all_peers(connection)

    def sets(self) -> list[SetRecord]:
        """By name."""
        with Database.read(self.database) as connection:
            return sorted(set_records.all_sets(connection), key=lambda of: of.name)

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
        self.world.note(f"{self.label}: {kind.code} {message}")

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
