"""Runs of a volume group of 16 in which nothing has changed.

Two processes `offsite serve` as for the initial run. The 16 volumes of 1 GiB count as written in full on both
sides, as the 1 TiB volume of the small runs does. The group is replicated again and again with no write between;
the time is that of the run's record, from the snapshot of all members until the run is complete on both sides,
and beside it stands what whoever types `offsite replicate SET --wait` waits.
"""

from __future__ import annotations

import os

from benchmarks import systems
from benchmarks.bench import Bench
from benchmarks.measure import Line, Measured, Outcomes, Samples, Unit, at_most
from benchmarks.processes import CannotMeasure
from benchmarks.synthetic import map_volumes
from benchmarks.systems import System, Timed

_MEMBERS = [f"Member{number:02}" for number in range(16)]
_REPEAT_MIN = 9  # a round is short
NOTHING = Line("run of a group of 16 with nothing changed, by its record", Unit.SECONDS, target=at_most(0.3))
SEEN = Line("run of a group of 16 with nothing changed, as the user sees it", Unit.SECONDS)
LINES = (NOTHING, SEEN)


def measure(bench: Bench) -> Outcomes:
    runs: list[Timed] = []
    london, newark = _prepared(bench)
    with systems.serving(london, newark):
        for _ in range(max(bench.settings.repeat, _REPEAT_MIN)):
            os.sync()
            runs.append(london.replicate("BooksSet"))
            if runs[-1].run.changed_bytes:
                raise CannotMeasure("something had changed")
            bench.say(f"{runs[-1].run.seconds * 1e3:.0f} ms, seen {runs[-1].seen_seconds * 1e3:.0f} ms")
    return {
        NOTHING: Measured(Samples.of(timed.run.seconds for timed in runs)),
        SEEN: Measured(Samples.of(timed.seen_seconds for timed in runs)),
    }


def _prepared(bench: Bench) -> tuple[System, System]:
    """Two systems, stopped, with the group replicated and its volumes mapped."""
    size_bytes = bench.settings.volume_bytes
    with systems.two(bench, pool_bytes=2 * len(_MEMBERS) * size_bytes) as (london, newark):
        for name in _MEMBERS:
            london.create_volume(name, size_bytes)
        london.ask("create", "volume-group", "volumes", ",".join(_MEMBERS), "Books")
        london.create_set("BooksSet", "Books", "Books")
        london.replicate("BooksSet")
    for system in (london, newark):
        map_volumes(system.state, size_bytes)
    return london, newark
