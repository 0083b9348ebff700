"""The first 20,000 random 4 KiB writes (queue depth 16, each to a block of its own) over a snapshot just taken.

Offsite: `create snapshots` through the command line, then fio on the volume. qemu-nbd: a new qcow2 overlay
over a raw image of the same size (`qemu-img create -f qcow2 -b base -F raw`), with default options and with
`extended_l2=on, cluster_size=128k`, then fio on the overlay. Both start with clean pages: before each window
everything is synced. The number of writes is the same for all, since the cost of a copy on write falls as
more of the image has been copied: a faster server in a fixed time would get further into the cheap part.
Of
20,000 writes 86 in 100 are the first to their 16 KiB page in Offsite, and 57 in 100 the first to their 64 KiB
cluster in the default overlay, so the number rather helps the overlay. The plain rate is that of random 4 KiB
writes to a second volume of the same system, of which there is no snapshot, and of ten times as many: 20,000
would be over before the machine is warm. It takes turns with the others. All go over a Unix socket.
"""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from benchmarks import baselines, fio, systems
from benchmarks.bench import Bench, write_random
from benchmarks.fio import Job
from benchmarks.measure import Line, Measured, Outcomes, Samples, Unit, at_least
from offsite.units import KIB

_TITLE = "first 20,000 random 4 KiB writes after a snapshot of the whole volume"
_REPEAT_MIN = 5  # a window lasts a second
_PLAIN_TIMES = 10
PLAIN = Line(_TITLE, Unit.PER_SECOND, "Offsite, no snapshot", at_least(0.16))
OVERLAY = Line(_TITLE, Unit.PER_SECOND, "qemu-nbd, new qcow2 overlay", at_least(1.5))
EXTENDED = Line(_TITLE, Unit.PER_SECOND, "qemu-nbd, new qcow2 overlay, extended_l2, 128 KiB", at_least(1.5))
LINES = (PLAIN, OVERLAY, EXTENDED)
_OPTIONS = {OVERLAY: "", EXTENDED: "extended_l2=on,cluster_size=128k"}


def measure(bench: Bench) -> Outcomes:
    base = bench.directory / "base.raw"
    write_random(base, bench.settings.volume_bytes)
    own: list[float] = []
    others: dict[Line, list[float]] = defaultdict(list)
    with systems.one(bench) as london:
        for volume in ("Sales", "Plain"):
            london.import_volume(volume, base)
        for round_number in range(max(bench.settings.repeat, _REPEAT_MIN)):
            others[PLAIN].append(_writes(bench, london.uri("Plain"), round_number, _PLAIN_TIMES))
            london.command("create", "snapshots", "volumes", "Sales", f"Sales-{round_number}")
            own.append(_writes(bench, london.uri("Sales"), round_number))
            for line, options in _OPTIONS.items():
                others[line].append(_first_writes_to_overlay(bench, base, options, round_number))
            said = ", ".join(f"{line.beside} {values[-1]:,.0f}/s" for line, values in others.items())
            bench.say(f"after a snapshot: {own[-1]:,.0f}/s; {said}")
    return {line: Measured(Samples.of(own), Samples.of(others[line])) for line in LINES}


def _writes(bench: Bench, uri: str, round_number: int, times: int = 1) -> float:
    os.sync()
    count = times * (2000 if bench.settings.quick else 20_000)
    job = Job("randwrite", 4 * KIB, 16, uri=uri, operations=count, seed=1 + round_number)
    return fio.measure(job, bench.directory).operations_per_second


def _first_writes_to_overlay(bench: Bench, base: Path, options: str, round_number: int) -> float:
    overlay = bench.directory / "overlay.qcow2"
    baselines.make_overlay(overlay, base, options)
    with ExitStack() as stack:
        uri = stack.enter_context(baselines.qemu_nbd(bench, overlay, "qcow2"))
        rate = _writes(bench, uri, round_number)
    overlay.unlink()
    return rate
