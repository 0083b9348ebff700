"""32 sets of 1 GiB volumes with 1 % changed in each, all asked for at once; beside it one such set alone.

Two processes `offsite serve` as for the initial run, with their default settings. All volumes count as written in
full on both sides (as the 1 TiB volume of the small runs does, each with pages of its own). 1 % are 2,621 random
4 KiB writes of incompressible data to each volume, through NBD, flushed, and all is synced before the clock starts.

Each round first runs three of the sets by themselves, one after the other, each after 1 % of its volume was
written. A run's seconds are those from before its request until its end by its record; its rate is its changed
bytes over its seconds; the single-run rate of the round is the median of the three. Then 1 % of all 32 volumes is
written and all 32 are asked for at once, by 32 threads over the control socket. Their time is that from before the
first request until the last end by the records. The ratio is

    time of the 32  /  (sum of their changed bytes / single-run rate),

with the medians of all rounds above and below the line. While runs are under way nobody else asks the systems
anything but, five times a second, whether one of the sets is done.

Memory is the peak resident set (VmHWM) of each process at the end of all rounds, since it began with 32 sets.
"""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks import fio, systems
from benchmarks.bench import Bench
from benchmarks.fio import Job
from benchmarks.measure import Line, Measured, Outcomes, Samples, Unit, at_most, below
from benchmarks.processes import peak_memory_bytes
from benchmarks.synthetic import map_volumes
from benchmarks.systems import Run, System
from offsite.units import KIB, MIB

_SETS = [f"Volume{number:02}" for number in range(32)]  # each set is called as its volume
_ALONE = _SETS[:3]
_BLOCK_BYTES = 4 * KIB
_TITLE = "32 sets of 1 GiB volumes, 1 % changed in each, all asked for at once"
TIME = Line(f"{_TITLE}: time", Unit.SECONDS, "their bytes at the rate of a single run", at_most(1.3))
PRIMARY = Line("the same: peak memory of the primary system", Unit.BYTES, target=below(300 * MIB))
SECONDARY = Line("the same: peak memory of the secondary system", Unit.BYTES, target=below(300 * MIB))
LINES = (TIME, PRIMARY, SECONDARY)


@dataclass(frozen=True, slots=True)
class _Values:
    together_seconds: list[float] = field(default_factory=list)
    expected_seconds: list[float] = field(default_factory=list)


def measure(bench: Bench) -> Outcomes:
    values = _Values()
    london, newark = _prepared(bench)
    with systems.serving(london, newark) as processes:
        for round_number in range(bench.settings.repeat):
            _round(bench, london, 1 + round_number, values)
        primary, secondary = (float(peak_memory_bytes(process.pid)) for process in processes)
    bench.say(f"peak memory {primary / MIB:.0f} and {secondary / MIB:.0f} MiB")
    return {
        TIME: Measured(Samples.of(values.together_seconds), Samples.of(values.expected_seconds)),
        PRIMARY: Measured(Samples.of([primary])),
        SECONDARY: Measured(Samples.of([secondary])),
    }


def _round(bench: Bench, london: System, seed: int, values: _Values) -> None:
    rates: list[float] = []
    for name in _ALONE:
        _change(bench, london, [name], seed)
        seconds, runs = _replicate_at_once(london, [name])
        rates.append(_changed_bytes(runs) / seconds)
    _change(bench, london, _SETS, 1000 + seed)
    seconds, runs = _replicate_at_once(london, _SETS)
    values.together_seconds.append(seconds)
    values.expected_seconds.append(_changed_bytes(runs) / statistics.median(rates))
    alone = ", ".join(f"{rate / 1e6:.0f}" for rate in rates)
    bench.say(f"alone {alone} MB/s; {len(_SETS)} in {seconds:.2f} s, {_changed_bytes(runs) / seconds / 1e6:.0f} MB/s")


def _change(bench: Bench, london: System, names: list[str], seed: int) -> None:
    """Writes 1 % of each volume at random."""
    count = bench.settings.volume_bytes // 100 // _BLOCK_BYTES
    for name in names:
        job = Job(
            "randwrite",
            _BLOCK_BYTES,
            16,
            uri=london.uri(name),
            operations=count,
            seed=seed,
            fresh_data=True,
            flush=True,
        )
        fio.measure(job, bench.directory)
    os.sync()


def _replicate_at_once(london: System, names: list[str]) -> tuple[float, list[Run]]:
    """Seconds from before the first request until the last run has ended, and the runs."""
    with ThreadPoolExecutor(len(names)) as asking:
        start = time.time()
        list(asking.map(lambda name: london.ask("replicate", name), names))
    runs = [london.wait_for_run(name) for name in names]
    return max(run.ended_at for run in runs if run.ended_at is not None) - start, runs


def _changed_bytes(runs: list[Run]) -> int:
    return sum(run.changed_bytes for run in runs)


def _prepared(bench: Bench) -> tuple[System, System]:
    """Two systems, stopped, with all sets replicated and all volumes mapped."""
    size_bytes = bench.settings.volume_bytes
    with systems.two(bench, pool_bytes=2 * len(_SETS) * size_bytes) as (london, newark):
        for name in _SETS:
            london.create_volume(name, size_bytes)
            london.create_set(name, name, name)
        _replicate_at_once(london, _SETS)
    for system in (london, newark):
        map_volumes(system.state, size_bytes)
    return london, newark
