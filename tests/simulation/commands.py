"""What users do: commands as they would type them, drawn by the seed. Many are refused, as they should be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING

from offsite.errors import OffsiteError
from offsite.replication.records.set_records import SetRecord
from tests.simulation.shadow import Violation

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from tests.simulation.world import World

PAUSE_SECONDS = 4.0
VOLUMES_MAX, SETS_MAX, SNAPSHOTS_MAX = 5, 3, 6
ABORT_SECONDS = 5.0
COMMAND_SECONDS = 700.0  # a peer may take 600 s for an answer, as long as it says that it is alive


class User:
    """Gives commands to one machine, one after another."""

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self._random = Random(world.random.random())

    def work(self) -> None:
        for line in self._first():
            self.type(line)
        while True:
            self._world.tasks.sleep(self._random.expovariate(1 / PAUSE_SECONDS))
            if not self._world.is_busy:
                return
            line = self._draw()
            if line:
                self.type(line)

    def type(self, line: str) -> bool:
        """Whether the command was done. R8: whatever becomes of it, it ends in time."""
        begun, verb = self._world.tasks.now, " ".join(line.split()[:2])
        try:
            self._machine.do(line)
            outcome = "done"
        except (OffsiteError, OSError) as error:
            outcome = f"refused: {error}"
        took = self._world.tasks.now - begun
        self._world.note(f"{self._machine.label}> {line}: {outcome} ({took:.1f} s)")
        self._world.counts[f"{_kind(verb)}: {'done' if outcome == 'done' else 'refused'}"] += 1
        if took > (ABORT_SECONDS if verb == "abort replication" else COMMAND_SECONDS):
            raise Violation(f"R8: {line!r} on {self._machine.name} took {took:.1f} s")
        return outcome == "done"

    def _first(self) -> list[str]:
        """So that there is something to replicate from the beginning: a volume by itself, and a group of two or
        three."""
        if self._machine.pool.by_id or self._machine.is_set_up:
            return []
        self._machine.is_set_up = True
        alone, *members = (self._new_name("V") for _ in range(self._random.randint(3, 4)))
        group, other = self._new_name("G"), self._world.other(self._machine).name
        return [
            *(f"create volume pool A size {64 * self._random.randint(2, 8)}KiB {name}" for name in (alone, *members)),
            f"create volume-group volumes {','.join(members)} {group}",
            f"create replication-set peer-connection {other} primary-volume {alone} {self._new_name('S')}",
            f"create replication-set peer-connection {other} primary-volume {group} {self._new_name('S')}",
        ]

    # -- drawing -----------------------------------------------------------------------------------------------------

    def _draw(self) -> str:
        acts: list[tuple[int, Callable[[], str]]] = [
            (6, self._create_volume),
            (3, self._create_group),
            (8, self._create_set),
            (30, self._replicate),
            (5, self._of_set("suspend replication-set {}")),
            (8, self._of_set("resume replication-set {}")),
            (6, self._of_set("abort replication {}")),
            (2, self._of_set("clear replication-queue {}")),
            (6, self._of_set("resolve replication-set use primary {}")),
            (4, self._set_set),
            (2, self._of_set("delete replication-set {}")),
            (1, self._of_set("delete replication-set local-only {}")),
            (6, self._snapshot),
            (3, self._of_snapshot("delete snapshot {}")),
            (2, self._of_snapshot("reset snapshot {}")),
            (2, self._rollback),
            (2, self._of_snapshot("map volume access rw initiator nbd:unix {}")),
            (2, self._of_snapshot("unmap volume initiator nbd:unix {}")),
            (2, self._of_volume("delete volumes {}")),
            (1, self._of_volume("expand volume size 64KiB {}")),
            (3, self._schedule),
            (1, self._of_set("delete task T{}")),
        ]
        return self._random.choices([act for _, act in acts], [weight for weight, _ in acts])[0]()

    def _new_name(self, kind: str) -> str:
        self._world.named += 1
        return f"{kind}{self._machine.name[0]}{self._world.named}"

    def _create_volume(self) -> str:
        if sum(image.kind == "volume" for image in self._machine.pool.by_id.values()) >= 2 * VOLUMES_MAX:
            return ""
        return f"create volume pool A size {64 * self._random.randint(1, 8)}KiB {self._new_name('V')}"

    def _create_group(self) -> str:
        free = [name for name in self._volumes() if self._random.random() < 0.5]
        return f"create volume-group volumes {','.join(free[:3])} {self._new_name('G')}" if free else ""

    def _create_set(self) -> str:
        names = [*self._volumes(), *self._machine.group_names, *self._snapshots()[:1]]
        if not names or len(self._sets("primary")) >= SETS_MAX:
            return ""
        name = self._new_name("S")
        history = self._random.choice(("", "secondary", "both"))
        if history:
            history = f"snapshot-history {history} snapshot-basename {name} snapshot-count 2"
        other, primary = self._world.other(self._machine).name, self._random.choice(names)
        return f"create replication-set peer-connection {other} primary-volume {primary} {history} {name}"

    def _replicate(self) -> str:
        of = self._one_set()
        if of is None:
            return ""
        snapshots = self._snapshots()
        if snapshots and self._random.random() < 0.15:
            return f"replicate snapshot {self._random.choice(snapshots)} {of.name}"
        return f"replicate {of.name}"

    def _set_set(self) -> str:
        of = self._one_set()
        if of is None:
            return ""
        change = self._random.choice(
            (
                "queue-policy discard",
                "queue-policy queue-latest",
                f"name {self._new_name('S')}",
                f"snapshot-basename {self._new_name('B')} snapshot-count 1 snapshot-history both",
                "snapshot-history disabled",
            )
        )
        return f"set replication-set {change} {of.name}"

    def _snapshot(self) -> str:
        if len(self._snapshots()) >= SNAPSHOTS_MAX:
            return ""
        groups = self._machine.group_names
        if groups and self._random.random() < 0.4:
            group = self._machine.system.groups.get(self._random.choice(sorted(groups)))
            names = [self._machine.pool.by_id[image_id].name for image_id in group.image_ids]
        else:
            names = self._volumes(secondaries=True)
            names = [self._random.choice(names)] if names else []
        new = ",".join(self._new_name("P") for _ in names)
        return f"create snapshots volumes {','.join(names)} names {new}" if names else ""

    def _rollback(self) -> str:
        """Of what is in no group: a member alone would get out of step with its ledger."""
        by_id = self._machine.pool.by_id
        grouped = {image_id for group in self._machine.system.groups.all() for image_id in group.image_ids}
        pairs = [
            (image.name, by_id[image.parent_id].name)
            for image in by_id.values()
            if image.kind == "snapshot" and image.parent_id in by_id and image.parent_id not in grouped
        ]
        if not pairs:
            return ""
        snapshot, volume = self._random.choice(pairs)
        return f"rollback volume snapshot {snapshot} {volume}"

    def _schedule(self) -> str:
        of = self._one_set()
        if of is None:
            return ""
        task = f"T{of.name}"
        if self._machine.system.tasks.find(task) is None:
            return f"create task type Replicate replication-set {of.name} {task}"
        start = datetime.fromtimestamp(self._machine.clock.now() + 6 * 60, UTC)
        specification = f"start {start:%Y-%m-%d %H:%M} every 1 hours"
        return f'create schedule schedule-specification "{specification}" task-name {task} {self._new_name("C")}'

    def _of_set(self, line: str) -> Callable[[], str]:
        def draw() -> str:
            of = self._one_set()
            return line.format(of.name) if of is not None else ""

        return draw

    def _of_snapshot(self, line: str) -> Callable[[], str]:
        def draw() -> str:
            names = self._snapshots()
            return line.format(self._random.choice(names)) if names else ""

        return draw

    def _of_volume(self, line: str) -> Callable[[], str]:
        def draw() -> str:
            names = self._volumes(secondaries=True)
            return line.format(self._random.choice(names)) if names else ""

        return draw

    # -- what there is -------------------------------------------------------------------------------------------------

    def _volumes(self, *, secondaries: bool = False) -> list[str]:
        return [
            image.name
            for image in self._machine.pool.by_id.values()
            if image.kind == "volume" and (secondaries or image.id not in self._machine.secondary_ids)
        ]

    def _snapshots(self) -> list[str]:
        return [image.name for image in self._machine.pool.by_id.values() if image.kind == "snapshot"]

    def _sets(self, role: str) -> list[SetRecord]:
        return [of for of in self._machine.sets() if of.role == role]

    def _one_set(self) -> SetRecord | None:
        """Mostly one that is primary here."""
        sets = self._sets("primary") if self._random.random() < 0.9 else self._machine.sets()
        return self._random.choice(sets) if sets else None


def _kind(verb: str) -> str:
    """Of a command, for counting: the name of a set is no part of it."""
    return "replicate" if verb.startswith("replicate ") and verb != "replicate snapshot" else verb
