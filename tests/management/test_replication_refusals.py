"""Each rule of replication is seen to refuse what breaks it: the return code, the sentence, and that nothing changed.

The rules are sections 1.2 to 1.9 of what ME4's manuals say of replication. All cases are asked of the same two
systems, which is possible since none of them may change anything; each looks at every table of both databases, at
the images and at the files. What a case needs is in the sentence of `World`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from offsite.errors import (
    BadParameter,
    InUse,
    NameInUse,
    NotAllowed,
    ObjectNotFound,
    OffsiteError,
    PeerUnreachable,
    SnapshotNotFound,
    VolumeNotFound,
)
from offsite.management.execution import Request, execute
from offsite.management.grammar import UsageError, split
from offsite.units import KIB, MIB
from tests.management.management_bench import MANAGE, PASSWORD, Bench, bench_in

CODES: dict[type[OffsiteError], int] = {
    BadParameter: -10058,
    UsageError: -10007,
    NameInUse: -10186,
    VolumeNotFound: -10075,
    SnapshotNotFound: -10050,
    ObjectNotFound: -10058,
    InUse: -3442,
    NotAllowed: -10007,
    PeerUnreachable: -20010,
}
"""The return codes that programs go by. They are written here again so that a change of one does not pass unseen."""

# What is not a part of the state: what was said about it, and who is logged in.
NOT_COMPARED = {"events", "sqlite_sequence"}


class World:
    """London and Newark, connected, each with pools A and B.

    Of London's volumes Sales is in SalesDR, which is Ready, and has the snapshot Monday; Busy is in BusyDR, which is
    suspended with a run that stands still and another that is queued; Books is a volume group of two, and in BooksDR.
    Free, Loose and the snapshot Loose-Monday are in no set; Loose is in the group Mixed together with Sales. The group
    Empty has no members. Newark has a volume Taken, a group Shelf and a set TakenDR, whose primary Back is there.
    """

    def __init__(self, london: Bench, newark: Bench) -> None:
        self.systems = {"London": london, "Newark": newark}
        self.london, self.newark = london, newark
        self._connect()
        self._fill()

    def _connect(self) -> None:
        for bench in (self.london, self.newark):
            bench.do("create pool size 16MiB B")
        address = self.newark.system.addresses["peer"]
        line = f"create peer-connection remote-port-address {address} remote-username manage Newark"
        self.london.do(line, secrets={"remote-password": PASSWORD})

    def _fill(self) -> None:
        london, newark = self.london, self.newark
        for name in ("Sales", "Busy", "Ledger", "Diary", "Free", "Loose"):
            london.do(f"create volume pool A size 1MiB {name}")
            london.write(name, 0, os.urandom(64 * KIB))
        london.do("create volume-group volumes Ledger,Diary Books")
        london.do("create volume-group Empty")
        for name in ("Taken", "Back", "Shelved"):
            newark.do(f"create volume pool A size 1MiB {name}")
        newark.do("create volume-group volumes Shelved Shelf")
        for volume, name in (("Sales", "SalesDR"), ("Busy", "BusyDR"), ("Books", "BooksDR")):
            london.do(f"create replication-set peer-connection Newark primary-volume {volume} {name}")
        newark.do("create replication-set peer-connection London primary-volume Back TakenDR")
        london.do("create snapshots volumes Sales,Loose Monday,Loose-Monday")
        london.do("create volume-group volumes Loose,Sales Mixed")
        london.do("replicate SalesDR")
        await_end(london, "SalesDR")
        self._make_busy()

    def _make_busy(self) -> None:
        """A run that waits for its bandwidth is made to stand still, so that nothing moves by itself."""
        london = self.london
        london.do("set peer-connection bandwidth-limit 100KB Newark")
        london.write("Busy", 0, os.urandom(MIB))
        for _ in range(2):
            london.do("replicate BusyDR")
        london.do("suspend replication-set BusyDR")
        await_that(lambda: london.rows("show replication-runs BusyDR")[-1]["phase"] == "stopped")
        await_that(lambda: self.newark.rows("show replication-sets BusyDR")[0]["status"] == "Suspended")
        assert [row["state"] for row in london.rows("show replication-runs BusyDR")] == ["queued", "running"]

    def state(self) -> list[Any]:
        return [everything(bench) for bench in self.systems.values()]


def everything(bench: Bench) -> dict[str, Any]:
    """All that a system keeps: every table of its database but the events, its images and its files."""
    with bench.system.database.read() as connection:
        names = [row[0] for row in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {
            name: connection.exec_driver_sql(f"SELECT * FROM {name}").all()
            for name in sorted(names)
            if name not in NOT_COMPARED
        }
    return bench.state() | {"every table": rows}


def await_that(happened: Any) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def await_end(bench: Bench, name: str) -> None:
    await_that(lambda: bench.rows(f"show replication-runs {name}")[0]["state"] == "success")


@contextmanager
def make_world(directory: Path) -> Iterator[World]:
    with bench_in(directory / "London", "London") as london, bench_in(directory / "Newark", "Newark") as newark:
        yield World(london, newark)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("refusals")) as made:
        yield made


Case = tuple[str, "str | Sequence[str]", type[OffsiteError], list[str]]
"""On which system, which command, with which error, and parts of its sentence."""

CREATE = "create replication-set peer-connection Newark primary-volume"


def named(name: str, *more: str) -> list[str]:
    """To make a set of Free with this name: as words, for names that a line could not have."""
    return [*split(f"{CREATE} Free"), *more, "name", name]


# Names: ME4 1.2. The limit counts bytes of UTF-8, not characters.
NAMES: list[Case] = [
    ("London", named("x" * 33), BadParameter, ["'" + "x" * 33, "33 bytes", "1 to 32"]),
    ("London", named("é" * 17), BadParameter, ["34 bytes", "1 to 32"]),
    ("London", named(""), BadParameter, ["0 bytes"]),
    *(("London", named(f"a{bad}b"), BadParameter, [repr(bad), "none of"]) for bad in '",<\\'),
    ("London", named(" Free"), BadParameter, ["' Free'", "begins or ends with a space"]),
    ("London", named("Free "), BadParameter, ["'Free '", "begins or ends with a space"]),
    ("London", named("a\nb"), BadParameter, ["a\\nb"]),
    ("London", named("SalesDR"), NameInUse, ["'SalesDR'", "choose another"]),
    ("London", named("TakenDR"), NameInUse, ["'TakenDR'"]),
    ("London", ["set", "replication-set", "name", "BusyDR", "SalesDR"], NameInUse, ["'BusyDR'"]),
    ("London", ["set", "replication-set", "name", "x" * 33, "SalesDR"], BadParameter, ["33 bytes"]),
    *(
        ("London", ["set", "replication-set", "name", f"a{bad}b", "SalesDR"], BadParameter, [repr(bad)])
        for bad in '",<\\'
    ),
    ("London", ["set", "replication-set", "name", " x", "SalesDR"], BadParameter, ["begins or ends with a space"]),
    ("London", named("X", "secondary-volume-name", "x" * 33), BadParameter, ["33 bytes"]),
    ("London", named("X", "secondary-volume-name", "a,b"), BadParameter, ["'a,b'"]),
    ("London", "set peer-connection name " + "x" * 33 + " Newark", BadParameter, ["33 bytes"]),
]

# What may be a primary, and in how many sets: 1.1, 1.2, 1.4.
MEMBERSHIP: list[Case] = [
    ("London", f"{CREATE} Nope X", VolumeNotFound, ["'Nope'", "volume group"]),
    ("London", f"{CREATE} Sales X", InUse, ["Sales is in replication set SalesDR already"]),
    ("London", f"{CREATE} Books X", InUse, ["is in replication set BooksDR already"]),
    ("London", f"{CREATE} Ledger X", InUse, ["Ledger", "BooksDR"]),
    ("London", f"{CREATE} Mixed X", InUse, ["Sales is in replication set SalesDR already"]),
    ("London", f"{CREATE} Empty X", BadParameter, ["Empty has 0 members", "1 to 16"]),
    ("London", f"{CREATE} Back X", InUse, ["Back is in replication set TakenDR already"]),
    ("Newark", "create replication-set peer-connection London primary-volume Sales X", InUse, ["Sales", "SalesDR"]),
    ("Newark", "create replication-set peer-connection London primary-volume Books X", InUse, ["BooksDR"]),
    ("Newark", "create replication-set peer-connection London primary-volume Diary X", InUse, ["Diary", "BooksDR"]),
    ("London", "add volume-group-members volumes Free Books", InUse, ["Books", "primary", "BooksDR"]),
    ("London", "remove volume-group-members volumes Diary Books", InUse, ["Books", "primary", "BooksDR"]),
    ("London", "delete volume-groups Books", InUse, ["Books", "BooksDR"]),
    ("London", "delete volume-groups delete-volumes yes Mixed", InUse, ["Sales", "SalesDR"]),
    ("London", "delete volumes Sales", InUse, ["Sales cannot be deleted", "SalesDR"]),
    ("London", "delete volumes Free,Diary", InUse, ["Diary cannot be deleted", "BooksDR"]),
]

# Where the secondary goes: 1.1. What the other system refuses is refused here, with its own sentence.
OVER_THERE: list[Case] = [
    ("London", f"{CREATE} Free secondary-volume-name Taken X", NameInUse, ["Newark", "'Taken'", "choose another"]),
    ("London", f"{CREATE} Free secondary-volume-name Shelf X", NameInUse, ["Newark", "'Shelf'", "choose another"]),
    ("London", f"{CREATE} Free secondary-volume-name Sales X", NameInUse, ["Newark", "'Sales'"]),
    ("London", f"{CREATE} Free secondary-pool C X", ObjectNotFound, ["Newark", "no pool 'C'", "A, B"]),
    ("London", f"{CREATE} Free secondary-pool a X", ObjectNotFound, ["Newark", "no pool 'a'"]),
    (
        "London",
        "create replication-set peer-connection Boston primary-volume Free X",
        ObjectNotFound,
        ["no peer connection 'Boston'"],
    ),
]

# Queue policy and snapshot history: 1.5, 1.6.
SETTINGS: list[Case] = [
    ("London", f"{CREATE} Free queue-policy newest X", BadParameter, ["'newest'", "discard, queue-latest"]),
    ("London", f"{CREATE} Free snapshot-history always X", BadParameter, ["'always'", "disabled, secondary, both"]),
    ("London", f"{CREATE} Free snapshot-history both X", BadParameter, ["snapshot-basename is missing"]),
    (
        "London",
        f"{CREATE} Free snapshot-history secondary snapshot-basename b X",
        BadParameter,
        ["snapshot-count is missing"],
    ),
    ("London", f"{CREATE} Free snapshot-count 0 X", BadParameter, ["snapshot-count", "'0'", "1 to 16"]),
    ("London", f"{CREATE} Free snapshot-count 17 X", BadParameter, ["snapshot-count", "'17'", "1 to 16"]),
    ("London", f"{CREATE} Free snapshot-basename {'b' * 27} X", BadParameter, ["27 bytes", "1 to 26"]),
    ("London", f"{CREATE} Free snapshot-basename {'é' * 14} X", BadParameter, ["28 bytes", "1 to 26"]),
    *(
        ("London", named("X", "snapshot-basename", f"a{bad}b"), BadParameter, ["basename", repr(bad)])
        for bad in '",.<\\'
    ),
    ("London", named("X", "snapshot-basename", " b"), BadParameter, ["begins with a space"]),
    ("London", f"{CREATE} Free snapshot-retention-priority now X", BadParameter, ["'now'", "never-delete"]),
    ("London", f"{CREATE} Free hook-timeout 0 X", BadParameter, ["'0'", "1 to 600"]),
    ("London", f"{CREATE} Free hook-timeout 601 X", BadParameter, ["'601'", "1 to 600"]),
    ("London", f"{CREATE} Free before-snapshot nope X", BadParameter, ["'nope'", "not an executable file"]),
    ("London", named("X", "after-snapshot", "../secret"), BadParameter, ["'../secret'"]),
    ("London", "set replication-set snapshot-count 0 SalesDR", BadParameter, ["'0'", "1 to 16"]),
    ("London", "set replication-set snapshot-count 17 SalesDR", BadParameter, ["'17'", "1 to 16"]),
    ("London", f"set replication-set snapshot-basename {'b' * 27} SalesDR", BadParameter, ["27 bytes", "1 to 26"]),
    ("London", f"set replication-set snapshot-basename {'b' * 23} BooksDR", BadParameter, ["23 bytes", "1 to 22"]),
    ("London", "set replication-set snapshot-basename a.b SalesDR", BadParameter, ["'a.b'", "'.'"]),
    ("London", "set replication-set snapshot-history both SalesDR", BadParameter, ["snapshot-basename is missing"]),
    (
        "London",
        "set replication-set snapshot-history both snapshot-basename b SalesDR",
        BadParameter,
        ["snapshot-count is missing"],
    ),
    ("London", "set replication-set before-snapshot nope SalesDR", BadParameter, ["'nope'"]),
    ("London", "set replication-set queue-policy discard BusyDR", InUse, ["queued run", "clear its queue first"]),
    ("London", "set replication-set name X queue-policy discard BusyDR", InUse, ["clear its queue first"]),
    ("London", "set replication-set SalesDR", BadParameter, ["SalesDR", "nothing"]),
    ("London", "set replication-set name X Nope", ObjectNotFound, ["'Nope'"]),
]

# Runs: 1.7.
RUNS: list[Case] = [
    ("London", "replicate Nope", ObjectNotFound, ["'Nope'"]),
    ("London", "replicate BusyDR", NotAllowed, ["BusyDR is suspended", "resume it first"]),
    ("London", "replicate snapshot Nope SalesDR", SnapshotNotFound, ["'Nope'"]),
    ("London", "replicate snapshot Sales SalesDR", SnapshotNotFound, ["'Sales'"]),
    ("London", "replicate snapshot Loose-Monday SalesDR", NotAllowed, ["Loose-Monday is not a snapshot of Sales"]),
    ("London", "replicate snapshot Monday BooksDR", NotAllowed, ["BooksDR", "volume group"]),
    ("London", "suspend replication-set BusyDR", NotAllowed, ["BusyDR is suspended already"]),
    ("London", "suspend replication-set Nope", ObjectNotFound, ["'Nope'"]),
    ("London", "suspend replication-set SalesDR,SalesDR", BadParameter, ["'SalesDR' is listed twice"]),
    ("London", "resume replication-set SalesDR", NotAllowed, ["SalesDR is not suspended"]),
    ("London", "resume replication-set Nope", ObjectNotFound, ["'Nope'"]),
    ("London", "abort replication SalesDR", NotAllowed, ["SalesDR has no run to abort"]),
    ("London", "abort replication Nope", ObjectNotFound, ["'Nope'"]),
    ("London", "abort replication prompt no BusyDR", NotAllowed, ["answered with no"]),
    ("London", "clear replication-queue Nope", ObjectNotFound, ["'Nope'"]),
]

# Commands that take several sets do what is asked of all of them, or of none.
SEVERAL: list[Case] = [
    ("London", "suspend replication-set SalesDR,BusyDR", NotAllowed, ["BusyDR is suspended already"]),
    ("London", "suspend replication-set SalesDR,Nope", ObjectNotFound, ["'Nope'"]),
    ("London", "suspend replication-set SalesDR,TakenDR", NotAllowed, ["TakenDR", "secondary here", "Newark"]),
    ("London", "resume replication-set BusyDR,SalesDR", NotAllowed, ["SalesDR is not suspended"]),
    ("London", "resume replication-set BusyDR,Nope", ObjectNotFound, ["'Nope'"]),
]

# Only from the primary: 1.7. And what may not be done to a secondary: 1.4.
SECONDARY: list[Case] = [
    *(
        ("Newark", f"{command} {name}", NotAllowed, [name, "secondary here", "do it on system London"])
        for command in (
            "replicate",
            "suspend replication-set",
            "resume replication-set",
            "abort replication",
            "clear replication-queue",
            "set replication-set queue-policy discard",
            "set replication-set name X",
        )
        for name in ("SalesDR", "BusyDR", "BooksDR")
    ),
    ("Newark", "map volume Sales", NotAllowed, ["Sales is the secondary volume of replication set SalesDR", "mapped"]),
    ("Newark", "map volume access ro initiator nbd:unix Sales", NotAllowed, ["Sales", "mapped"]),
    ("Newark", "map volume Taken,Sales", NotAllowed, ["Sales", "mapped"]),
    ("Newark", "map volume Books", NotAllowed, ["secondary volume of replication set BooksDR", "mapped"]),
    ("Newark", "expand volume size 1MiB Sales", NotAllowed, ["Sales", "expanded"]),
    ("Newark", "set volume name X Sales", NotAllowed, ["Sales", "renamed"]),
    ("Newark", "set volume-group name X Books", NotAllowed, ["Books", "BooksDR", "renamed"]),
    ("Newark", "delete volumes Sales", InUse, ["Sales cannot be deleted", "SalesDR"]),
    ("Newark", "delete volumes Taken,Ledger", InUse, ["Ledger cannot be deleted", "BooksDR"]),
    ("Newark", "delete volume-groups Books", InUse, ["Books", "secondary", "BooksDR"]),
    ("Newark", "delete volume-groups delete-volumes yes Books", InUse, ["Books", "secondary", "BooksDR"]),
    ("Newark", "add volume-group-members volumes Taken Books", InUse, ["Books", "secondary", "BooksDR"]),
    ("Newark", "remove volume-group-members volumes Diary Books", InUse, ["Books", "secondary", "BooksDR"]),
    ("Newark", "create volume pool A size 1MiB volume-group Books X", InUse, ["Books", "BooksDR"]),
    ("Newark", "add volume-group-members volumes Sales Shelf", NotAllowed, ["Sales", "put in a volume group"]),
    ("Newark", "create volume-group volumes Taken,Sales X", NotAllowed, ["Sales", "put in a volume group"]),
    ("Newark", "rollback volume snapshot Monday Sales", SnapshotNotFound, ["'Monday'"]),
    ("London", "rollback volume snapshot Loose-Monday Sales", NotAllowed, ["not a snapshot of volume 'Sales'"]),
]

# Deleting sets and peer connections: 1.8, 1.9.
DELETING: list[Case] = [
    ("London", "delete replication-set Nope", ObjectNotFound, ["'Nope'"]),
    ("London", "delete replication-set BusyDR", InUse, ["BusyDR has a run under way", "suspend the set and abort"]),
    ("Newark", "delete replication-set BusyDR", InUse, ["London", "BusyDR", "abort it"]),
    ("London", "delete replication-set prompt no SalesDR", NotAllowed, ["answered with no"]),
    ("London", "delete peer-connection Newark", InUse, ["Newark", "SalesDR", "BusyDR", "BooksDR"]),
    ("London", "delete peer-connection local-only Newark", InUse, ["Newark", "SalesDR"]),
    ("Newark", "delete peer-connection London", InUse, ["London", "SalesDR"]),
    ("London", "set peer-connection remote-port-address 127.0.0.1:1 Newark", PeerUnreachable, ["127.0.0.1:1"]),
    ("London", "set peer-connection name Newark Boston", ObjectNotFound, ["'Boston'"]),
    ("London", "delete peer-connection Boston", ObjectNotFound, ["'Boston'"]),
]

# What is no command of this table.
WORDS: list[Case] = [
    ("London", "create replication-set peer-connection Newark X", UsageError, ["primary-volume is missing"]),
    ("London", "create replication-set primary-volume Free X", UsageError, ["peer-connection is missing"]),
    ("London", f"{CREATE} Free", UsageError, ["name is missing"]),
    ("London", "replicate", UsageError, ["name is missing"]),
    ("London", "replicate SalesDR now", UsageError, ["'now'"]),
    ("London", "suspend replication-set", UsageError, ["is missing"]),
    ("London", "set replication-set snapshot-count 3 snapshot-count 4 SalesDR", UsageError, ["given twice"]),
]

CASES = [*NAMES, *MEMBERSHIP, *OVER_THERE, *SETTINGS, *RUNS, *SECONDARY, *DELETING, *WORDS]


def words_of(command: str | Sequence[str]) -> list[str]:
    return split(command) if isinstance(command, str) else list(command)


def expect_refusal(world: World, case: Case) -> None:
    where, command, error, told = case
    before = world.state()
    with pytest.raises(OffsiteError) as refusal:
        execute(world.systems[where].system, Request(words_of(command)), MANAGE)
    assert (type(refusal.value), refusal.value.code) == (error, CODES[error]), str(refusal.value)
    for part in told:
        assert part in str(refusal.value)
    assert world.state() == before


def name_of(case: Case) -> str:
    return f"{case[0]}: {' '.join(words_of(case[1]))}"[:90]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_what_breaks_a_rule_is_refused_and_changes_nothing(world: World, case: Case) -> None:
    expect_refusal(world, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", SEVERAL, ids=name_of)
def test_of_several_sets_none_is_changed_when_one_is_refused(world_of_its_own: World, case: Case) -> None:
    expect_refusal(world_of_its_own, case)


@pytest.fixture
def world_of_its_own(tmp_path: Path) -> Iterator[World]:
    with make_world(tmp_path) as made:
        yield made
