"""Each rule of replication is seen to refuse what breaks it: the return code, the sentence, and that nothing changed.

The rules are sections 1.2 to 1.9 of what ME4's manuals say of replication. All cases are asked of the same two
systems, which is possible since none of them may change anything; each looks at every table of both databases, at
the images and at the files. What a case needs is in the sentence of `World`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.errors import (
    BadParameter,
    ImageNeeded,
    InUse,
    LimitReached,
    NameInUse,
    NotAllowed,
    ObjectNotFound,
    PeerUnreachable,
    SnapshotNotFound,
    VolumeNotFound,
)
from offsite.management.command_table.parser import UsageError, split
from tests.management.management_bench import MONITOR, PASSWORD, bench_in
from tests.management.replicated_world import Case, World, expect_refusal, make_world, name_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("refusals")) as made:
        yield made


CREATE = "create replication-set peer-connection Newark primary-volume"


def named(name: str, *more: str) -> list[str]:
    """To make a set of Free with this name: as words, for names that a line could not have."""
    return [*split(f"{CREATE} Free"), *more, "name", name]


# Names: ME4 1.2. The limit counts bytes of UTF-8, not characters.
NAMES: list[Case] = [
    ("London", named("x" * 33), BadParameter, ["'" + "x" * 33, "33 bytes", "1 to 32"]),
    ("London", named("é" * 17), BadParameter, ["34 bytes", "1 to 32"]),
    ("London", named(""), BadParameter, ["0 bytes"]),
    *(("London", named(f"a{bad}b"), BadParameter, [repr(bad), "are not allowed"]) for bad in '",<\\'),
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
    ("London", f"{CREATE} Sales X", InUse, ["Sales is already in replication set SalesDR"]),
    ("London", f"{CREATE} Books X", InUse, ["is already in replication set BooksDR"]),
    ("London", f"{CREATE} Ledger X", InUse, ["Ledger", "BooksDR"]),
    ("London", f"{CREATE} Mixed X", InUse, ["Sales is already in replication set SalesDR"]),
    ("London", f"{CREATE} Empty X", BadParameter, ["Empty has 0 members", "1 to 16"]),
    ("London", f"{CREATE} Back X", InUse, ["Back is already in replication set TakenDR"]),
    ("Newark", "create replication-set peer-connection London primary-volume Sales X", InUse, ["Sales", "SalesDR"]),
    ("Newark", "create replication-set peer-connection London primary-volume Books X", InUse, ["BooksDR"]),
    ("Newark", "create replication-set peer-connection London primary-volume Diary X", InUse, ["Diary", "BooksDR"]),
    ("London", "add volume-group-members volumes Free Books", InUse, ["Books", "primary", "BooksDR"]),
    ("London", "remove volume-group-members volumes Diary Books", InUse, ["Books", "primary", "BooksDR"]),
    ("London", "delete volume-groups Books", InUse, ["Books", "BooksDR"]),
    ("London", "delete volume-groups delete-volumes yes Mixed", ImageNeeded, ["Sales", "SalesDR"]),
    ("London", "delete volumes Sales", ImageNeeded, ["Sales cannot be deleted", "SalesDR"]),
    ("London", "delete volumes Free,Diary", ImageNeeded, ["Diary cannot be deleted", "BooksDR"]),
]

# Where the secondary goes: 1.1. What the other system refuses is refused here, with its own sentence.
OVER_THERE: list[Case] = [
    ("London", f"{CREATE} Free secondary-volume-name Taken X", NameInUse, ["Newark", "'Taken'", "other than"]),
    ("London", f"{CREATE} Free secondary-volume-name Shelf X", NameInUse, ["Newark", "'Shelf'", "other than"]),
    ("London", f"{CREATE} Free secondary-volume-name Sales X", NameInUse, ["Newark", "'Sales'"]),
    ("London", f"{CREATE} Free secondary-pool C X", ObjectNotFound, ["Newark", "pool 'C' does not exist", "A, B"]),
    ("London", f"{CREATE} Free secondary-pool a X", ObjectNotFound, ["Newark", "pool 'a' does not exist"]),
    (
        "London",
        "create replication-set peer-connection Boston primary-volume Free X",
        ObjectNotFound,
        ["peer connection 'Boston' does not exist"],
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
    ("London", "set replication-set SalesDR", BadParameter, ["SalesDR", "no change specified"]),
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
    ("London", "suspend replication-set BusyDR", NotAllowed, ["BusyDR is already suspended"]),
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
    ("London", "suspend replication-set SalesDR,BusyDR", NotAllowed, ["BusyDR is already suspended"]),
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
    ("Newark", "delete volumes Sales", ImageNeeded, ["Sales cannot be deleted", "SalesDR"]),
    ("Newark", "delete volumes Taken,Ledger", ImageNeeded, ["Ledger cannot be deleted", "BooksDR"]),
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
    ("London", "delete replication-set BusyDR", InUse, ["BusyDR has a run in progress", "suspend the set and abort"]),
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


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_what_breaks_a_rule_is_refused_and_changes_nothing(world: World, case: Case) -> None:
    expect_refusal(world, case)


# Who has the role monitor may look, and do nothing of this.
NOT_FOR_MONITORS = (
    f"{CREATE} Free X",
    "set replication-set name X SalesDR",
    "delete replication-set SalesDR",
    "delete replication-set local-only SalesDR",
    "replicate SalesDR",
    "replicate snapshot Monday SalesDR",
    "suspend replication-set SalesDR",
    "resume replication-set BusyDR",
    "abort replication BusyDR",
    "clear replication-queue BusyDR",
    "query peer-connection 127.0.0.1:1",
    "create peer-connection remote-port-address 127.0.0.1:1 remote-username manage X",
    "set peer-connection bandwidth-limit none Newark",
    "delete peer-connection local-only Newark",
    "create task type Replicate replication-set SalesDR X",
    'create schedule schedule-specification "start 2030-01-01 10:00" task-name X X',
    "set setting name maximum-replication-sets value 1",
)


@pytest.mark.parametrize("line", NOT_FOR_MONITORS)
def test_who_may_only_look_changes_nothing(world: World, line: str) -> None:
    told = ["requires the role manage", "user otto has the role monitor"]
    expect_refusal(world, ("London", line, NotAllowed, told), user=MONITOR)


@pytest.mark.slow
@pytest.mark.parametrize("case", SEVERAL, ids=name_of)
def test_of_several_sets_none_is_changed_when_one_is_refused(world_of_its_own: World, case: Case) -> None:
    expect_refusal(world_of_its_own, case)


@pytest.fixture
def world_of_its_own(tmp_path: Path) -> Iterator[World]:
    with make_world(tmp_path) as made:
        yield made


# Limits: 1.2.
def test_no_more_sets_and_peer_connections_than_a_setting_allows(
    world_of_its_own: World,
) -> None:
    world, create = world_of_its_own, f"{CREATE} Free FreeDR"
    for where, bench in world.systems.items():
        bench.do("set setting name maximum-replication-sets value 4")
        told = [where, "4 replication sets", "maximum is 4", "delete one", "maximum-replication-sets"]
        expect_refusal(world, ("London", create, LimitReached, told))
        bench.do("set setting name maximum-replication-sets value 5")
    world.london.do(create)


def test_no_more_peer_connections_than_a_setting_allows(world_of_its_own: World, tmp_path: Path) -> None:
    """On either side."""
    world, login = world_of_its_own, {"remote-password": PASSWORD}
    with bench_in(tmp_path / "boston", "Boston") as boston:
        world.systems["Boston"] = boston
        connect = "create peer-connection remote-username manage remote-port-address"
        boston.do(f"{connect} {world.newark.system.addresses['peer']} Newark", secrets=login)
        line = f"{connect} {boston.system.addresses['peer']} Boston"
        for where, bench in (("London", world.london), ("Boston", boston)):
            bench.do("set setting name maximum-peer-connections value 1")
            told = [where, "1 peer connections", "maximum is 1", "maximum-peer-connections"]
            expect_refusal(world, ("London", line, LimitReached, told), login)
            bench.do("set setting name maximum-peer-connections value 2")
        world.london.do(line, secrets=login)


# While the other system is gone: 1.8, 1.9.
ADDRESS = "remote-port-address 127.0.0.1:1"
PEER_GONE: list[Case] = [
    ("London", f"{CREATE} Free X", PeerUnreachable, ["cannot reach", "refused"]),
    ("London", "delete replication-set SalesDR", PeerUnreachable, ["SalesDR", "local-only"]),
    ("London", "delete replication-set BooksDR", PeerUnreachable, ["BooksDR", "local-only"]),
    ("London", "delete replication-set BusyDR", InUse, ["BusyDR has a run in progress"]),
    ("London", "delete peer-connection Newark", InUse, ["SalesDR"]),
    ("London", f"set peer-connection {ADDRESS} Newark", PeerUnreachable, ["127.0.0.1:1"]),
    ("London", f"set peer-connection {ADDRESS} remote-username manage Newark", PeerUnreachable, ["127.0.0.1:1"]),
    (
        "London",
        "set peer-connection remote-username manage Newark",
        PeerUnreachable,
        ["cannot reach 127.0.0.1:", "refused"],
    ),
    (
        "London",
        f"create peer-connection remote-port-address {64 * 'x'} remote-username manage Boston",
        PeerUnreachable,
        ["invalid host name"],
    ),
    ("London", f"create peer-connection {ADDRESS} remote-username manage Boston", PeerUnreachable, ["127.0.0.1:1"]),
]


@pytest.fixture(scope="module")
def world_without_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("gone")) as made:
        made.newark.stop_replication()
        yield made


@pytest.mark.parametrize("case", PEER_GONE, ids=name_of)
def test_what_needs_the_other_system_is_refused_while_it_is_gone(world_without_peer: World, case: Case) -> None:
    secrets = {"remote-password": PASSWORD} if "remote-username" in case[1] else {}
    expect_refusal(world_without_peer, case, secrets)
