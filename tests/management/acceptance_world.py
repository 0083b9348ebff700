"""Two systems with objects in many states, and how each command is written for an object with sensible parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from offsite.management.acceptance import FINDERS, targets_of_kind
from offsite.management.command_table.command import Command, Parameter, Role
from offsite.management.command_table.listings import LISTINGS
from offsite.management.commands import TABLE
from offsite.replication.sets.status import Status
from offsite.units import KIB, MIB
from tests.management.management_bench import PASSWORD, Bench
from tests.management.replicated_world import World, await_end, await_that, make_world

NOT_DONE = {"test notice"}  # it sends something
SPARE = "Spare"  # a volume of each system that is in no set and no group
_numbers = count(1)

WORDS: Mapping[str, str] = {
    "create volume": "size 1MiB name {new}",
    "set pool": "low-threshold 10%",
    "expand volume": "size 1MiB",
    "set volume": "name {new}",
    "copy volume": "name {new}",
    "rollback volume": "snapshot {name}-s",
    "create volume-group": "name {new}",
    "set volume-group": "name {new}",
    "set initiator": "nickname {new}",
    "create replication-set": "peer-connection {peer} secondary-volume-name {new} name {new}",
    "set replication-set": "minimum-snapshot-count 2",
    "resolve replication-set": "use primary",
    "set peer-connection": "bandwidth-limit none",
    "set task": "retention-count 5",
    "set schedule": "task-name Nightly",
    "set user": "roles manage",
}
OF_TASKS = {
    "source-volume": "type TakeSnapshot snapshot-prefix P retention-count 3 name {new}",
    "snapshot-volume": "type ResetSnapshot name {new}",
    "replication-set": "type Replicate name {new}",
}
SPECIFICATION = "start 2090-01-04 01:30 every 1 days"
SECRETS = {"password": "another open sesame"}


@contextmanager
def make_acceptance_world(directory: Path) -> Iterator[World]:
    """As `World`, and at London: Lost is in LostDR, which is Diverged; Open is open at a host; Orphan is a snapshot
    whose volume is gone; Free is mapped to everyone, Loose to one initiator; and one object of each other kind. Each
    volume has a snapshot NAME-s."""
    with make_world(directory) as world:
        london = world.london
        for name in ("Lost", "Open", "Gone"):
            london.do(f"create volume pool A size 1MiB {name}")
        london.do("create snapshots volumes Gone Orphan")
        london.do("delete volumes Gone")
        london.target.open.append(("nbd:192.0.2.9", london.system.image("Open").image.id))
        _diverge(world)
        london.do("map volume Free")
        london.do("map volume initiator nbd:192.0.2.7 Loose")
        london.do("set initiator id nbd:192.0.2.7 nickname web1")
        for name in ("web2", "web3"):
            london.do(f"create initiator-certificate {name}")
        london.do("revoke initiator-certificate initiator tls:web3")
        london.do("create task type TakeSnapshot source-volume Free snapshot-prefix F retention-count 2 Nightly")
        london.do(f'create schedule schedule-specification "{SPECIFICATION}" task-name Nightly Night')
        london.do("create notice severity error operators", secrets={"url": "json://127.0.0.1:9/"})
        london.system.users.create("otto", PASSWORD, Role.MONITOR)
        world.newark.do("create volume-group Empty")
        for bench in world.systems.values():
            bench.do(f"create volume pool A size 1MiB {SPARE}")
            for each in names(bench, "volume"):
                bench.do(f"create snapshots volumes {each} {each}-s")
        yield world


def _diverge(world: World) -> None:
    london, newark = world.london, world.newark
    london.do("set peer-connection bandwidth-limit none Newark")
    london.do("create replication-set peer-connection Newark primary-volume Lost LostDR")
    london.do("replicate LostDR")
    await_end(london, "LostDR")
    found = newark.system.replication.sets.record("LostDR")
    with newark.system.database.transaction() as transaction:
        for table in ("recovery_points", "points"):
            base = f"SELECT uuid FROM points WHERE state = 'base' AND set_id = {found.id}"
            transaction.exec_driver_sql(f"UPDATE {table} SET uuid = '{'f' * 36}' WHERE uuid IN ({base})")
    replication = london.system.replication
    replication.reconciler.set_changed()
    await_that(lambda: replication.sets.get("LostDR").status is Status.DIVERGED)


def start_slow_run(world: World) -> None:
    """SlowDR has a run under way for more than a minute."""
    london = world.london
    london.do("create volume pool A size 8MiB Slow")
    london.do("create snapshots volumes Slow Slow-s")
    london.write("Slow", 0, os.urandom(8 * MIB))
    london.do("create replication-set peer-connection Newark primary-volume Slow SlowDR")
    world.newark.do("create snapshots volumes Slow Slow-s")
    london.do("set peer-connection bandwidth-limit 100KB Newark")
    london.do("replicate SlowDR")
    assert 100 * KIB < 8 * MIB / 60
    await_that(lambda: london.rows("show replication-runs SlowDR")[0]["state"] == "running")


def names(bench: Bench, kind: str) -> list[str]:
    """Of all objects of a kind, as the command that lists them tells."""
    listing = LISTINGS[kind]
    found = [str(row[listing.properties[0]]) for row in bench.rows(" ".join(listing.command))]
    return sorted({each for each in found if each})


def actions() -> Iterator[tuple[Command, Parameter, str]]:
    """Each command with each parameter that names what it acts on, and the kind of that."""
    for command in TABLE:
        for kind in FINDERS:
            for target in targets_of_kind(command, kind):
                if command.text not in NOT_DONE:
                    yield command, target, kind


def words(bench: Bench, command: Command, target: Parameter, chosen: Sequence[str]) -> list[str] | None:
    """The command for these objects; None where no parameters make sense."""
    found = _more(bench, command, target, chosen)
    if found is None:
        return None
    named = [] if target.positional else [target.name]
    return [*command.words, *found, *named, f'"{",".join(chosen)}"']


def _more(bench: Bench, command: Command, target: Parameter, chosen: Sequence[str]) -> list[str] | None:
    new, peer = f"New{next(_numbers)}", "Newark" if bench.system.name == "London" else "London"
    if command.text == "create task":
        return OF_TASKS[target.name].format(new=new).split()
    if command.text == "create schedule":
        return ["schedule-specification", f'"{SPECIFICATION}"', "name", new]
    if command.text == "create snapshots":
        members = bench.system.images_or_members(chosen) if _has_members(bench, chosen) else chosen
        return ["names", ",".join(f"{new}-{number}" for number, _ in enumerate(members))]
    if command.text == "add volume-group-members":
        return ["Empty"] if target.name == "volumes" else ["volumes", _ungrouped(bench)]
    if command.text == "remove volume-group-members":
        members = bench.system.members(bench.system.groups.get(chosen[0]))
        return ["volumes", members[0].image.name] if members else None
    if command.text == "unmap volume":
        whom = [each.initiator for each in bench.system.maps.maps() if each.image_id in _ids(bench, chosen)]
        return ["initiator", whom[0]] if whom and whom[0] else []
    return WORDS.get(command.text, "").format(new=new, peer=peer, name=chosen[0]).split()


def _ungrouped(bench: Bench) -> str:
    """A volume of pool A that is in no group and no set."""
    taken = {image_id for group in bench.system.groups.all() for image_id in group.image_ids}
    taken |= bench.system.replication_roles().keys()
    free = [each for each in bench.system.images() if each.pool.name == "A" and each.image.id not in taken]
    return free[0].image.name


def _has_members(bench: Bench, chosen: Sequence[str]) -> bool:
    groups = [bench.system.groups.find(each) for each in chosen]
    return all(group is None or group.image_ids for group in groups)


def _ids(bench: Bench, chosen: Sequence[str]) -> set[int]:
    return {each.image.id for each in bench.system.images() if each.image.name in chosen}
