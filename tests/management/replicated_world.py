"""Two connected systems with sets in many states, and how a command is seen to be refused there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from offsite.errors import (
    BadParameter,
    ImageNeeded,
    InUse,
    LimitReached,
    NameInUse,
    NotAllowed,
    ObjectNotFound,
    OffsiteError,
    PeerUnreachable,
    SnapshotNotFound,
    VolumeNotFound,
)
from offsite.management.accounts.users import User
from offsite.management.command_table.parser import UsageError, split
from offsite.management.execution import Request
from offsite.units import KIB, MIB
from tests.management.declared_answers import execute
from tests.management.management_bench import MANAGE, PASSWORD, Bench, bench_in

CODES: dict[type[OffsiteError], int] = {
    BadParameter: -10058,
    UsageError: -10007,
    NameInUse: -10186,
    VolumeNotFound: -10075,
    SnapshotNotFound: -10050,
    ObjectNotFound: -20081,
    InUse: -20080,
    ImageNeeded: -3442,
    LimitReached: -20085,
    NotAllowed: -20082,
    PeerUnreachable: -20010,
}
"""The return codes that programs go by. They are written here again so that a change of one does not pass unseen."""

# What is not a part of the state: what was said about it, and who is logged in.
NOT_COMPARED = {"events", "sqlite_sequence", "database_log", "peer_contacts", "peer_incarnations"}
"""What changes by itself: besides events, what a checkpoint and a visit of a peer note down."""


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
        await_that(lambda: self.newark.system.replication.sets.record("BusyDR").suspended)  # it has been told
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


def await_that(happened: Callable[[], bool]) -> None:
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


Case = tuple[str, "str | Sequence[str]", type[OffsiteError], list[str]]
"""On which system, which command, with which error, and parts of its sentence."""


def words_of(command: str | Sequence[str]) -> list[str]:
    return split(command) if isinstance(command, str) else list(command)


def expect_refusal(world: World, case: Case, secrets: Mapping[str, str] | None = None, user: User = MANAGE) -> None:
    where, command, error, told = case
    before = world.state()
    with pytest.raises(OffsiteError) as refusal:
        execute(world.systems[where].system, Request(words_of(command), secrets or {}), user)
    assert (type(refusal.value), refusal.value.code) == (error, CODES[error]), str(refusal.value)
    for part in told:
        assert part in str(refusal.value)
    assert changes(before, world.state()) == []


def changes(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[tuple[str, Any, Any]]:
    """Which rows differ, so that one can see it."""
    return [
        (f"{number}: {key}", was, now)
        for number, (old, new) in enumerate(zip(flat(before), flat(after), strict=True))
        for key in old
        for was, now in zip_longest(old[key], new[key])
        if was != now
    ]


def flat(state: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"files": each["files"]} | {f"images of {k}": v for k, v in each["images"].items()} | each["every table"]
        for each in state
    ]


def name_of(case: Case) -> str:
    return f"{case[0]}: {' '.join(words_of(case[1]))}"[:90]
