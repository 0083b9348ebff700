"""fio's NBD engine (libnbd, one connection) on a volume that random data fills, beside files of the same data.

Offsite is a process `offsite serve`; nbdkit serves a file with its file plugin, with `-t 4` and `-t 16`, of
which each line takes the better; qemu-nbd serves the same file as raw, with `--aio=io_uring --cache=writeback
--discard=unmap`. The peers' file and Offsite's pool lie on the same file system, and the page cache holds
both. Everyone is reached over a Unix socket: `nbd+unix:///EXPORT?socket=PATH`. Small requests go at queue
depth 16, 1 MiB ones at 4. For each kind of request the servers take turns, round after round; before each
round of writes what the last one left unwritten goes to the disk.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import baselines, fio, systems
from benchmarks.bench import Bench, write_random
from benchmarks.fio import Job, Pattern
from benchmarks.measure import Line, Measured, Outcomes, Samples, Unit, at_least
from offsite.units import KIB, MIB

_NBDKIT = "nbdkit file"
_QEMU = "qemu-nbd, raw, io_uring"


@dataclass(frozen=True, slots=True)
class Workload:
    title: str
    pattern: Pattern
    block_bytes: int
    queue_depth: int
    times_nbdkit: float
    times_qemu: float

    @property
    def unit(self) -> Unit:
        return Unit.PER_SECOND if self.block_bytes < MIB else Unit.BYTES_PER_SECOND

    @property
    def beside_nbdkit(self) -> Line:
        return Line(self.title, self.unit, _NBDKIT, at_least(self.times_nbdkit))

    @property
    def beside_qemu(self) -> Line:
        return Line(self.title, self.unit, _QEMU, at_least(self.times_qemu))


WORKLOADS = (
    Workload("NBD 4 KiB random reads, queue depth 16", "randread", 4 * KIB, 16, 1.4, 2.0),
    Workload("NBD 4 KiB random writes, queue depth 16", "randwrite", 4 * KIB, 16, 1.1, 2.5),
    Workload("NBD 1 MiB reads, queue depth 4", "read", MIB, 4, 0.9, 1.3),
    Workload("NBD 1 MiB writes, queue depth 4", "write", MIB, 4, 0.9, 1.3),
)
LINES = tuple(line for each in WORKLOADS for line in (each.beside_nbdkit, each.beside_qemu))


def measure(bench: Bench) -> Outcomes:
    source, file = bench.directory / "random", bench.directory / "peers.raw"
    write_random(source, bench.settings.volume_bytes)
    shutil.copyfile(source, file)
    with ExitStack() as stack:
        london = stack.enter_context(systems.one(bench))
        london.import_volume("Sales", source)
        source.unlink()
        uris = {
            "Offsite": london.uri("Sales"),
            "nbdkit file, -t 4": stack.enter_context(baselines.nbdkit(bench, file, 4)),
            "nbdkit file, -t 16": stack.enter_context(baselines.nbdkit(bench, file, 16)),
            _QEMU: stack.enter_context(baselines.qemu_nbd(bench, file, "raw")),
        }
        outcomes: Outcomes = {}
        for workload in WORKLOADS:
            outcomes |= _outcomes(workload, _rounds(bench, workload, uris))
        return outcomes


def _rounds(bench: Bench, workload: Workload, uris: dict[str, str]) -> dict[str, Samples]:
    values: dict[str, list[float]] = {server: [] for server in uris}
    for round_number in range(bench.settings.repeat):
        for server, uri in uris.items():
            if "write" in workload.pattern:
                os.sync()
            job = Job(
                workload.pattern,
                workload.block_bytes,
                workload.queue_depth,
                uri=uri,
                seconds=bench.settings.window_seconds,
                ramp_seconds=bench.settings.ramp_seconds,
                seed=1 + round_number,
            )
            report = fio.measure(job, bench.directory)
            small = workload.unit is Unit.PER_SECOND
            values[server].append(report.operations_per_second if small else report.bytes_per_second)
            bench.say(f"{workload.title}: {server}: {workload.unit.text(values[server][-1])}")
    return {server: Samples.of(measured) for server, measured in values.items()}


def _outcomes(workload: Workload, samples: dict[str, Samples]) -> Outcomes:
    own = samples["Offsite"]
    best = max((server for server in samples if server.startswith(_NBDKIT)), key=lambda server: samples[server].median)
    return {
        workload.beside_nbdkit: Measured(own, samples[best], best),
        workload.beside_qemu: Measured(own, samples[_QEMU]),
    }
