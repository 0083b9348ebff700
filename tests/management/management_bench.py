"""A system of real parts, without what listens for hosts and people: it is asked directly."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from argon2 import PasswordHasher

from offsite.access.certificates import Authority
from offsite.access.initiator_certificates import InitiatorCertificates
from offsite.access.maps import Maps
from offsite.clock import Clock, SystemClock
from offsite.errors import OffsiteError
from offsite.management.accounts.sessions import Sessions
from offsite.management.accounts.users import User, Users
from offsite.management.command_table.command import Role
from offsite.management.command_table.object_types import Row
from offsite.management.command_table.parser import split
from offsite.management.command_table.reply import Question, Reply
from offsite.management.events.event_log import EventLog
from offsite.management.execution import Request
from offsite.management.needs import needs_of_all_floors
from offsite.management.notices.courier import Pace
from offsite.management.notices.notices import Notices
from offsite.management.schedules.roster import Roster
from offsite.management.schedules.schedules import Schedules
from offsite.management.schedules.tasks import Tasks
from offsite.management.system import System
from offsite.pools.groups import Groups
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Pool
from offsite.replication.link.identity import SystemIdentity
from offsite.replication.runs.hooks import HookDirectory
from offsite.replication.service import Replication
from offsite.store.database import Database
from offsite.store.settings import Settings
from offsite.targets.common.counters import Counters
from offsite.units import MIB
from tests.management.declared_answers import execute

POOL_BYTES = 64 * MIB
PASSWORD = "open sesame"
CHEAP_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PACE = Pace(gather_seconds=0.1, retry_seconds=(0.1,))
MANAGE = User("anna", Role.MANAGE)
MONITOR = User("otto", Role.MONITOR)


class OpenElsewhere:
    """A target whose connections a test makes up; it notes what commands want of it."""

    id_prefix = "nbd:"

    def __init__(self) -> None:
        self.open: list[tuple[str, int]] = []
        self.disconnected: list[int] = []
        self.rechecks = 0

    def disconnect(self, image_id: int, timeout_seconds: float = 5.0) -> int:
        del timeout_seconds
        self.disconnected.append(image_id)
        return 0

    def recheck(self, timeout_seconds: float = 5.0) -> int:
        del timeout_seconds
        self.rechecks += 1
        return 0

    def connections(self) -> list[tuple[str, int]]:
        return self.open


class Bench:
    def __init__(self, system: System, target: OpenElsewhere) -> None:
        self.system = system
        self.target = target
        self._stopped = False

    def stop_replication(self) -> None:
        if not self._stopped:
            self._stopped = True
            self.system.replication.stop(5)

    def answer(
        self,
        line: str,
        user: User = MANAGE,
        secrets: Mapping[str, str] | None = None,
        *,
        asks: bool = False,
        open_secrets: bool = False,
    ) -> Reply | Question:
        return execute(self.system, Request(split(line), secrets or {}, asks, open_secrets), user)

    def do(self, line: str, user: User = MANAGE, secrets: Mapping[str, str] | None = None) -> Reply:
        """Does a command that asks nothing."""
        reply = self.answer(line, user, secrets)
        assert isinstance(reply, Reply)
        return reply

    def rows(self, line: str) -> tuple[Row, ...]:
        return self.do(line).rows

    def names(self, line: str) -> list[object]:
        """The first property of each row."""
        return [row.values[0] for row in self.rows(line)]

    def write(self, name: str, offset: int, data: bytes) -> None:
        """As a host would."""
        found = self.system.image(name)
        image = found.pool.open(found.image.id)
        image.begin()
        image.write(offset, memoryview(data))
        image.end()
        image.close()

    def read(self, name: str, offset: int, length: int) -> bytes:
        found = self.system.image(name)
        image = found.pool.open(found.image.id)
        buffer = bytearray(length)
        image.begin()
        image.read(offset, memoryview(buffer))
        image.end()
        image.close()
        return bytes(buffer)

    def refused(self, line: str, error: type[OffsiteError], *words: str, user: User = MANAGE) -> OffsiteError:
        """The refusal of a command: it has these words, and nothing has changed."""
        before = self.state()
        with pytest.raises(error) as refusal:
            self.do(line, user)
        for word in words:
            assert word in str(refusal.value)
        assert self.state() == before
        return refusal.value

    def state(self) -> dict[str, Any]:
        """All that a refused command must leave as it is."""
        system = self.system
        with system.database.read() as connection:
            tables = ["pools", "maps", "initiators", "peers", "replication_sets", "set_members", "users"]
            tables += ["volume_groups", "volume_group_members", "snapshot_retention", "settings", "tasks", "schedules"]
            rows = {table: connection.exec_driver_sql(f"SELECT * FROM {table}").all() for table in tables}
        files = sorted(path.name for path in system.state_directory.iterdir())
        images = {name: sorted(pool.images(), key=lambda image: image.id) for name, pool in system.pools.items()}
        return {"rows": rows, "files": files, "images": images}


@cache
def new_database() -> bytes:
    """Migrating takes most of a second, so the tests of a run share the result."""
    with tempfile.TemporaryDirectory() as directory:
        Database(Path(directory) / "state.db").close()
        return (Path(directory) / "state.db").read_bytes()


@contextmanager
def bench_in(
    directory: Path, name: str, clock: Clock | None = None, replication_clock: Clock | None = None
) -> Iterator[Bench]:
    directory.mkdir()
    clock = clock or SystemClock()
    (directory / "state.db").write_bytes(new_database())
    database = Database(directory / "state.db")
    events = EventLog(database, clock)
    users = Users(database, events.report, clock, CHEAP_HASHER)
    users.create("manage", PASSWORD, Role.MANAGE)
    pools: dict[str, Pool] = {
        "A": LocalPool.create(database, "A", Path("pool-A.data"), POOL_BYTES, report=events.report)
    }
    authority = Authority(directory / "keys", name, ["127.0.0.1"])
    identity = SystemIdentity(str(uuid4()), name)
    hooks = HookDirectory(directory / "hooks")
    needs = needs_of_all_floors(database)
    replication = Replication(
        database,
        pools,
        needs,
        authority,
        identity,
        ("127.0.0.1", 0),
        users.may_manage,
        hooks,
        events.report,
        replication_clock or clock,
    )
    replication.start()
    target = OpenElsewhere()
    settings = Settings(database)
    roster = Roster(database, events.report)
    notices = Notices(directory / "keys", name, settings, events.report, clock, pace=PACE)
    events.listen(notices.tell)
    system = System(
        uuid=identity.uuid,
        name=name,
        state_directory=directory,
        database=database,
        pools=pools,
        groups=Groups(database),
        needs=needs,
        maps=Maps(database),
        authority=authority,
        certificates=InitiatorCertificates(database),
        replication=replication,
        targets=(target,),
        counters=Counters(),
        users=users,
        sessions=Sessions(clock, users.current),
        events=events,
        notices=notices,
        settings=settings,
        tasks=Tasks(database, roster, events.report),
        schedules=Schedules(database, settings, roster, events.report, clock),
        roster=roster,
        clock=clock,
        started_at=clock.now(),
        addresses={"api": "https://127.0.0.1:1", "nbd": "127.0.0.1:2", "peer": f"127.0.0.1:{replication.port}"},
    )
    bench = Bench(system, target)
    try:
        yield bench
    finally:
        system.stopping.set()
        bench.stop_replication()
        for pool in list(pools.values()):
            pool.close()
        notices.stop(5)
        events.stop(5)
        database.close()
