"""A life in which one of the two systems lies: what it says is replaced on its way, as primary and as secondary.

The liar's own pool and records are honest ones, so that it is as good as new once the lies stop. What must hold
meanwhile is that of the honest one: see LyingChecks. When the lies have stopped, all has to come right as in any other
life (R7, R6), where it must be after what an operator is told to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from offsite.access.certificates import Authority
from offsite.pools.protocol import Change, Delete
from offsite.replication.points.point_records import PointRecord
from offsite.replication.points.snapshot_history import HeldSnapshot, history_of
from offsite.replication.records import run_records, set_records
from offsite.replication.records.set_records import SetRecord
from offsite.replication.wire.messages import Ack, AnyMessage, Ask, Batch, Begin, Commit, Committed, Holds, Ready
from tests.replication.lies import HONEST, Lies
from tests.simulation.checks import Checks
from tests.simulation.shadow import Violation, same
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.machine import Machine

RATES = (0.05, 0.4)  # of its messages
FAVOURITES = (Begin, Begin, Holds, Ready, Committed, Commit, Batch)


class Liar:
    """Between the two: knows what each of them has said, and what has arrived of it."""

    def __init__(self, world: LyingWorld, chance: Random) -> None:
        self._world = world
        self._chance = chance
        self.machine = chance.choice(world.machines).name
        self._rate = chance.uniform(*RATES)
        # Half of them lie about one thing alone, so that what follows from it is not cut off by the next lie.
        self._favourite = chance.choice(FAVOURITES) if chance.random() < 0.5 else None
        self._uuids: list[str] = []  # that were mentioned
        self._lies = Lies(chance, self._uuids)
        self.is_on = False
        self.begun: dict[str, list[Begin]] = {}  # that the honest one has heard, by their points
        self.sent: dict[str, set[str]] = {}  # digests of the honest one, by the points that it wants committed

    def what_arrives(self, sender: Machine, message: AnyMessage) -> list[AnyMessage]:
        self._overhear(message)
        if sender.name != self.machine:
            if isinstance(message, Commit):
                self.sent.setdefault(message.point, set()).add(message.digest.hex())
            return [message]
        arriving = self._replaced(message)
        for said in arriving:
            if isinstance(said, Begin):
                self.begun.setdefault(said.point, []).append(said)
        return arriving

    def _overhear(self, message: AnyMessage) -> None:
        told = {Ask: ("set_uuid",), Begin: ("run", "point", "base")}.get(type(message), ())
        for uuid in filter(None, (getattr(message, name) for name in told)):
            if uuid not in self._uuids:
                self._uuids.append(uuid)

    def _is_lied_about(self, message: AnyMessage) -> bool:
        if self._favourite is None:
            return self._chance.random() < self._rate
        return isinstance(message, self._favourite) and self._chance.random() < 0.5

    def _replaced(self, message: AnyMessage) -> list[AnyMessage]:
        if not self.is_on or isinstance(message, HONEST) or not self._is_lied_about(message):
            return [message]
        if isinstance(message, Ack) and self._chance.random() < 0.3:
            arriving: list[AnyMessage] = [message, message]
        else:
            arriving = [self._lies.in_place_of(message)]
        self._world.counts[f"lies in place of {type(message).__name__}"] += 1
        self._world.note(f"{self.machine} lies: {message!r} is {arriving!r}"[:700])
        return arriving


class LyingChecks(Checks):
    """What another system says may spoil what is a copy of that one, and nothing else.

    The honest one's own volumes, snapshots and pool are looked at as ever. Besides:
    as a secondary, it shows what was committed as a whole, gives up a complete copy only to who has named it, deletes
    no volume and no snapshot but the oldest of a history; as a primary, it takes no digest but its own for a success.
    """

    def __init__(self, world: LyingWorld) -> None:
        super().__init__(world)
        self._lying = world
        self._spoilt: set[tuple[str, str]] = set()  # sets and bases from when the lies were told
        self._histories: list[list[HeldSnapshot]] = []  # of the honest one, as of its last change of images
        self._shown: dict[str, str] = {}  # of the honest one's secondary sets

    def _is_honest(self, machine: Machine) -> bool:
        return machine.name != self._lying.liar.machine

    def committed(self, machine: Machine) -> None:
        super().committed(machine)
        if not self._is_honest(machine):
            return
        sent = self._lying.liar.sent
        with machine.database.read() as connection:
            sets = set_records.all_sets(connection)
            self._histories = [history_of(connection, of.id) for of in sets]
            for of in sets:
                for run in run_records.set_runs(connection, of.id) if of.role == "primary" else ():
                    if run.state == "success" and run.uuid in sent and run.digest not in sent[run.uuid]:
                        raise Violation(f"R2: run {run.uuid} counts as a success with another digest: {run.digest}")

    def _check_secondary(self, machine: Machine, of: SetRecord, held: Sequence[PointRecord]) -> None:
        base = next((point for point in held if point.state == "base"), None)
        if base is not None and self._lying.liar.is_on:
            self._spoilt.add((of.uuid, base.uuid))
        if not self._is_honest(machine):
            super()._check_secondary(machine, of, held)
            return
        if base is not None:
            self._check_named(of, base.uuid)
            machine.bases[of.uuid] = base.uuid
        if base is None or (of.uuid, base.uuid) not in self._spoilt:
            super()._check_secondary(machine, of, held)
            return
        for member, kept in zip(of.members, base.image_ids, strict=True):
            images, by_id = machine.shadow.images, machine.pool.by_id
            if not same(images[by_id[member.image_id].name], images[by_id[kept].name]):
                raise Violation(f"R1: the secondary of set {of.name} is not what was committed as {base.uuid}")

    def _check_named(self, of: SetRecord, base: str) -> None:
        """R5: whoever has what was shown before replaced says that it knows it."""
        before = self._shown.get(of.uuid)
        self._shown[of.uuid] = base
        if before in (None, base):
            return
        if not any(before in (begin.base, begin.replaces) for begin in self._lying.liar.begun.get(base, ())):
            raise Violation(f"R5: set {of.name} held run {before}, and {base} has replaced it without naming it")

    def _check_base(self, machine: Machine, of: SetRecord, base: PointRecord) -> None:
        """Of what was agreed on while one lied, the primary may have let go."""
        if (of.uuid, base.uuid) not in self._spoilt:
            super()._check_base(machine, of, base)

    def given_up(self, machine: Machine, changes: Sequence[Change], names: Mapping[int, str]) -> None:
        super().given_up(machine, changes, names)
        task = self._world.tasks.current
        if self._is_honest(machine) and task is not None and task.name.endswith(("-session", "-worker")):
            deleted = [change.image_id for change in changes if isinstance(change, Delete)]
            for image_id in deleted:
                if not names.get(image_id, "<").startswith("<"):
                    self._check_deleted(image_id, names[image_id])

    def _check_deleted(self, image_id: int, name: str) -> None:
        """By the peer: the oldest of a history, and never the last."""
        held = next((held for held in self._histories if image_id in [each.image_id for each in held]), None)
        if held is None:
            raise Violation(f"R5: {name} was deleted by a peer, and is of no history")
        if held[-1].run == next(each.run for each in held if each.image_id == image_id):
            raise Violation(f"R5: {name} was deleted by a peer, and is the last of its history")
        self._world.counts["snapshots that a run let go"] += 1


class LyingWorld(World):
    def __init__(self, seed: int, directory: Path, templates: Path, authorities: dict[str, Authority]) -> None:
        super().__init__(seed, directory, templates, authorities)
        self.faults.put_back_every_seconds = 0.0  # one who was put back is refused by who it is, whatever it says
        self.liar = Liar(self, Random(f"{seed}, lies"))
        self.network.what_arrives = self.liar.what_arrives
        self.checks = LyingChecks(self)

    def _chaos(self) -> None:
        self.liar.is_on = True
        super()._chaos()

    def _quiet_down(self) -> None:
        self.liar.is_on = False
        super()._quiet_down()

    def _ask_for(self, machine: Machine, of: SetRecord, line: str) -> bool:
        """That a set is diverged may have been a lie: an operator who decides about it is told so, and asks again."""
        return super()._ask_for(machine, of, line) or super()._ask_for(machine, of, line)
