"""Both ends of a run in one thread, over a link that can be cut at any message and pools that can crash at any call.

Planner, state machines, codec, driver and both ends' real work are the product's own; only sockets, threads
and disks are not there. Everything happens in one order, so that the Nth message is the same each time.
"""

from __future__ import annotations

import copy
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import msgspec

from offsite.errors import PeerUnreachable
from offsite.events import EventKind
from offsite.management.needs import needs_of_all_floors
from offsite.pools.protocol import Change, Create, ImageInfo, Pool, Records
from offsite.replication.points import point_records
from offsite.replication.records import peer_records, run_records, set_records
from offsite.replication.records.resources import Resources
from offsite.replication.records.run_writer import fail_others
from offsite.replication.records.set_locks import SetLocks
from offsite.replication.records.set_records import MemberRecord, SetRecord
from offsite.replication.runs.run_points import RunPoints, RunSource
from offsite.replication.transfer.progress import Progress
from offsite.replication.transfer.receiver.endpoint import ReceiverEndpoint
from offsite.replication.transfer.receiver.fence import Fences
from offsite.replication.transfer.receiver.machine import ReceiverMachine
from offsite.replication.transfer.sender.driver import SenderDriver
from offsite.replication.transfer.sender.endpoint import SenderEndpoint
from offsite.replication.transfer.sender.machine import SenderMachine
from offsite.replication.wire import frames
from offsite.replication.wire.exchange import Asking
from offsite.replication.wire.messages import AnyMessage
from offsite.store.database import Database
from tests.pools.memory_pool import MemoryDisk, MemoryPool
from tests.pools.passing_pool import PassingPool

SET_UUID = str(uuid.UUID(int=1))


class Crash(BaseException):
    """The machine loses power: nothing catches it."""


class VirtualClock:
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class Nth:
    """Counts calls; at number `at` it says so. `at` None: never."""

    at: int | None = None
    count: int = 0

    def hit(self) -> bool:
        self.count += 1
        return self.at == self.count


class CrashingPool(PassingPool):
    """A pool that loses power before or after one of its durable calls."""

    def __init__(self, pool: Pool, before: Nth, after: Nth) -> None:
        super().__init__(pool)
        self.before, self.after = before, after

    def _durably(self, call: Callable[[], list[ImageInfo] | None]) -> list[ImageInfo]:
        if self.before.hit():
            raise Crash
        result = call()
        if self.after.hit():
            raise Crash
        return result or []

    def apply(self, changes: Sequence[Change], records: Records | None = None) -> list[ImageInfo]:
        return self._durably(lambda: self.pool.apply(changes, records))

    def flush(self, records: Records | None = None) -> None:
        self._durably(lambda: self.pool.flush(records))


