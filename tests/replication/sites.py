"""Whole replicating systems for tests: real database, certificates, sockets and threads; pools in memory or files."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from offsite.access.certificates import Authority
from offsite.clock import SystemClock
from offsite.errors import AuthenticationFailed
from offsite.events import EventKind, Source
from offsite.management.needs import needs_of_all_floors
from offsite.pools.protocol import Create, Pool
from offsite.replication.link.identity import SystemIdentity
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.run_records import RunRecord
from offsite.replication.runs.hooks import HookDirectory
from offsite.replication.service import Replication
from offsite.replication.sets.creation import NewSet
from offsite.replication.sets.settings import ChosenSettings
from offsite.replication.sets.view import SetInfo
from offsite.replication.transfer.progress import RunProgress
from offsite.replication.wire.messages import Hello
from offsite.store.database import Database
from tests.pools.memory_pool import MemoryDisk, MemoryPool

PASSWORD = "Correct-horse-7"
WAIT_SECONDS = 20.0


@cache
def template_database() -> Path:
    """A migrated database to copy: quicker than to migrate one for every test."""
    path = Path(tempfile.mkdtemp(prefix="offsite-")) / "state.db"
    atexit.register(shutil.rmtree, path.parent)
    Database(path).close()
    return path


@cache
def _template_keys(name: str) -> Path:
    """Keys and certificates of a system of that name: they do not differ from one test to the next."""
    directory = template_database().parent / name
    Authority(directory, name, ["127.0.0.1"])
    return directory


class WallClock(SystemClock):
    """One that can be set."""

    ahead_seconds = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_seconds


class Site:
    """One system. `disk` and `directory` outlive `crash`, as they outlive a process."""

    def __init__(self, directory: Path, name: str, pages_max: int = 1 << 30) -> None:
        directory.mkdir(exist_ok=True)
        shutil.copy(template_database(), directory / "state.db")
        self.directory = directory
        self.name = name
        self.identity = SystemIdentity(str(uuid.uuid4()), name)
        self.disk = MemoryDisk()
        self.pages_max = pages_max
        shutil.copytree(_template_keys(name), directory / "keys")
        self.authority = Authority(directory / "keys", name, ["127.0.0.1"])
        self.wall_clock = WallClock()
        self.events: list[tuple[EventKind, str]] = []
        self.sources: list[tuple[EventKind, Source]] = []
        self.asked: list[tuple[str, str, str]] = []  # whose password was checked, and for whom
        self.logins_refused = ""  # why no password is checked at all
        self.wrap: Callable[[MemoryPool], Pool] = lambda pool: pool
        self.port = 0
        self.open()

    def open(self) -> None:
        self.database = Database(self.directory / "state.db")
        self.pool = MemoryPool(self.database, "A", self.disk, self.pages_max)
        self.pools: dict[str, Pool] = {"A": self.wrap(self.pool)}
        self.needs = needs_of_all_floors(self.database)
        self.replication = Replication(
            self.database,
            self.pools,
            self.needs,
            self.authority,
            self.identity,
            ("127.0.0.1", self.port),
            self.authenticate,
            HookDirectory(self.directory / "hooks"),
            self.report,
            self.wall_clock,
        )

    def report(self, kind: EventKind, message: str) -> None:
        self.events.append((kind, message))
        self.sources.append((kind, kind.source()))

    def authenticate(self, username: str, password: str, host: str) -> bool:
        self.asked.append((username, password, host))
        if self.logins_refused:
            raise AuthenticationFailed(self.logins_refused)
        return (username, password) == ("manage", PASSWORD)

    def start(self) -> Site:
        self.replication.start()
        self.port = self.replication.port
        return self

    def stop(self) -> None:
        self.replication.stop()
        self.database.close()

    def restart(self, *, crash: bool = False) -> None:
        """With `crash` all that was not durable is lost."""
        self.replication.stop()
        if not crash:
            self.pool.flush()
        self.database.close()
        self.open()
        self.start()

    def runs(self, set_name: str) -> list[RunRecord]:
        return self.replication.sets.runs(set_name)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.replication.port}"

    def create_volume(self, name: str, size_bytes: int) -> int:
        return self.pools["A"].apply([Create(name, size_bytes)])[0].id

    def image_id(self, name: str) -> int:
        return next(image.id for image in self.pools["A"].images() if image.name == name)

    def write(self, image_id: int, offset: int, data: bytes) -> None:
        image = self.pools["A"].open(image_id)
        image.begin()
        image.write(offset, memoryview(data))
        image.end()
        image.close()

    def content(self, name: str) -> bytes:
        image = self.pools["A"].open(self.image_id(name))
        buffer = bytearray(image.size_bytes)
        image.begin()
        image.read(0, memoryview(buffer))
        image.end()
        image.close()
        return bytes(buffer)

    def internal_names(self) -> list[str]:
        return sorted(image.name for image in self.pools["A"].images() if image.kind == "internal")

    def create_set(
        self,
        name: str,
        image_id: int,
        peer: str,
        pool: str | None = None,
        secondary: str | None = None,
        settings: ChosenSettings | None = None,
    ) -> SetInfo:
        wanted = NewSet(name, peer, (image_id,), None, pool, secondary, settings or ChosenSettings())
        return self.replication.sets.create(wanted)

    def run_to_end(self, set_name: str) -> RunProgress:
        return self.await_end(set_name, self.replication.replicate(set_name).run)

    def run_to_trouble(self, set_name: str) -> RunProgress:
        """A run that fails, and waits to be tried again."""
        self.replication.replicate(set_name)
        return self.await_progress(set_name, lambda now: now.state == "waiting")

    def await_trouble(self, set_name: str, sentence: str) -> None:
        """Until its run waits to be tried again, and that is why."""
        self.await_progress(set_name, lambda now: now.state == "waiting" and sentence in (now.error or ""))

    def await_end(self, set_name: str, run: str | None = None) -> RunProgress:
        return self.await_progress(set_name, lambda now: run in (None, now.run) and now.state in ("success", "stopped"))

    def await_progress(self, set_name: str, condition: Callable[[RunProgress], bool]) -> RunProgress:
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until:
            now = self.replication.progress(set_name)
            if now is not None and condition(now):
                return now
            time.sleep(0.002)
        raise AssertionError(f"{set_name} did not get there in {WAIT_SECONDS} s: {now}")


class Unintroduced:
    """Who says no more of itself than a stranger does."""

    def __init__(self, identity: SystemIdentity) -> None:
        self._identity = identity

    def hello(self, certificate: bytes | None) -> Hello:
        del certificate
        return self._identity.hello()

    def meet(self, certificate: bytes | None, hello: Hello, waited_seconds: float) -> None: ...

    def alive(self, peer: PeerRecord) -> None: ...


def pair(here: Site, there: Site) -> None:
    here.replication.peers.create(there.name, there.address, "manage", PASSWORD)


def random_bytes(size_bytes: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size_bytes)
