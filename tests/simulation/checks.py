"""What must always hold, looked at after every commit of either system, and as a whole when all is quiet.

P1 is looked at when a machine starts again (machine.py), P2 and P5 whenever anything is read (shadow.py): a snapshot
that changes, or a block of somebody else, is not what the shadow holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from offsite.pools.protocol import Change, Delete, Replace, Snapshot
from offsite.replication.points import point_records
from offsite.replication.points.point_records import PointRecord
from offsite.replication.records import set_records
from offsite.replication.records.set_records import SetRecord
from tests.simulation.shadow import ZERO, Content, Violation, frozen, same

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from tests.simulation.world import World

LEDGER = b"ledger "


class Checks:
    def __init__(self, world: World) -> None:
        self._world = world
        self.points: dict[
            str, dict[int, Content]
        ] = {}  # by the run: what each member of the primary held at its instant
        self.removed: list[Content] = []  # of snapshots that a person, or a rule, has deleted or reset
        self.broken_ledgers: set[str] = set()  # names of members whose order a crash may have upset
        self.shared_ledgers: set[str] = set()  # of systems that lived twice: two write them

    # -- at every commit -------------------------------------------------------------------------------------------

    def about_to_commit(
        self, changes: Sequence[Change], after: Mapping[str, Content], volumes: Collection[int]
    ) -> None:
        """A change of images is as good as made: notes the instants that runs are to send, and looks at P3."""
        taken = [change for change in changes if isinstance(change, Snapshot)]
        for change in taken:
            if change.kind == "internal":  # only the primary of a set takes such a one
                run, position = change.name[1:-1].split(" ")
                self.points.setdefault(run, {})[int(position)] = frozen(after[change.name])
                self._check_order(list(self.points[run].values()))
        self._check_order([after[change.name] for change in taken if change.source in volumes])

    def given_up(self, machine: Machine, changes: Sequence[Change], names: Mapping[int, str]) -> None:
        """Notes what somebody deletes or overwrites on purpose: runs only do that to their own images."""
        for change in changes:
            if isinstance(change, Delete):
                image_id = change.image_id
            elif isinstance(change, Replace) and change.target not in machine.secondary_ids:
                image_id = change.target
            else:
                continue
            name = names.get(image_id, "<")
            if not name.startswith("<"):
                self.removed.append(frozen(machine.shadow.images[name]))

    def _check_order(self, contents: Sequence[Content]) -> None:
        """P3: hosts write a number to each member of a group in turn, and go on once it is acknowledged."""
        numbers: dict[bytes, list[tuple[int, int]]] = {}
        for content in contents:
            block = content.blocks.get(0, ZERO)
            if block.startswith(LEDGER):
                _, group, position, number, *_ = block.split()
                numbers.setdefault(group, []).append((int(position), int(number)))
        for group, found in numbers.items():
            if group.decode() in self.broken_ledgers | self.shared_ledgers:
                continue
            row = [number for _, number in sorted(found)]
            if any(later > earlier for earlier, later in pairwise(row)):
                raise Violation(f"P3: a snapshot of group {group.decode()} holds the writes {row}: one before another")

    def committed(self, machine: Machine) -> None:
        """R1, R2, R3 and R5, by the records of both machines."""
        with machine.database.read() as connection:
            sets = set_records.all_sets(connection)
            held = {of.id: point_records.set_points(connection, of.id) for of in sets}
        secondaries = [of for of in sets if of.role == "secondary"]
        machine.secondary_ids = {member.image_id for of in secondaries for member in of.members}
        for of in sets:
            if of.role == "primary":
                machine.had.setdefault(of.uuid, set()).update(point.uuid for point in held[of.id])
        for of in secondaries:
            self._check_secondary(machine, of, held[of.id])
        machine.primaries = {(of.uuid, of.generation): of.name for of in sets if of.role == "primary"}
        for other in self._world.others(machine):
            for both in machine.primaries.keys() & other.primaries.keys():
                raise Violation(f"R5: set {machine.primaries[both]} has two primaries of generation {both[1]}")

    def _check_secondary(self, machine: Machine, of: SetRecord, held: Sequence[PointRecord]) -> None:
        base = next((point for point in held if point.state == "base"), None)
        for position, member in enumerate(of.members):
            shown = machine.shadow.images[machine.pool.by_id[member.image_id].name]
            if base is None:
                if shown.blocks:
                    raise Violation(f"R1: the secondary of set {of.name} holds data, and no run was completed")
                continue
            wanted = self.points[base.uuid][position]
            if not same(shown, wanted):
                raise Violation(
                    f"R1: member {position} of the secondary of set {of.name} is not what it was at run {base.uuid}: "
                    f"{_difference(shown, wanted)}"
                )
            kept = machine.shadow.images[machine.pool.by_id[base.image_ids[position]].name]
            if not same(kept, wanted):
                raise Violation(f"R3: the base of set {of.name} on the secondary is not what it was at its run")
        if base is not None:
            self._check_base(machine, of, base)
            self._check_kept(machine, of, base)

    def _check_kept(self, machine: Machine, of: SetRecord, base: PointRecord) -> None:
        """R5: what the primary has never had is not overwritten: it is the volume, or a snapshot, until somebody
        removes it. That a copy is followed by a newer one of the primary that had it is what runs are for."""
        before = machine.bases.get(of.uuid)
        machine.bases[of.uuid] = base.uuid
        if before == base.uuid:
            return
        faults = self._world.faults
        if faults.strikes("commits whose acknowledgement was lost", faults.acknowledgement_loss):
            self._world.network.lost(machine)
        others = self._world.others(machine)
        senders = [other for other in others if base.uuid in other.had.get(of.uuid, ())] or others
        if len(senders) == 1:
            self._check_partners(machine, senders[0], of)
        if before is None or all(before in sender.had.get(of.uuid, ()) for sender in senders):
            return
        assert before is not None
        self._world.counts["copies that were kept before they were replaced"] += 1
        snapshots = [c for name, c in machine.shadow.images.items() if not name.startswith("<")]
        for position in range(len(of.members)):
            wanted = self.points[before][position]
            if not any(same(wanted, content) for content in [*snapshots, *self.removed]):
                raise Violation(f"R5: set {of.name} held run {before}, which its primary has never had, and it is gone")

    def _check_partners(self, secondary: Machine, primary: Machine, of: SetRecord) -> None:
        """R5: of a system that lives twice, a peer takes one, until an operator chooses the other one."""
        twin = self._world.twin
        for machine, partner in ((secondary, primary), (primary, secondary)):
            if twin is None or twin.name != partner.name:
                continue
            if machine.partner not in (None, partner):
                raise Violation(f"R5: {machine.label} has taken both copies of {partner.name} for set {of.name}")
            if machine.partner is None:
                self._world.counts["twins of which a peer took one"] += 1
            machine.partner = partner

    def _check_base(self, machine: Machine, of: SetRecord, base: PointRecord) -> None:
        """R3: the primary has the images of what the secondary has for its base."""
        other = self._world.other(machine)
        if not other.is_up:
            return
        with other.database.read() as connection:
            primary = set_records.find_set(connection, of.uuid)
            if primary is None or primary.role != "primary":
                return
            held = point_records.set_points(connection, primary.id)
        found = next((point for point in held if point.uuid == base.uuid), None)
        if found is None and (machine.was_put_back or other.was_put_back):
            return  # it holds another copy now; what has to become of the two, R5 says
        if found is None or len(found.image_ids) != len(of.members):
            raise Violation(f"R3: the base of set {of.name} is gone on the primary: it was run {base.uuid}")

    # -- when all is quiet -----------------------------------------------------------------------------------------

    def whole(self, machine: Machine) -> None:
        """P2, P5, P6: every byte of every image, and every count."""
        from tests.pools.pool_hosts import check_counts

        for image_id, image in machine.pool.by_id.items():
            problem = machine.shadow.images[image.name].problem_of(machine.pool.content(image_id), after_crash=False)
            if problem:
                raise Violation(f"P2 or P5: {image.name} on {machine.name}: {problem}")
        machine.pool.let_go()
        machine.pool.flush()
        try:
            check_counts(machine.pool)
        except AssertionError as error:
            raise Violation(f"P6: the pool of {machine.name} counts what is not so: {error}") from error

    def up_to_date(self, machine: Machine, of: SetRecord) -> None:
        """R7: nobody writes, and a run has succeeded: both ends hold the same, and nothing is left over."""
        other = self._world.other(machine)
        with other.database.read() as connection:
            there = set_records.find_set(connection, of.uuid)
            assert there is not None
            held_there = point_records.set_points(connection, there.id)
        with machine.database.read() as connection:
            held_here = point_records.set_points(connection, of.id)
        for mine, theirs in zip(of.members, there.members, strict=True):
            here = machine.shadow.images[machine.pool.by_id[mine.image_id].name]
            over_there = other.shadow.images[other.pool.by_id[theirs.image_id].name]
            if not same(here, over_there):
                raise Violation(f"R7: set {of.name} is not up to date: {_difference(over_there, here)}")
        states = [point.state for point in held_here], [point.state for point in held_there]
        if states != (["base"], ["base"]):
            raise Violation(f"R7: set {of.name} is up to date, and holds the points {states}")


def _difference(found: Content, wanted: Content) -> str:
    if found.size_bytes != wanted.size_bytes:
        return f"it has {found.size_bytes} bytes, not {wanted.size_bytes}"
    number = min(n for n in found.blocks.keys() | wanted.blocks.keys() if found.blocks.get(n) != wanted.blocks.get(n))
    return f"block {number} holds {found.blocks.get(number, ZERO)[:40]!r}, not {wanted.blocks.get(number, ZERO)[:40]!r}"
