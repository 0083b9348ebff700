"""What a host feels of a run: completion latency (99th percentile of fio) of 4 KiB random reads over NBD.

The host reads a volume of London as fast as it can, at queue depth 1 and at 16, first with nothing else going
on, then while an initial run sends another volume of London to Newark at full rate. Both systems, fio and all
that they do share the processors named above. A sample counts only if the run was still going when fio ended.
"""

from __future__ import annotations

import os
from collections import defaultdict

from benchmarks import fio, systems
from benchmarks.bench import Bench, write_random
from benchmarks.fio import Job
from benchmarks.measure import Line, Measured, Outcomes, Samples, Unit, at_most
from benchmarks.processes import CannotMeasure, wait_until
from benchmarks.systems import System
from offsite.units import KIB

_DEPTHS = (1, 16)
_RUN_VOLUMES = 3  # times the size of a volume: the run has to last longer than both windows
_WINDOW_SECONDS = 1.5
_RUN_SECONDS_MAX = 120.0


def _line(depth: int) -> Line:
    title = f"p99 of a host's 4 KiB reads while a run sends, queue depth {depth}"
    return Line(title, Unit.SECONDS, "without the run", at_most(3.0))


LINES = tuple(_line(depth) for depth in _DEPTHS)


def measure(bench: Bench) -> Outcomes:
    host, sent = bench.directory / "host", bench.directory / "sent"
    write_random(host, bench.settings.volume_bytes)
    write_random(sent, bench.settings.volume_bytes * _RUN_VOLUMES)
    without: dict[int, list[float]] = defaultdict(list)
    during: dict[int, list[float]] = defaultdict(list)
    with systems.two(bench) as (london, _):
        london.import_volume("Host", host)
        london.import_volume("Sent", sent)
        host.unlink()
        sent.unlink()
        for round_number in range(bench.settings.repeat):
            os.sync()
            for depth in _DEPTHS:
                without[depth].append(_p99(bench, london, depth))
            _during_run(bench, london, f"Sent-{round_number}", during)
            for depth in _DEPTHS:
                bench.say(f"p99, depth {depth}: {without[depth][-1] * 1e6:.0f} → {during[depth][-1] * 1e6:.0f} µs")
    return {_line(depth): Measured(Samples.of(during[depth]), Samples.of(without[depth])) for depth in _DEPTHS}


def _during_run(bench: Bench, london: System, secondary: str, during: dict[int, list[float]]) -> None:
    london.create_set("SentSet", "Sent", secondary)
    london.command("replicate", "SentSet")
    for depth in _DEPTHS:
        during[depth].append(_p99(bench, london, depth))
    if not _is_running(london):
        raise CannotMeasure("the run ended before fio did")
    wait_until(lambda: not _is_running(london), _RUN_SECONDS_MAX, f"the run did not end within {_RUN_SECONDS_MAX:g} s")
    run = london.last_run("SentSet")
    if run.state != "success":
        raise CannotMeasure(f"the run ended with {run.state}")
    bench.say(f"the run took {run.seconds:.1f} s")
    london.command("delete", "replication-set", "SentSet")


def _is_running(london: System) -> bool:
    return london.last_run("SentSet").state == "running"


def _p99(bench: Bench, london: System, depth: int) -> float:
    seconds = min(_WINDOW_SECONDS, bench.settings.window_seconds)
    job = Job("randread", 4 * KIB, depth, uri=london.uri("Host"), seconds=seconds)
    return fio.measure(job, bench.directory).p99_seconds
