"""fio: a job as a command line, and what it measured out of its JSON.

NBD goes through fio's own engine (libnbd), one connection a job. An export on a Unix socket is written as
`nbd+unix:///EXPORT?socket=PATH`, one on TCP as `nbd://HOST:PORT/EXPORT`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.processes import CannotMeasure, require, run

Pattern = Literal["randread", "randwrite", "read", "write"]
_GRACE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to do to an image: `uri` of an NBD export, or `file`.

    It ends after `seconds`, or after `operations`. Random offsets come out of `seed`: the same seed on images
    of the same size gives the same offsets, each only once. With `fresh_data` each block has bytes of its own,
    that nothing can compress. `flush` ends the job with a flush, or with fsync on a file.
    """

    pattern: Pattern
    block_bytes: int
    queue_depth: int
    uri: str = ""
    file: Path | None = None
    seconds: float | None = None
    ramp_seconds: float = 0.0
    operations: int | None = None
    seed: int = 1
    fresh_data: bool = False
    flush: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    operations: int
    operations_per_second: float
    bytes_per_second: float
    p99_seconds: float  # completion latency
    longest_seconds: float


def measure(job: Job, scratch: Path) -> Report:
    """Runs the job. `scratch` is a directory for fio's report. Raises CannotMeasure."""
    require("fio")
    output = scratch / "fio.json"
    run(arguments(job, output), (job.seconds or 0.0) + job.ramp_seconds + _GRACE_SECONDS)
    return parse(output.read_text(), job.pattern)


def arguments(job: Job, output: Path) -> list[str]:
    words = [
        "fio",
        "--name=job",
        f"--rw={job.pattern}",
        f"--bs={job.block_bytes}",
        f"--iodepth={job.queue_depth}",
        f"--randseed={job.seed}",
        "--output-format=json",
        f"--output={output}",
    ]
    if job.file is not None:
        words += ["--ioengine=psync", f"--filename={job.file}"]
    else:
        words += ["--ioengine=nbd", f"--uri={job.uri}"]
    if job.seconds is not None:
        words += [
            "--time_based",
            f"--runtime={job.seconds * 1000:.0f}ms",
            f"--ramp_time={job.ramp_seconds * 1000:.0f}ms",
        ]
    if job.operations is not None:
        words.append(f"--number_ios={job.operations}")
    if job.fresh_data:
        words.append("--refill_buffers")
    if job.flush:
        words.append("--end_fsync=1")
    return words


def parse(text: str, pattern: Pattern) -> Report:
    """Reads fio's JSON, which warnings may precede. Raises CannotMeasure for a job that failed or did nothing."""
    start = text.find("{")
    try:
        job: dict[str, Any] = json.loads(text[start:])["jobs"][0]
        side: dict[str, Any] = job["read" if pattern.endswith("read") else "write"]
        report = Report(
            operations=side["total_ios"],
            operations_per_second=side["iops"],
            bytes_per_second=side["bw_bytes"],
            p99_seconds=side["clat_ns"].get("percentile", {}).get("99.000000", 0) / 1e9,
            longest_seconds=side["clat_ns"].get("max", 0) / 1e9,
        )
    except (ValueError, KeyError, IndexError) as error:
        raise CannotMeasure(f"fio's report cannot be read: {error!r}") from error
    if job["error"] or not report.operations:
        raise CannotMeasure(f"fio's job ended with error {job['error']} after {report.operations} operations")
    return report
