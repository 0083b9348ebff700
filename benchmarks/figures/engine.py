"""A fully written 1 TiB image in the engine: `LocalPool` in this process, no NBD, no second system.

The page tables are built directly (67 million pages of 16 KiB, mapped to a sparse file). The state directory
lies in /dev/shm, so that syncs cost nothing: what is timed is the whole call `Pool.apply([Snapshot])`, with
its transaction in SQLite, and the whole difference, taken to its last extent. Between the two, 5,000 writes
of 4 KiB at random offsets go through an open image. The difference is that of the new content against the
snapshot. Before each timed call all is flushed: what is waiting to be written is no part of it.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measure import Line, Measured, Outcomes, Samples, Unit, below
from benchmarks.processes import CannotMeasure
from benchmarks.synthetic import map_whole_image
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create, Delete, Snapshot
from offsite.store.database import Database
from offsite.units import GIB, KIB, format_size

MEMORY = Path("/dev/shm")
_MEMORY_BYTES_NEEDED = GIB
_BLOCK_BYTES = 4 * KIB
_REPEAT_MIN = 5  # it costs little

SNAPSHOT = Line("snapshot of a fully written 1 TiB image, in the engine", Unit.SECONDS, target=below(0.002))
DIFFERENCE = Line("its difference after 5,000 scattered writes", Unit.SECONDS, target=below(0.050))
LINES = (SNAPSHOT, DIFFERENCE)


def measure(bench: Bench) -> Outcomes:
    free_bytes = os.statvfs(MEMORY).f_bavail * os.statvfs(MEMORY).f_frsize if MEMORY.is_dir() else 0
    if free_bytes < _MEMORY_BYTES_NEEDED:
        raise CannotMeasure(
            f"/dev/shm has {format_size(free_bytes)} free, {format_size(_MEMORY_BYTES_NEEDED)} are needed"
        )
    with tempfile.TemporaryDirectory(prefix="offsite-bench-", dir=MEMORY) as directory:
        database = Database(Path(directory) / "state.db")
        try:
            size_bytes = bench.settings.large_volume_bytes
            pool = LocalPool.create(database, "A", Path("pool-A.data"), size_bytes + size_bytes // 16)
            try:
                return _measure(bench, pool, size_bytes)
            finally:
                pool.close()
        finally:
            database.close()


def _measure(bench: Bench, pool: LocalPool, size_bytes: int) -> Outcomes:
    image_id = pool.apply([Create("Terabyte", size_bytes)])[0].id
    map_whole_image(pool, image_id)
    pool.flush()
    bench.say(f"{format_size(size_bytes)} mapped")
    snapshots: list[float] = []
    differences: list[float] = []
    for round_number in range(max(bench.settings.repeat, _REPEAT_MIN)):
        start = time.perf_counter()
        snapshot_id = pool.apply([Snapshot(image_id, "Before")])[0].id
        snapshots.append(time.perf_counter() - start)
        _write_scattered(pool, image_id, bench.settings.scattered_writes, seed=round_number)
        pool.flush()
        start = time.perf_counter()
        extents = list(pool.difference(snapshot_id, image_id))
        differences.append(time.perf_counter() - start)
        if sum(extent.length for extent in extents) < bench.settings.scattered_writes * _BLOCK_BYTES:
            raise CannotMeasure(f"the difference has only {len(extents)} extents: it is wrong")
        pool.apply([Delete(snapshot_id)])
        pool.flush()
        bench.say(f"snapshot {snapshots[-1] * 1e3:.2f} ms, difference {differences[-1] * 1e3:.1f} ms")
    return {SNAPSHOT: Measured(Samples.of(snapshots)), DIFFERENCE: Measured(Samples.of(differences))}


def _write_scattered(pool: LocalPool, image_id: int, count: int, seed: int) -> None:
    blocks = pool.image(image_id).size_bytes // _BLOCK_BYTES
    data = memoryview(os.urandom(_BLOCK_BYTES))
    image = pool.open(image_id)
    try:
        for block in random.Random(seed).sample(range(blocks), count):
            image.begin()
            try:
                image.write(block * _BLOCK_BYTES, data)
            finally:
                image.end()
    finally:
        image.close()
