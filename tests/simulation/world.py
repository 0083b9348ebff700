"""One life of two systems, from a seed: trouble for some minutes, then quiet, in which everything has to come right.

set up ──▶ hosts, users and chaos ──▶ faults off, hosts and users stop ──▶ every set is brought up to date (R7)
    ──▶ one run more sends what changed, and no more (R6) ──▶ sets are deleted: nothing is left (P6, R8)
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from offsite.access.certificates import Authority
from offsite.errors import OffsiteError, PoolFull
from offsite.replication.points import other_halves
from offsite.replication.records import run_records
from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.set_records import SetRecord
from tests.simulation.checks import Checks
from tests.simulation.commands import User
from tests.simulation.faults import Faults
from tests.simulation.hosts import Host
from tests.simulation.machine import PASSWORD, USER, Machine
from tests.simulation.network import Network
from tests.simulation.patching import Current
from tests.simulation.shadow import BLOCK_BYTES, Violation
from tests.simulation.tasks import Tasks

LIFE_SECONDS = (10.0, 45.0)
RECOVERY_SECONDS = 2000.0  # the longest pause between two tries is 600 s, and one may have just begun
SMALL_POOLS = 0.2
FULL_SECONDS = 10.0
USERS = 2  # of each machine
STEPS_MAX = 200_000
TRACE_LINES = 4000


@dataclass(frozen=True)
class Result:
    seed: int
    steps: int
    virtual_seconds: float
    counts: Counter[str]
    trace_digest: str


class World:
    def __init__(self, seed: int, directory: Path, templates: Path, authorities: dict[str, Authority]) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.counts: Counter[str] = Counter()
        self.trace: list[str] = []
        self.tell: Callable[[str], None] = lambda _line: None
        self.tasks = Tasks(self.random)
        Current.tasks, Current.random = self.tasks, self.random
        self.faults = Faults.draw(self.random, self.counts, Random(f"{seed}, later"))
        self.network = Network(self.tasks, self.faults)
        self.checks = Checks(self)
        self.is_busy = True  # hosts and users work
        self.written = self.named = self.ledger = 0
        self._digest = hashlib.sha256()
        self.directory = directory
        self.is_small = self.random.random() < SMALL_POOLS
        template = templates / ("small" if self.is_small else "large")
        self.machines = [
            Machine(self, name, directory / name, template, authorities[name]) for name in ("London", "Newark")
        ]
        self.twin: Machine | None = None  # of one of them, and beside it
        self.favourite: Machine | None = None  # which of the two is to live
        self.is_decided = False
        self._tell_the_network()

    def other(self, machine: Machine) -> Machine:
        return next(each for each in self.machines if each.name != machine.name)

    def everyone(self) -> list[Machine]:
        return [*self.machines, *([self.twin] if self.twin else [])]

    def others(self, machine: Machine) -> list[Machine]:
        """Those of the other system."""
        return [each for each in self.everyone() if each.name != machine.name]

    def _tell_the_network(self) -> None:
        self.network.machines = {
            machine.host: [each for each in self.everyone() if each.host == machine.host] for machine in self.machines
        }

    def note(self, line: str) -> None:
        line = f"{self.tasks.now % 100_000:9.2f} {line}"
        self._digest.update(line.encode())
        self.trace.append(line)
        del self.trace[:-TRACE_LINES]
        self.tell(line)

    # -- a life ------------------------------------------------------------------------------------------------------

    def live(self) -> Result:
        """Raises Violation, or whatever else went wrong."""
        try:
            with self.faults.none():
                for machine in self.machines:
                    machine.start()
                self._do(self._pair)
            for machine in self.machines:
                self._settle_in(machine)
            life = self.tasks.spawn("chaos", self._chaos, self)
            self._run_until(lambda: life.ended)
            self._quiet_down()
            self._do(self._bring_up_to_date)
            self._do(self._run_once_more)
            self._do(self._take_apart)
            for machine in self.machines:
                self.checks.whole(machine)
        finally:
            self._end()
        return Result(self.seed, self.tasks.steps, self.tasks.now, self.counts, self._digest.hexdigest())

    def _do(self, call: Callable[[], None]) -> None:
        """In a task of its own, to its end."""
        task = self.tasks.spawn(call.__name__, call, self)
        self._run_until(lambda: task.ended)

    def _run_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self.tasks.steps > STEPS_MAX:
                raise Violation(f"R8: after {STEPS_MAX} steps it is not at an end: {self.tasks.names()}")
            self.tasks.step()

    def _end(self) -> None:
        self.tasks.kill_all()
        for machine in self.everyone():
            if machine.is_up:
                machine.lose_power()
                machine.off()
        shutil.rmtree(self.directory)

    def _pair(self) -> None:
        from offsite.management.execution import Request, execute

        london, newark = self.machines
        words = f"create peer-connection remote-port-address {newark.host} remote-username manage {newark.name}"
        self._as(london, lambda: execute(london.system, Request(words.split(), {"remote-password": PASSWORD}), USER))

    def _as(self, machine: Machine, call: Callable[[], object]) -> object:
        """In a task of this machine, to its end; returns what the call does."""
        results: list[object] = []
        task = self.tasks.spawn(f"{machine.name}-set-up", lambda: results.append(call()), machine)
        self.tasks.wait(lambda: task.ended, None)
        return results[0]

    def _settle_in(self, machine: Machine) -> None:
        """Those who use a machine that has just been started."""
        self.tasks.spawn(f"{machine.name}-host", Host(self, machine).work, machine)
        for _ in range(USERS):
            self.tasks.spawn(f"{machine.name}-user", User(self, machine).work, machine)

    # -- chaos -------------------------------------------------------------------------------------------------------

    def _chaos(self) -> None:
        ends_at = self.tasks.now + self.random.uniform(*LIFE_SECONDS)
        while self.tasks.now < ends_at:
            self.tasks.sleep(1.0)
            for machine in self.everyone():
                self._trouble(machine)
                self._choose(machine)
            if self.is_decided and self.random.random() < 0.2:
                self._stop_the_other()
            if self._comes("times that the systems were parted", self.faults.partition_every_seconds):
                self.network.part(self.random.expovariate(1 / 20.0))
        self.is_busy = False

    def _trouble(self, machine: Machine) -> None:
        if not machine.is_up:
            if self.random.random() < 0.1:
                self._power_on(machine)
            return
        if machine.pool.has_failed or self._comes("power lost at any time", self.faults.crash_every_seconds):
            machine.lose_power()
        elif self._comes("machines that were stopped to be copied", self.faults.put_back_every_seconds):
            machine.lose_power()
            self._power_on(machine)
        if not self.is_small and self._comes("disks that were full for a while", self.faults.full_disk_every_seconds):
            machine.full_until = self.tasks.now + self.random.expovariate(1 / FULL_SECONDS)
            self.note(f"the disk of {machine.label} is full until {machine.full_until % 100_000:.2f}")
        machine.disk.is_full = self.tasks.now < machine.full_until
        if self._comes("steps of a clock", self.faults.clock_step_every_seconds):
            machine.clock.ahead_seconds += self.random.choice((-3600.0, -60.0, 60.0, 3600.0, 86400.0))

    def _comes(self, what: str, every_seconds: float) -> bool:
        """Whether something that comes about so often comes in this second."""
        return every_seconds > 0 and self.faults.strikes(what, 1.0 / every_seconds)

    def _power_on(self, machine: Machine) -> None:
        machine.off()
        self._copy_or_put_back(machine)
        machine.start()
        self.counts["starts after a loss of power"] += 1
        self.note(f"{machine.label} has started again")
        if self.is_busy:
            self._settle_in(machine)

    def _copy_or_put_back(self, machine: Machine) -> None:
        """A machine that is off: a restore, a virtual machine rolled back, yesterday's disk."""
        if not self.faults.put_back_every_seconds or not self.is_busy:
            return
        if self.twin is None and self.faults.strikes("systems that were started twice", self.faults.twin):
            self._start_beside(machine)
        elif machine.copy is not None and self.faults.strikes("state directories put back", 0.5):
            machine.put_back()
            self.note(f"{machine.label} is put back to its copy")
        elif machine.copy is None or self.random.random() < 0.3:
            machine.take_copy()
            self.note(f"{machine.label} was copied")

    # -- one system twice --------------------------------------------------------------------------------------------

    def _start_beside(self, machine: Machine) -> None:
        """Both live from now on, are used, and talk to the same peer, until an operator decides."""
        is_old = machine.copy is not None and self.random.random() < 0.3
        self.twin = twin = machine.twin(f"{machine.name}-{self.tasks.steps}", of_the_copy=is_old)
        self.favourite, self.is_decided = self.random.choice((machine, twin)), False
        for each in self.machines:
            each.partner = None
        self.checks.shared_ledgers |= machine.groups_ever
        self._tell_the_network()
        self.note(f"{twin.label} is started beside {machine.label}; {self.favourite.label} is to live")
        twin.start()
        self._settle_in(twin)

    def _stop_the_other(self) -> None:
        """One goes on alone: the favourite."""
        assert self.twin is not None
        assert self.favourite is not None
        stopped = next(each for each in self.everyone() if each.name == self.twin.name and each is not self.favourite)
        stopped.lose_power()
        stopped.off()
        self.machines = [self.favourite if each.name == self.twin.name else each for each in self.machines]
        self.twin, self.is_decided = None, False
        self._tell_the_network()
        self.counts["twins of which one was stopped"] += 1
        self.note(f"{stopped.label} is stopped for ever")

    def _choose(self, machine: Machine) -> None:
        """A peer that was put back is refused, until an operator has chosen it: the machine that it was is gone. Of
        two, the operator chooses the favourite."""
        start = self._choice(machine) if machine.is_up and self.random.random() < 0.3 else ""
        if start:
            self.tasks.spawn(f"{machine.name}-user", lambda: self._accept(machine, start), machine)

    def _choice(self, machine: Machine) -> str:
        for peer in machine.peers():
            about = machine.replication.introductions.about(peer)
            if about.refused is None:
                continue
            if self.twin is None or self.twin.name == machine.name:
                return f"{about.refused.start} {peer.name}"
            assert self.favourite is not None
            for start in (about.refused.start, about.known.newest):
                if start in self.favourite.replication.introductions._starts:
                    return f"{start} {peer.name}"
        return ""

    def _accept(self, machine: Machine, start: str) -> None:
        twin = self.twin
        if User(self, machine).type(f"set peer-connection accept-incarnation {start}"):
            machine.partner = None
            if twin is not None and twin is self.twin and twin.name != machine.name and not self.is_decided:
                self.is_decided = True
                self.counts["twins that an operator decided about"] += 1

    def _quiet_down(self) -> None:
        self.faults.quiet()
        self.network.heal()
        self._run_until(lambda: not any(name.endswith(("-host", "-user")) for name in self.tasks.names()))
        for machine in self.everyone():
            if machine.is_up and machine.pool.has_failed:
                machine.lose_power()
            if not machine.is_up:
                self._do(lambda machine=machine: self._power_on(machine))  # type: ignore[misc]
        self.note("quiet")

    # -- quiet -------------------------------------------------------------------------------------------------------

    def _bring_up_to_date(self) -> None:
        """R7: what has failed goes on by itself. What a user has suspended, a user has to resume."""
        for machine in self.machines:
            self._as(machine, lambda machine=machine: self._make_room(machine))  # type: ignore[misc]
        self._choose_all()
        for machine in self.machines:
            self._drop_halves(machine)
        for machine in self.machines:
            for of in self._primaries(machine):
                if self._replicate_to_the_end(machine, of) is not None:
                    self.checks.up_to_date(machine, of)

    def _choose_all(self) -> None:
        for machine in 2 * self.everyone():
            self._meet_and_choose(machine)
        if self.twin is not None:
            self._stop_the_other()
            for machine in 2 * self.machines:
                self._meet_and_choose(machine)

    def _meet_and_choose(self, machine: Machine) -> None:
        self._as(machine, lambda: self._meet(machine))
        for each in self.everyone():
            start = self._choice(each)
            if start:
                self._as(each, lambda each=each, start=start: self._accept(each, start))  # type: ignore[misc]

    def _meet(self, machine: Machine) -> None:
        """So that one who is to be refused is, on both sides."""
        for peer in machine.peers():
            with contextlib.suppress(OffsiteError), machine.replication.peers.connect(peer):
                pass

    def _make_room(self, machine: Machine) -> None:
        """A pool that is full stays so until somebody deletes something."""
        user = User(self, machine)
        for name in [image.name for image in machine.pool.by_id.values() if image.kind == "snapshot"]:
            if name in machine.pool.names:
                user.type(f"unmap volume initiator nbd:unix {name}")
                user.type(f"delete snapshot {name}")

    def _drop_halves(self, machine: Machine) -> None:
        """A set whose making was cut off is deleted, and one whose other half is gone, too."""
        user = User(self, machine)
        for of in machine.sets():
            is_whole = of.uuid in {each.uuid for each in self.other(machine).sets()}
            if not is_whole or of.state != "ready":
                how = "" if is_whole else "local-only "
                self._as(machine, lambda of=of, how=how: user.type(f"delete replication-set {how}{of.name}"))  # type: ignore[misc]

    def _primaries(self, machine: Machine) -> list[SetRecord]:
        return [of for of in machine.sets() if of.role == "primary"]

    def _replicate_to_the_end(self, machine: Machine, of: SetRecord) -> RunRecord | None:
        """None when a pool has no room for it, and the set was deleted for that."""
        user = User(self, machine)
        if of.suspended:
            self._as(machine, lambda: user.type(f"resume replication-set {of.name}"))
        for line in ("", f"replicate {of.name}"):
            if line and not self._ask_for(machine, of, line):
                self._give_up(machine, of)
                return None
            if not self._wait_for_runs(machine, of):
                self._give_up(machine, of)
                return None
        with machine.database.read() as connection:
            run = run_records.set_runs(connection, of.id)[0]
        if run.state != "success":
            raise Violation(f"R7: the last run of set {of.name} has {run.state}: {run.error}")
        self.counts["sets brought up to date"] += 1
        return run

    def _ask_for(self, machine: Machine, of: SetRecord, line: str) -> bool:
        """Whether it was done: if need be, after an operator has decided about a set that is diverged."""

        def ask() -> bool:
            return bool(self._as(machine, lambda: User(self, machine).type(line)))

        # The decision starts a run: with the queue policy discard a request before its end would be dropped.
        return ask() or (self._is_decided(machine, of) and self._wait_for_runs(machine, of) and ask())

    def _wait_for_runs(self, machine: Machine, of: SetRecord) -> bool:
        """False: a pool is full. A disk that was full has room again, and what failed for it goes on by itself."""
        until = self.tasks.now + RECOVERY_SECONDS
        while runs := self._unfinished(machine, of):
            if self.is_small and any(" full" in (run.error or "") for run in runs):
                return False
            self._resolve(machine, of)
            if self.tasks.now >= until:
                told = [(run.state, run.error) for run in runs]
                raise Violation(f"R7: set {of.name} is not up to date after {RECOVERY_SECONDS:.0f} s of quiet: {told}")
            self.tasks.sleep(0.25)
        return True

    def _is_decided(self, machine: Machine, of: SetRecord) -> bool:
        """Whether an operator has decided about a diverged set, or has found that nothing is to be decided: a visit may
        just have found that both ends agree again."""
        return self._resolve(machine, of) or not self._is_diverged(machine, of)

    def _is_diverged(self, machine: Machine, of: SetRecord) -> bool:
        with machine.database.read() as connection:
            half = other_halves.find_other_half(connection, of.id)
        return half is not None and half.is_diverged

    def _resolve(self, machine: Machine, of: SetRecord) -> bool:
        """An operator decides about a set that is diverged; whether it was one."""
        if not self._is_diverged(machine, of):
            return False
        line = f"resolve replication-set use primary {of.name}"
        return bool(self._as(machine, lambda: User(self, machine).type(line)))

    def _give_up(self, machine: Machine, of: SetRecord) -> None:
        """P7: whoever has no room is told so."""
        if not self.is_small:
            raise Violation(f"P7: a pool of {machine.name} is full, and should not be")
        self.counts["sets for which there was no room"] += 1
        user = User(self, machine)
        for line in (
            f"clear replication-queue {of.name}",
            f"abort replication {of.name}",
            f"delete replication-set {of.name}",
        ):
            self._as(machine, lambda line=line: user.type(line))  # type: ignore[misc]

    def _unfinished(self, machine: Machine, of: SetRecord) -> list[RunRecord]:
        with machine.database.read() as connection:
            return [run for run in run_records.unfinished_runs(connection) if run.set_id == of.id]

    def _run_once_more(self) -> None:
        """R6: without faults, a run sends the blocks that differ."""
        for machine in self.machines:
            for of in self._primaries(machine)[:1]:
                image = machine.pool.by_id[of.members[0].image_id]
                number = self.random.randrange(image.size_bytes // BLOCK_BYTES)
                with contextlib.closing(machine.pool.open(image.id)) as opened:
                    try:
                        opened.write(number * BLOCK_BYTES, memoryview(self.random.randbytes(BLOCK_BYTES)))
                    except PoolFull:
                        continue
                run = self._replicate_to_the_end(machine, of)
                if run is None:
                    continue
                if run.changed_bytes != BLOCK_BYTES:
                    raise Violation(f"R6: one block has changed, and the run sent {run.changed_bytes} bytes")
                self.checks.up_to_date(machine, of)

    def _take_apart(self) -> None:
        for machine in self.machines:
            user = User(self, machine)
            for of in self._primaries(machine):
                self._as(machine, lambda of=of, user=user: user.type(f"delete replication-set {of.name}"))  # type: ignore[misc]
        for machine in self.machines:
            left = [image.name for image in machine.pool.by_id.values() if image.kind == "internal"]
            if left or machine.sets():
                raise Violation(
                    f"R8: on {machine.name} there are {left} and {machine.sets()} left, and no set any more"
                )
