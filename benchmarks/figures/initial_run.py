"""The first run of a set: 1 GiB of random data, from the request until all of it is durable on the other side.

Offsite: two processes `offsite serve` on 127.0.0.1 and 127.0.0.2, mutual TLS 1.3, pools on the same disk; the
time is that of the run's record, from request to success, digests compared and everything synced. btrfs: a
read-only snapshot of a subvolume with one file of the same data, `btrfs send | btrfs receive` into a second
file system on the same disk, and a sync of it; nothing is encrypted and nothing compared. Bare copy: a file
through a TLS 1.3 socket into a file, two processes of the same Python, buffers of 1 MiB, fsync before the
answer; nothing compared. The source is in the page cache for all. Every round goes into a new volume,
subvolume and file; the three take turns.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from benchmarks import btrfs, systems, tls_copy
from benchmarks.bench import Bench, write_random
from benchmarks.measure import Line, Measured, Outcome, Outcomes, Samples, Unit, Unmeasured, at_least
from benchmarks.processes import CannotMeasure
from benchmarks.systems import System

_TITLE = "initial run, 1 GiB of random data, TLS, synced"
BTRFS = Line(_TITLE, Unit.BYTES_PER_SECOND, "btrfs send, receive, sync", at_least(2.0))
COPY = Line(_TITLE, Unit.BYTES_PER_SECOND, "bare file → TLS socket → file, fsync", at_least(0.7))
SEEN = Line("the same, as `offsite replicate SET --wait` takes", Unit.SECONDS)
LINES = (BTRFS, COPY, SEEN)


def measure(bench: Bench) -> Outcomes:
    source = bench.directory / "random"
    write_random(source, bench.settings.volume_bytes)
    own: list[float] = []
    seen: list[float] = []
    others: dict[Line, list[float]] = {BTRFS: [], COPY: []}
    why = ""
    with ExitStack() as stack:
        london, _ = stack.enter_context(systems.two(bench))
        london.import_volume("Sales", source)
        pair: btrfs.Pair | None = None
        try:
            pair = stack.enter_context(btrfs.pair(bench))
            write_random(pair.volume / "data", bench.settings.volume_bytes)
        except CannotMeasure as error:
            why = str(error)
        for round_number in range(bench.settings.repeat):
            os.sync()
            timed = _initial_run(london, f"Sales-{round_number}")
            own.append(timed.run.seconds)
            seen.append(timed.seen_seconds)
            os.sync()
            copied = bench.directory / "copied"
            others[COPY].append(tls_copy.copy(bench.directory / "keys", source, copied))
            copied.unlink()
            os.sync()
            if pair is not None:
                others[BTRFS].append(pair.replicate(f"snapshot-{round_number}"))
                pair.forget(f"snapshot-{round_number}")
            said = ", ".join(f"{line.beside} {values[-1]:.2f} s" for line, values in others.items() if values)
            bench.say(f"initial run {own[-1]:.2f} s, seen {seen[-1]:.2f} s; {said}")
    rates = _rates(bench, own)
    beside_btrfs: Outcome = Measured(rates, _rates(bench, others[BTRFS])) if others[BTRFS] else Unmeasured(why)
    return {
        BTRFS: beside_btrfs,
        COPY: Measured(rates, _rates(bench, others[COPY])),
        SEEN: Measured(Samples.of(seen)),
    }


def _initial_run(london: System, secondary: str) -> systems.Timed:
    """The secondary volume stays: giving its space back would take time from whoever is measured next."""
    london.create_set("SalesSet", "Sales", secondary)
    timed = london.replicate("SalesSet")
    london.command("delete", "replication-set", "SalesSet")
    return timed


def _rates(bench: Bench, seconds: list[float]) -> Samples:
    return Samples.of(bench.settings.volume_bytes / each for each in seconds)