class End:
    """One of the two systems. `disk` and the database's file outlive a crash."""

    def __init__(self, template: Path, directory: Path, clock: VirtualClock) -> None:
        directory.mkdir(parents=True)
        shutil.copy(template, directory / "state.db")
        self.path = directory / "state.db"
        self.disk = MemoryDisk()
        self.clock = clock
        self.before, self.after = Nth(), Nth()
        self.events: list[tuple[EventKind, str]] = []
        self.wrap: Callable[[Pool], Pool] = lambda pool: pool
        self.open()

    def open(self) -> None:
        self.database = Database(self.path)
        self.pool = MemoryPool(self.database, "A", self.disk)
        self.pools: dict[str, Pool] = {"A": self.wrap(CrashingPool(self.pool, self.before, self.after))}
        self.fences = Fences()
        needs = needs_of_all_floors(self.database)
        self.resources = Resources(self.database, self.pools, needs, SetLocks(), self.report, self.clock)

    def report(self, kind: EventKind, message: str) -> None:
        self.events.append((kind, message))

    def crash(self) -> None:
        self.before.at = self.after.at = None
        self.database.close()
        self.open()

    def save(self) -> tuple[bytes, MemoryDisk]:
        """A copy of all that is durable, as somebody takes one of a stopped system."""
        self.database.close()
        saved = self.path.read_bytes(), copy.deepcopy(self.disk)
        self.open()
        return saved

    def put_back(self, saved: tuple[bytes, MemoryDisk]) -> None:
        """Yesterday's copy, a virtual machine rolled back: the system starts from what was."""
        self.database.close()
        self.path.write_bytes(saved[0])
        self.disk = copy.deepcopy(saved[1])
        self.open()

    def create(self, role: str, sizes: Sequence[int]) -> None:
        names = [f"V{position}" for position in range(len(sizes))]
        created = self.pool.apply([Create(name, size) for name, size in zip(names, sizes, strict=True)])
        peer = {"name": "peer", "system_uuid": str(uuid.uuid4()), "system_name": "peer", "address": "peer:1"}
        of = {"uuid": SET_UUID, "name": "S", "role": role, "state": "ready", "peer_id": 1, "remote_pool": "A"}
        with self.database.transaction() as connection:
            peer_records.insert_peer(connection, peer | {"certificate": b"x", "created_at": 0.0})
            members = [MemberRecord(info.id, info.name) for info in created]
            set_records.insert_set(connection, of | {"generation": 1, "created_at": 0.0}, members)

    @property
    def of(self) -> SetRecord:
        with self.database.read() as connection:
            return set_records.all_sets(connection)[0]

    def content(self, member: int) -> bytes:
        image = self.pool.open(self.of.members[member].image_id)
        buffer = bytearray(image.size_bytes)
        image.read(0, memoryview(buffer))
        return bytes(buffer)

    def write(self, member: int, offset: int, data: bytes) -> None:
        self.pool.open(self.of.members[member].image_id).write(offset, memoryview(data))

    def internal_names(self) -> list[str]:
        return sorted(image.name for image in self.pool.images() if image.kind == "internal")


class Inline:
    """Does at once what a thread would do beside."""

    def submit(self, task: Callable[[], None], /) -> Future[None]:
        future: Future[None] = Future()
        task()
        future.set_result(None)
        return future


class Link:
    """The primary's channel, with the secondary's state machine at its other end.

    `lost_request`, `lost_answer`: which message of its direction is the last that gets nowhere.
    """

    def __init__(self, secondary: End, lost_request: Nth, lost_answer: Nth) -> None:
        self.remote = "secondary"
        self.wire_bytes = 0
        self.data_bytes = 0
        self._secondary = secondary
        self._lost_request, self._lost_answer = lost_request, lost_answer
        self._answers: deque[AnyMessage] = deque()
        self.change: Callable[[AnyMessage], AnyMessage] = lambda message: message
        self.side = ReceiverEndpoint(
            secondary.resources,
            secondary.of,
            secondary.fences.of(SET_UUID),
            Inline(),
            lambda: self.wire_bytes,
        )
        self._run = ReceiverMachine(self.side)

    def send(self, message: AnyMessage, table: bytes = b"", data: memoryview = memoryview(b"")) -> None:  # noqa: B008
        if self._lost_request.hit():
            raise PeerUnreachable("the request was lost")
        payload = memoryview(table + bytes(data))
        frame = frames.encode(message, len(payload))
        self.wire_bytes += len(frame) + len(payload)
        self.data_bytes += len(data)
        frames.decode_head(frame[: frames.HEAD_BYTES], payload_allowed=True)
        heard = frames.decode_message(frame[frames.HEAD_BYTES :], len(payload))
        answer = self.change(self._run.answer(heard, payload))  # type: ignore[arg-type]  # a run sends nothing else
        if self._lost_answer.hit():
            raise PeerUnreachable("the answer was lost")
        self._answers.append(frames.decode_message(frames.encode(answer)[frames.HEAD_BYTES :]))

    def receive(self, timeout_seconds: float) -> tuple[AnyMessage, memoryview] | None:
        if not self._answers:
            self._secondary.clock.time += timeout_seconds
            return None
        return self._answers.popleft(), memoryview(b"")

    def readable(self) -> bool:
        return bool(self._answers)


