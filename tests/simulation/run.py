"""Runs seeds in this process, which is for nothing else any more then."""

from __future__ import annotations

import gc
import logging
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import structlog

from offsite.access.certificates import Authority
from offsite.pools.local.pool import LocalPool
from offsite.store.database import Database
from tests.simulation import disk, machine, patching
from tests.simulation.world import Result, World

MEMORY = Path("/dev/shm")
SEEDS_BETWEEN_COLLECTIONS = 10
_SHOWN = 60  # lines of the trace of a seed that failed


@dataclass(frozen=True)
class Failed:
    seed: int
    what: str  # the sentence, its traceback, the rates of faults and the end of the trace
    steps: int


@contextmanager
def place() -> Iterator[Path]:
    """A directory in memory, for processes that may be killed: whoever kills them removes it."""
    with tempfile.TemporaryDirectory(prefix="offsite-simulation-", dir=MEMORY if MEMORY.is_dir() else None) as path:
        yield Path(path)


@cache
def _prepared(within: Path) -> tuple[Path, dict[str, Authority]]:
    """A directory with what all seeds begin with, made by the real parts, before these are changed."""
    directory = Path(tempfile.mkdtemp(dir=within))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for name, pages in (("large", machine.LARGE_POOL_PAGES), ("small", machine.SMALL_POOL_PAGES)):
        (directory / name).mkdir()
        database = Database(directory / name / "state.db")
        size_bytes = pages * machine.PAGE_BYTES
        LocalPool.create(database, "A", Path("pool-A.data"), size_bytes, machine.PAGE_BYTES).close()
        database.close()
    authorities = {name: Authority(directory / f"keys-{name}", name, [name.lower()]) for name in ("London", "Newark")}
    gc.freeze()  # of all this nothing becomes garbage, and a third of the time would go into looking for it
    gc.disable()
    disk.install()
    patching.install(disk.SIMULATED_OS)
    return directory, authorities


def run(
    seed: int, within: Path, tell: Callable[[str], None] | None = None, world_of: type[World] = World
) -> Result | Failed:
    """One life, whose files are in a directory of `within`."""
    directory, authorities = _prepared(within)
    world = world_of(seed, directory / f"seed-{seed}", directory, authorities)
    if tell is not None:
        world.tell = tell
    if not seed % SEEDS_BETWEEN_COLLECTIONS:
        gc.collect()
    try:
        return world.live()
    except Exception as error:  # noqa: BLE001, whatever it is, the seed has to be told
        lines = [
            f"Seed {seed} failed: {type(error).__name__}: {error}",
            "".join(traceback.format_exception(error)),
            f"Faults: {world.faults.drawn}",
            *world.trace[-_SHOWN:],
        ]
        return Failed(seed, "\n".join(lines), world.tasks.steps)
