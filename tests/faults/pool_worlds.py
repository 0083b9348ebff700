"""What the images of a pool have to hold after some steps, and what may be found of it after a crash."""

from __future__ import annotations

import copy
from pathlib import Path

from offsite.pools.local.pool import LocalPool
from offsite.store.database import Database
from tests.faults.pool_workload import PAGE, Life, Step, content
from tests.pools.pool_model import BLOCK, ZERO, Model

POOL_PAGES = 48
VOLUME_PAGES = 12
V = "v"
MEMORY = Path("/dev/shm")  # thousands of states are written and opened

World = dict[str, Model]
"""Images by name."""


def make_template(directory: Path) -> World:
    """A pool with a volume of which the first pages are written, closed in good order."""
    directory.mkdir()
    database = Database(directory / "state.db")
    LocalPool.create(database, "A", Path("A.data"), POOL_PAGES * PAGE, PAGE).close()
    database.close()
    life = Life(directory)
    life.step(0, ["create", V, VOLUME_PAGES * PAGE])
    life.step(0, ["write", V, 0, 4 * PAGE])
    life.close()
    model = Model(V, "volume", None, VOLUME_PAGES * PAGE)
    model.put(0, content(0, 4 * PAGE))
    model.settle()
    return {V: model}


def after_step(world: World, tag: int, step: Step) -> World:
    """The world once `step` is acknowledged. What only hosts did since the last flush may have got lost."""
    world = copy.deepcopy(world)
    match step:
        case ["write", str(name), int(offset), int(length)]:
            world[name].put(offset, content(tag, length))
            return world
        case ["discard", str(name), int(offset), int(length)]:
            world[name].zero(offset, length)
            return world
        case ["reclaim" | "read" | "checkpoint", *_]:
            return world
        case ["create", str(name), int(size)]:
            world[name] = Model(name, "volume", None, size)
        case ["snapshot", str(source), str(name)]:
            world[name] = world[source].copy()
        case ["replace", str(target), str(source)]:
            world[target] = world[source].copy()
        case ["resize", str(name), int(size)]:
            world[name].cut(size)
        case ["delete", str(name)]:
            del world[name]
        case ["run", str(target), str(source), str(name)]:
            world[target], world[name] = world[source].copy(), world[source].copy()
            del world[source]
    for model in world.values():
        model.settle()
    return world


def problem_of(contents: dict[str, bytes], world: World) -> str:
    for name, found in contents.items():
        model = world[name]
        for at in range(0, len(found), BLOCK):
            block, number = found[at : at + BLOCK], at // BLOCK
            if block != model.blocks.get(number, ZERO) and block not in model.versions.get(number, ()):
                return f"block {number} of {name!r} is {block[:16]!r}, not {model.blocks.get(number, ZERO)[:16]!r}"
    return ""
