"""A secondary that lies, in ways that are right by type: false Holds and Ready, other digests, an Ack of nothing.

It can spoil what it holds itself; the primary's volumes, and every wait of it, it cannot. A failure's seed is in its
message.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offsite.errors import OffsiteError
from offsite.replication.points import point_records
from offsite.replication.wire.messages import AnyMessage
from tests.replication.lies import Lies
from tests.replication.lockstep import World
from tests.replication.sites import random_bytes, template_database

MIB = 1 << 20
SIZES = [2 * MIB, MIB]
SEEDS = range(12)


class Liar:
    """Lies now and then, by its seed."""

    def __init__(self, seed: int, runs: list[str]) -> None:
        self._chance = random.Random(seed)
        self._lies = Lies(self._chance, runs)
        self.lies = 0

    def __call__(self, message: AnyMessage) -> AnyMessage:
        if self._chance.random() < 0.5:
            return message
        self.lies += 1
        return self._lies.in_place_of(message)


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
        liar = Liar(seed, runs)
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
