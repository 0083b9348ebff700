"""The real database and pool of a machine: where power may fail, and beside them what they have to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from offsite.errors import OffsiteError
from offsite.pools.local.open_image import LocalOpenImage
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Change, ImageInfo, Records
from offsite.store.database import Database
from tests.simulation.shadow import BLOCK_BYTES
from tests.simulation.tasks import Killed

if TYPE_CHECKING:
    from tests.simulation.machine import Machine


class SimulatedDatabase(Database):
    """A commit is where power may fail: before it, or just after it."""

    machine: Machine
    depth = 0

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        machine = self.machine
        machine.check_power()
        faults = machine.world.faults
        outermost = not self.depth
        with super().transaction() as connection:
            self.depth += 1
            try:
                yield connection
            finally:
                self.depth -= 1
            if outermost and faults.strikes("power lost before a commit", faults.crash_at_commit / 2):
                machine.lose_power()
                raise Killed
        if outermost and faults.strikes("power lost after a commit", faults.crash_at_commit / 2):
            machine.lose_power()
            raise Killed

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self.machine.check_power()
        with super().read() as connection:
            yield connection


class SimulatedImage(LocalOpenImage):
    """Tells the shadow what is written, whoever writes it."""

    __slots__ = ("_is_writing", "_machine")

    def __init__(self, pool: SimulatedPool, image: Any) -> None:
        super().__init__(pool, image)
        self._machine = pool.machine
        self._is_writing = False  # a write of many pages is made of smaller ones

    def write(self, offset: int, data: memoryview) -> None:
        self._done(offset, len(data), bytes(data), lambda: super(SimulatedImage, self).write(offset, data))

    def write_zeroes(self, offset: int, length: int, *, allocate: bool = False) -> None:
        zeros = bytes(length)
        self._done(
            offset, length, zeros, lambda: super(SimulatedImage, self).write_zeroes(offset, length, allocate=allocate)
        )

    def discard(self, offset: int, length: int) -> None:
        content = self._machine.shadow.images[self._image.name]
        before = dict(content.blocks)
        self._done(offset, length, bytes(length), lambda: super(SimulatedImage, self).discard(offset, length))
        end = offset + length
        whole_start = -(-offset // self.allocation_bytes) * self.allocation_bytes
        whole_end = end if end == self.size_bytes else end // self.allocation_bytes * self.allocation_bytes
        for at in range(offset, end, BLOCK_BYTES):
            if not whole_start <= at < whole_end:  # in a full pool an end may stay as it was
                found = self._as_it_is(at, BLOCK_BYTES)
                if found == before.get(at // BLOCK_BYTES):
                    content.put(at, found)

    def _done(self, offset: int, length: int, wanted: bytes, call: Callable[[], None]) -> None:
        if self._is_writing:
            call()
            return
        content = self._machine.shadow.images[self._image.name]
        self._is_writing = True
        try:
            call()
        except (OffsiteError, OSError):
            content.put(offset, self._as_it_is(offset, length))
            raise
        except Killed:
            content.put(offset, wanted)  # some of it, perhaps
            raise
        finally:
            self._is_writing = False
        content.put(offset, self._corrupted(offset, wanted))

    def _corrupted(self, offset: int, wanted: bytes) -> bytes:
        """What a run writes to the secondary may be stored otherwise: only its digests can tell."""
        faults = self._machine.world.faults
        if self._image.kind != "internal" or not any(wanted):
            return wanted
        if not faults.strikes("blocks stored otherwise than written", faults.corruption):
            return wanted
        position = next(position for _, position in self._pieces(offset, len(wanted)))
        if position is not None:
            self._machine.disk.write(self._descriptor, bytes([wanted[0] ^ 1]), position)
            return bytes([wanted[0] ^ 1]) + wanted[1:]
        return wanted

    def _as_it_is(self, offset: int, length: int) -> bytes:
        with self._machine.world.faults.none():
            buffer = bytearray(length)
            self.read(offset, memoryview(buffer))
            return bytes(buffer)


class SimulatedPool(LocalPool):
    """The real pool, and beside it what it has to hold."""

    machine: Machine

    def open(self, image_id: int) -> SimulatedImage:
        with self.lock:
            image = self.find(image_id)
            opened = SimulatedImage(self, image)
            image.visitors.add(opened)
            return opened

    def apply(self, changes: Sequence[Change], records: Records | None = None) -> list[ImageInfo]:
        machine = self.machine
        machine.world.tasks.switch()
        machine.check_power()

        def cut_off_here(connection: Connection, infos: Sequence[ImageInfo]) -> None:
            machine.shadow.cut = after = machine.shadow.changed(changes, names)
            if records is not None:
                records(connection, infos)
            machine.world.checks.about_to_commit(changes, after, volumes)
            machine.world.checks.given_up(machine, changes, names)

        names = {image_id: image.name for image_id, image in self.by_id.items()}
        volumes = {image_id for image_id, image in self.by_id.items() if image.kind == "volume"}
        try:
            infos = super().apply(changes, cut_off_here)
        except Exception:
            machine.shadow.cut = None
            raise
        assert machine.shadow.cut is not None
        machine.shadow.images, machine.shadow.cut = machine.shadow.cut, None
        machine.world.checks.committed(machine)
        machine.world.tasks.switch()
        return infos

    def flush(self, records: Records | None = None) -> None:
        self.machine.world.tasks.switch()
        super().flush(records)
        self.machine.shadow.settle()
        self.machine.world.tasks.switch()

    def content(self, image_id: int) -> bytes:
        """All of an image, as a host would read it."""
        with self.machine.world.faults.none():
            opened = LocalOpenImage(self, self.find(image_id))
            buffer = bytearray(opened.size_bytes)
            opened.begin()
            opened.read(0, memoryview(buffer))
            opened.end()
            return bytes(buffer)
