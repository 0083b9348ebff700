"""A secondary that lies, in ways that are right by type: false Holds and Ready, other digests, an Ack of nothing.

It can spoil what it holds itself; the primary's volumes, and every wait of it, it cannot. A failure's seed is in its
message.
"""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from offsite.errors import OffsiteError
from offsite.replication import point_records
from offsite.replication.messages import AnyMessage, Committed, Done, Holds, Outcome, Partial, Position, Ready, Working
from tests.replication.lockstep import World
from tests.replication.sites import random_bytes, template_database

MIB = 1 << 20
SIZES = [2 * MIB, MIB]
SEEDS = range(12)


class Liar:
    """Lies now and then, by its seed."""

    def __init__(self, seed: int, world: World, runs: list[str]) -> None:
        self._chance = random.Random(seed)
        self._world = world
        self._runs = runs
        self.lies = 0

    def __call__(self, message: AnyMessage) -> AnyMessage:
        if self._chance.random() < 0.5:
            return message
        self.lies += 1
        if self._chance.random() < 0.2:
            others: list[AnyMessage] = [
                Done(),
                Working(),
                self._holds(),
                self._ready(),
                Committed(outcome=self._outcome()),
            ]
            return self._chance.choice(others)
        match message:
            case Holds():
                return self._holds()
            case Ready():
                return self._ready()
            case Committed():
                return Committed(outcome=self._outcome())
            case _:
                return self._forged(message)

    def _forged(self, message: AnyMessage) -> AnyMessage:
        changed: dict[str, Any] = {}
        if hasattr(message, "sequence"):
            changed["sequence"] = self._chance.choice([0, 1, 7, (1 << 63) - 1])
        if hasattr(message, "durable"):
            changed["durable"] = self._position()
        return msgspec.structs.replace(message, **changed)

    def _uuid(self) -> str:
        return self._chance.choice([*self._runs, str(uuid.UUID(int=self._chance.getrandbits(128)))])

    def _position(self) -> Position:
        return Position(self._chance.choice([0, 1, 2, 3, 16]), self._chance.choice([0, 1, 4096, MIB, 2 * MIB, 1 << 47]))

    def _outcome(self) -> Outcome:
        most = self._chance.choice([0, 7, (1 << 63) - 1])
        return Outcome(digest=self._chance.randbytes(16), changed_bytes=most, wire_bytes=most)

    def _holds(self) -> Holds:
        base = self._chance.choice([None, self._uuid()])
        partial = Partial(point=self._uuid(), base=base, watermark=self._position())
        return Holds(
            base=self._chance.choice([None, self._uuid()]),
            outcome=self._chance.choice([None, self._outcome()]),
            partial=self._chance.choice([None, partial]),
        )

    def _ready(self) -> Ready:
        most = self._chance.choice([0, (1 << 63) - 1])
        return Ready(watermark=self._position(), changed_bytes=most, wire_bytes=most)


@pytest.fixture
def make_world(tmp_path: Path) -> Any:
    worlds: list[World] = []

    def make() -> World:
        worlds.append(World(template_database(), tmp_path / str(len(worlds)), SIZES))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


def test_it_harms_nobody_but_itself(make_world: Callable[[], World]) -> None:
    lies = 0
    for seed in SEEDS:
        world = make_world()
        runs: list[str] = []
        liar = Liar(seed, world, runs)
        for number in range(3):
            world.primary.write(0, number * 4096, random_bytes(65536, seed * 10 + number))
            runs.append(world.request())
            before = [world.primary.content(member) for member in range(world.members)]
            world.lie = liar if number else None  # the first run is an honest one
            began = world.clock.time
            try:
                with contextlib.suppress(OffsiteError):  # it was seen through, or the wait for it ended
                    world.attempt(runs[-1])
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error!r}") from error
            assert world.clock.time - began < 3600, f"seed {seed}: R8"
            assert [world.primary.content(member) for member in range(world.members)] == before, f"seed {seed}"
            world.check()
            with world.primary.database.read() as connection:
                held = point_records.set_points(connection, world.primary.of.id)
            images = sum(len(point.image_ids) for point in held)
            assert len(world.primary.internal_names()) == images, f"seed {seed}: images that belong to nothing"
            assert len(held) <= number + 2, f"seed {seed}"
        lies += liar.lies
    assert lies > len(SEEDS) or len(SEEDS) < 2, "nothing was tried"
