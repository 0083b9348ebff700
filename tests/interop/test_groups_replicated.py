"""Volume groups between two real processes: one instant of all members, at once or not at all (R1), fixed members."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from tests.interop.replication import MIB, HostDisk, Replicated
from tests.systems import System, two_systems

pytestmark = pytest.mark.slow

MEMBERS = [f"m{number:02d}" for number in range(16)]


class DependentWriter(threading.Thread):
    """Writes 1, 2, 3 … to the members in turn, each only once the one before was acknowledged.

    So an instant of all members holds every number up to some one, and none after it: were a member even one write
    older or newer than the others, the numbers would show it.
    """

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        self._stack = ExitStack()
        self._disks = [self._stack.enter_context(HostDisk(system.nbd_socket, name)) for name in MEMBERS]
        self._stopping = threading.Event()
        self.written = 0

    def run(self) -> None:
        with self._stack:
            while not self._stopping.is_set():
                number = self.written + 1
                block = struct.pack(">Q", number) * 512
                self._disks[number % len(MEMBERS)].write(0, block)
                self.written = number

    def stop(self) -> None:
        self._stopping.set()
        self.join(30)


def newest_of_one_instant(numbers: list[int]) -> int:
    """The newest of what the members hold, once it is seen that they are of one instant."""
    newest = max(numbers)
    for member, number in enumerate(numbers):
        expected = newest - (newest - member) % len(MEMBERS)
        assert number == max(0, expected), f"{MEMBERS[member]} is of another instant: {numbers}"
    return newest


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    with two_systems(tmp_path_factory.mktemp("groups")) as systems:
        pair = Replicated(*systems)
        for name in MEMBERS:
            pair.make_volume(name, size_mib=1, written_mib=0)
        pair.london.ask("create", "volume-group", "volumes", ",".join(MEMBERS), "Books")
        pair.make_set("BooksDR", "Books")
        yield pair


def numbers_there(pair: Replicated, name: str) -> list[int]:
    """What a snapshot of the secondary group, taken now, holds of each member. It is used as any volume is."""
    newark = pair.newark
    newark.ask("create", "snapshots", "volumes", "Books", name)
    taken = [f"{name}-{number}" for number in range(1, len(MEMBERS) + 1)]
    newark.ask("map", "volume", "access", "rw", "initiator", "nbd:unix", ",".join(taken))
    numbers = []
    for each in taken:
        with HostDisk(newark.nbd_socket, each) as disk:
            numbers.append(struct.unpack(">Q", disk.read(0, 8))[0])
            disk.write(MIB // 2, b"written by whoever looked" + bytes(487))
    newark.ask("delete", "snapshot", ",".join(taken))
    return numbers


def test_a_group_under_writes_is_over_there_as_one_instant_whenever_one_looks(pair: Replicated) -> None:
    """Also in the middle of runs: the whole group changes at once, or not yet."""
    assert numbers_there(pair, "before") == [0] * 16
    writer = DependentWriter(pair.london)
    writer.start()
    try:
        seen = []
        for look in range(16):
            if pair.status("BooksDR") != "Running":
                pair.london.ask("replicate", "BooksDR")
            seen.append(newest_of_one_instant(numbers_there(pair, f"look{look}")))
        assert writer.is_alive()
    finally:
        writer.stop()
    assert seen == sorted(seen), "it never goes back"
    assert len(set(seen)) > 5, "too few runs were seen to mean anything"
    pair.await_success("BooksDR")
    pair.replicate("BooksDR")
    assert newest_of_one_instant(numbers_there(pair, "after")) == writer.written
    assert all(pair.same(name) for name in MEMBERS)


def test_both_systems_show_the_group_and_its_set(pair: Replicated) -> None:
    for system, role in ((pair.london, "primary"), (pair.newark, "secondary")):
        shown = pair.show("BooksDR", system)
        assert (shown["group"], shown["members"], shown["role"]) == ("Yes", ",".join(MEMBERS), role)
        assert (shown["primary-volume-name"], shown["secondary-volume-name"]) == ("Books", "Books")
        (group,) = system.ask("show", "volume-groups", "Books")["volume-groups"]
        assert (group["member-count"], group["cs-replication-role"], group["replication-set"]) == (16, role, "BooksDR")


def test_the_members_of_a_group_in_a_set_are_fixed_on_both_systems(pair: Replicated) -> None:
    for system in (pair.london, pair.newark):
        system.ask("create", "volume", "pool", "A", "size", "1MiB", "Extra")
        for command in (
            ("add", "volume-group-members", "volumes", "Extra", "Books"),
            ("remove", "volume-group-members", "volumes", "m03", "Books"),
            ("delete", "volume-groups", "--yes", "Books"),
        ):
            sentence = system.refused(*command)
            assert "volume group of replication set BooksDR" in sentence
        system.ask("delete", "volumes", "Extra")
    sentence = pair.london.refused(
        "create", "replication-set", "peer-connection", "Newark", "primary-volume", "m03", "OneDR"
    )
    assert "m03 is in volume group Books, which is already in replication set BooksDR" in sentence


def calls_its_primary(pair: Replicated, name: str, system: System) -> bool:
    return bool(pair.show("BooksDR", system)["primary-volume-name"] == name)


def test_a_primary_group_gets_another_name_and_the_other_side_shows_it(pair: Replicated) -> None:
    for old, new in (("Books", "Ledgers"), ("Ledgers", "Books")):
        pair.london.ask("set", "volume-group", "name", new, old)
        pair.await_on_both("the name is shown", partial(calls_its_primary, pair, new))
    assert pair.show("BooksDR", pair.newark)["secondary-volume-name"] == "Books"


def test_a_history_of_a_group_has_all_its_members_of_one_run(pair: Replicated) -> None:
    pair.london.ask(
        "set", "replication-set", "snapshot-history", "both", "snapshot-basename", "night", "snapshot-count", "2",
        "BooksDR",
    )  # fmt: skip
    for _ in range(3):
        pair.write("m05", size_mib=1)
        pair.replicate("BooksDR")
    newest = pair.runs("BooksDR")[0]["snapshot-number"]
    expected = [f"night_{number:04d}-{member}" for number in (newest - 1, newest) for member in range(1, 17)]
    pair.await_on_both("the oldest is gone", lambda system: sorted(pair.history("BooksDR", system)) == sorted(expected))
    assert pair.same(f"night_{newest:04d}-6") and pair.same(f"night_{newest:04d}-6", "m05")
    assert not pair.same(f"night_{newest:04d}-6", f"night_{newest - 1:04d}-6")


def test_a_set_of_a_group_that_is_deleted_leaves_ordinary_groups(pair: Replicated) -> None:
    pair.london.ask("delete", "replication-set", "BooksDR")
    for system in (pair.london, pair.newark):
        assert system.ask("show", "replication-sets").get("replication-sets", []) == []
        assert system.ask("show", "volume-groups")["volume-groups"][0]["member-count"] == 16
        system.ask("remove", "volume-group-members", "volumes", "m15", "Books")
        system.ask("delete", "volume-groups", "delete-volumes", "yes", "Books")
