"""Runs after little or nothing has changed: 5,000 random 4 KiB writes of incompressible data, or none.

Systems and peers as for the initial run. The writes go through NBD (or, for btrfs, to the file) with the same
seed, are flushed, and then the clock starts; it is that of the run's record, and beside it stands what
whoever types `offsite replicate SET --wait` waits, with the start of a Python and the answer. Bytes on the
wire are the frames of both directions from the run's record, before TLS; the changed bytes are 5,000 times 4
KiB.

The 1 TiB volume counts as written in full on both sides: after an empty run both systems are stopped, every
page of the volume and of its base is mapped to unwritten stretches of the sparse pool files, and both are
started again. The 5,000 writes are scattered over the whole of it, and so touch nearly 5,000 different leaves
of the page table, where the 1 GiB volume has 256.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import btrfs, fio, systems
from benchmarks.bench import Bench, write_random
from benchmarks.fio import Job
from benchmarks.measure import Line, Measured, Outcome, Outcomes, Samples, Unit, Unmeasured, at_most
from benchmarks.processes import CannotMeasure
from benchmarks.synthetic import map_volumes
from benchmarks.systems import System, Timed
from offsite.units import KIB

_BLOCK_BYTES = 4 * KIB
_REPEAT_MIN = 5  # a round is short
_TITLE = "run after 5,000 scattered 4 KiB writes in 1 GiB"
TIME = Line(f"{_TITLE}: time", Unit.SECONDS, "btrfs snapshot, send -p, receive, sync", at_most(1.0))
SEEN = Line(f"{_TITLE}: time, as the user sees it", Unit.SECONDS, "btrfs snapshot, send -p, receive, sync")
WIRE = Line(f"{_TITLE}: bytes on the wire", Unit.BYTES, "the changed bytes", at_most(1.15))
LARGE = Line("the same 5,000 writes in a 1 TiB volume", Unit.SECONDS, "the run of the 1 GiB volume", at_most(1.2))
NOTHING = Line("run with nothing changed, by its record", Unit.SECONDS, target=at_most(0.1))
NOTHING_SEEN = Line("run with nothing changed, as the user sees it", Unit.SECONDS)
LINES = (TIME, SEEN, WIRE, LARGE, NOTHING, NOTHING_SEEN)


@dataclass(frozen=True, slots=True)
class _Values:
    """What the rounds have measured so far."""

    small: list[Timed] = field(default_factory=list)
    large: list[Timed] = field(default_factory=list)
    nothing: list[Timed] = field(default_factory=list)
    peer_seconds: list[float] = field(default_factory=list)


def measure(bench: Bench) -> Outcomes:
    values = _Values()
    with ExitStack() as stack:
        london, newark = _prepared(bench)
        stack.enter_context(systems.serving(london, newark))
        peer = _Peer(bench, stack)
        for round_number in range(max(bench.settings.repeat, _REPEAT_MIN)):
            _round(bench, london, peer, 1 + round_number, values)
            bench.say(_said(values))
    return _outcomes(bench, values, peer.why)


def _round(bench: Bench, london: System, peer: _Peer, seed: int, values: _Values) -> None:
    os.sync()
    _write_scattered(bench, seed, uri=london.uri("Small"))
    values.small.append(london.replicate("SmallSet"))
    if peer.pair is not None:
        _write_scattered(bench, seed, file=peer.pair.volume / "data")
        values.peer_seconds.append(peer.pair.replicate(f"snapshot-{seed}", f"snapshot-{seed - 1}"))
    _write_scattered(bench, seed, uri=london.uri("Large"))
    values.large.append(london.replicate("LargeSet"))
    values.nothing.append(london.replicate("SmallSet"))


def _outcomes(bench: Bench, values: _Values, why_no_peer: str) -> Outcomes:
    peer = Samples.of(values.peer_seconds) if values.peer_seconds else None

    def beside_btrfs(samples: Samples) -> Outcome:
        return Measured(samples, peer) if peer else Unmeasured(why_no_peer)

    changed = Samples.of([bench.settings.scattered_writes * float(_BLOCK_BYTES)])
    return {
        TIME: beside_btrfs(_recorded(values.small)),
        SEEN: beside_btrfs(_seen(values.small)),
        WIRE: Measured(Samples.of(float(timed.run.wire_bytes) for timed in values.small), changed),
        LARGE: Measured(_recorded(values.large), _recorded(values.small)),
        NOTHING: Measured(_recorded(values.nothing)),
        NOTHING_SEEN: Measured(_seen(values.nothing)),
    }


def _said(values: _Values) -> str:
    runs = {"1 GiB": values.small, "1 TiB": values.large, "nothing": values.nothing}
    said = [f"{what} {each[-1].run.seconds:.3f} s, seen {each[-1].seen_seconds:.3f} s" for what, each in runs.items()]
    return "; ".join([*said, *(f"btrfs {seconds:.3f} s" for seconds in values.peer_seconds[-1:])])


def _recorded(runs: list[Timed]) -> Samples:
    return Samples.of(timed.run.seconds for timed in runs)


def _seen(runs: list[Timed]) -> Samples:
    return Samples.of(timed.seen_seconds for timed in runs)


class _Peer:
    """btrfs with the same data, its first snapshot sent; or why there is none."""

    def __init__(self, bench: Bench, stack: ExitStack) -> None:
        self.pair: btrfs.Pair | None = None
        self.why = ""
        try:
            pair = stack.enter_context(btrfs.pair(bench))
            write_random(pair.volume / "data", bench.settings.volume_bytes)
            pair.replicate("snapshot-0")
            self.pair = pair
        except CannotMeasure as error:
            self.why = str(error)


def _write_scattered(bench: Bench, seed: int, uri: str = "", file: Path | None = None) -> None:
    count = bench.settings.scattered_writes
    job = Job(
        "randwrite", _BLOCK_BYTES, 16, uri=uri, file=file, operations=count, seed=seed, fresh_data=True, flush=True
    )
    fio.measure(job, bench.directory)


def _prepared(bench: Bench) -> tuple[System, System]:
    """Two systems, stopped, that hold the sets SmallSet and LargeSet, both replicated."""
    source = bench.directory / "random"
    write_random(source, bench.settings.volume_bytes)
    large_bytes = bench.settings.large_volume_bytes
    with systems.two(bench, pool_bytes=large_bytes + large_bytes // 8) as (london, newark):
        london.import_volume("Small", source)
        london.create_volume("Large", large_bytes)
        for name in ("Small", "Large"):
            london.create_set(f"{name}Set", name, name)
            london.replicate(f"{name}Set")
    source.unlink()
    for system in (london, newark):
        map_volumes(system.state, large_bytes)
    return london, newark