class World:
    def __init__(self, template: Path, directory: Path, sizes: Sequence[int]) -> None:
        self.clock = VirtualClock()
        self.primary = End(template, directory / "primary", self.clock)
        self.secondary = End(template, directory / "secondary", self.clock)
        self.members = len(sizes)
        self.primary.create("primary", sizes)
        self.secondary.create("secondary", sizes)
        self.points = [self.secondary_content()]  # every content that the secondary may ever show (R1)
        self.requests, self.answers = Nth(), Nth()
        self.data_bytes = 0
        self.lie_about_digest = False
        self.lie: Callable[[AnyMessage], AnyMessage] | None = None  # what the secondary says in place of an answer

    def request(self, *, give_up: bool = True) -> str:
        """Asks for a run, as RunRequests.replicate does; returns its uuid. The one before is given up or goes first."""
        run = str(uuid.uuid4())
        content = [self.primary.content(member) for member in range(self.members)]
        primary, of = self.primary, self.primary.of
        if give_up:
            with primary.database.transaction() as connection:
                fail_others(connection, of.id, run, 0.0, "given up")  # its point stays
        source = RunSource(tuple(member.image_id for member in of.members))
        RunPoints(primary.resources).take(of, run, 0, source)
        self.points.append(content)
        return run

    def _primary_end(self, run: str) -> SenderEndpoint:
        primary = self.primary
        return SenderEndpoint(
            primary.resources,
            primary.of,
            run,
            primary.report,
        )

    def attempt(self, run: str) -> None:
        """One attempt over one connection; raises what cut it."""
        end = self._primary_end(run)
        link = Link(self.secondary, self.requests, self.answers)
        if self.lie_about_digest:
            link.change = _with_another_digest
        if self.lie is not None:
            link.change = self.lie
        driver = SenderDriver(link, end, Progress(run, 0.0, self.clock), lambda: None)
        machine = SenderMachine(run, SET_UUID, 1, Asking("secondary", self.clock), end.history)
        try:
            driver.drive(machine.steps(end.side))
        finally:
            self.data_bytes += link.data_bytes
            link.side.close()

    def keep_history(self) -> None:
        """From now on each run leaves snapshots on the secondary."""
        of = {"snapshot_history": "secondary", "snapshot_basename": "h", "snapshot_count": 1}
        for end in (self.primary, self.secondary):
            with end.database.transaction() as connection:
                set_records.update_set(connection, end.of.id, **of)

    def check(self) -> None:
        """R1: what the secondary shows is some point of the primary, of all members at the same instant."""
        assert self.secondary_content() in self.points

    def secondary_content(self) -> list[bytes]:
        return [self.secondary.content(member) for member in range(self.members)]

    def check_done(self, run: str) -> None:
        """All is there, both sides' records agree, and nothing is left behind."""
        assert self.secondary_content() == self.points[-1]
        states = []
        for end in (self.primary, self.secondary):
            with end.database.read() as connection:
                (point,) = point_records.set_points(connection, end.of.id)
                record = run_records.find_run(connection, run)
            assert (point.uuid, point.state) == (run, "base")
            assert record is not None and record.state == "success"
            assert end.internal_names() == [f"<{run} {member}>" for member in range(self.members)]
            states.append(record)
        assert states[0].changed_bytes == states[1].changed_bytes
        assert states[0].wire_bytes == states[1].wire_bytes

    def close(self) -> None:
        self.primary.database.close()
        self.secondary.database.close()


def _with_another_digest(message: AnyMessage) -> AnyMessage:
    """What a secondary that has something else would answer."""
    outcome = getattr(message, "outcome", None)
    if outcome is None:
        return message
    return msgspec.structs.replace(message, outcome=msgspec.structs.replace(outcome, digest=b"another digest.."))
