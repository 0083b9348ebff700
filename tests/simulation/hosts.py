"""What hosts do: one after another, on volumes and snapshots of one machine.

Each block that a host writes says which volume it is for, and has a number of its own: so a block in the wrong place is
known for what it is. Members of a group also have a ledger in their first block: the same number is written to
each in turn, every write only once the one before was acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from offsite.errors import OffsiteError, PoolFull
from offsite.pools.groups import Group
from offsite.pools.local.image import Image
from tests.simulation.checks import LEDGER
from tests.simulation.machine import PAGE_BYTES
from tests.simulation.pool import SimulatedImage
from tests.simulation.shadow import BLOCK_BYTES, Violation

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from tests.simulation.world import World

PAUSE_SECONDS = 0.4
PAGE_BLOCKS = PAGE_BYTES // BLOCK_BYTES


class Host:
    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self._random = Random(world.random.random())

    def work(self) -> None:
        """Until the machine loses power, or hosts are told to end."""
        while True:
            self._world.tasks.sleep(self._random.expovariate(1 / PAUSE_SECONDS))
            if not self._world.is_busy:
                return
            try:
                self._act()
            except PoolFull:
                self._world.counts["writes to a full pool"] += 1
            except (OffsiteError, OSError) as error:
                self._world.note(f"host of {self._machine.name}: {error}")

    def _act(self) -> None:
        if self._random.random() < 0.2:
            groups = self._machine.system.groups.all()
            if groups:
                self._write_ledger(self._random.choice(groups))
            return
        images = self._writable()
        if images:
            self._use(self._random.choice(images))

    def _writable(self) -> list[Image]:
        """What is a host's to write. The snapshots of a history, and of what was kept of a secondary, are left as they
        are: they have to show their run."""
        return [
            image
            for image in self._machine.pool.by_id.values()
            if image.kind != "internal"
            and "_" not in image.name
            and "-kept-" not in image.name
            and image.id not in self._machine.secondary_ids
        ]

    def _use(self, image: Image) -> None:
        blocks = image.size_bytes // BLOCK_BYTES
        first = self._random.randrange(1, blocks)
        count = min(self._random.choice((1, 1, 2, 4)), blocks - first)
        act = self._random.random()
        if act < 0.7:
            for number in range(first, first + count):
                self._inside(image, lambda opened, at=number: self._write(opened, image, at))  # type: ignore[misc]
        elif act < 0.85:
            if self._random.random() < 0.5:  # whole pages, which are given back
                first, count = (
                    first // PAGE_BLOCKS * PAGE_BLOCKS or PAGE_BLOCKS,
                    PAGE_BLOCKS * self._random.randint(1, 6),
                )
                count = min(count, blocks - first)
            self._inside(image, lambda opened: opened.discard(first * BLOCK_BYTES, count * BLOCK_BYTES))
        elif act < 0.92:
            self._machine.pool.flush()
        else:
            self._inside(image, lambda opened: self._read(opened, image, first, count))
        self._world.counts["what hosts did"] += 1

    def _write(self, opened: SimulatedImage, image: Image, number: int) -> None:
        self._world.written += 1
        text = b"%s %s %d " % (self._machine.name.encode(), image.uuid.encode(), self._world.written)
        opened.write(number * BLOCK_BYTES, memoryview((text * (BLOCK_BYTES // len(text) + 1))[:BLOCK_BYTES]))

    def _read(self, opened: SimulatedImage, image: Image, first: int, count: int) -> None:
        found = bytearray(count * BLOCK_BYTES)
        opened.read(first * BLOCK_BYTES, memoryview(found))
        content = self._machine.shadow.images[image.name]
        for at in range(count):
            block = bytes(found[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES])
            if block != content.blocks.get(first + at, bytes(BLOCK_BYTES)):
                raise Violation(f"P5: a host read {block[:40]!r} in block {first + at} of {image.name}")

    def _write_ledger(self, group: Group) -> None:
        self._world.ledger += 1
        name, number = group.name.encode(), self._world.ledger
        members = [self._machine.pool.by_id.get(image_id) for image_id in group.image_ids]
        if any(member is None or member.id in self._machine.secondary_ids for member in members):
            return
        for position, member in enumerate(members):
            text = LEDGER + b"%s %d %d " % (name, position, number)
            block = memoryview(text.ljust(BLOCK_BYTES, b"."))
            assert member is not None
            self._inside(member, lambda opened, data=block: opened.write(0, data))  # type: ignore[misc]
            self._world.tasks.switch()
        self._world.checks.broken_ledgers -= {group.name}

    def _inside(self, image: Image, act: Callable[[SimulatedImage], None]) -> None:
        opened = self._machine.pool.open(image.id)
        try:
            opened.begin()
            try:
                self._world.tasks.switch()
                act(opened)
            finally:
                opened.end()
        finally:
            opened.close()
