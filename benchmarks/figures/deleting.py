"""How long a host's write waits at most while another volume of 3 GiB or 9 GiB is deleted, or trimmed at one request.

fio writes 4 KiB at random to a volume of a small size, whose pages are all there, over NBD at queue depth 1. A second
later the other volume, full of data that is on the disk, is deleted by its command, or a host discards all of it
(qemu-io). The number is the longest completion latency of any write, from before until seconds after: giving space back
goes on in the background. With it, the longest while nothing is deleted. The sizes follow `--quick`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks import fio, systems
from benchmarks.bench import Bench
from benchmarks.fio import Job
from benchmarks.measure import Line, Measured, Outcomes, Samples, Unit, at_most
from benchmarks.processes import require, run
from benchmarks.systems import System
from offsite.units import GIB, KIB, MIB

DISCARD_BYTES = GIB  # qemu-io takes less than 2 GiB at once
_HOST_SHARE = 8  # of a volume's size, for what the host writes to
_BEFORE_SECONDS, _AFTER_SECONDS = 1.0, 6.0
_FILL_SECONDS = 300.0
_TITLE = "the longest wait of a host's 4 KiB write"
_TARGET = at_most(0.1)
DELETE_3 = Line(f"{_TITLE} while 3 GiB are deleted", Unit.SECONDS, target=_TARGET)
DELETE_9 = Line(f"{_TITLE} while 9 GiB are deleted", Unit.SECONDS, target=_TARGET)
TRIM_9 = Line(f"{_TITLE} while 9 GiB are trimmed", Unit.SECONDS, target=_TARGET)
QUIET = Line(f"{_TITLE} while nothing is deleted", Unit.SECONDS)
LINES = (QUIET, DELETE_3, DELETE_9, TRIM_9)


def measure(bench: Bench) -> Outcomes:
    require("fio", "qemu-io")
    size = bench.settings.volume_bytes
    with systems.one(bench) as london:
        _filled(london, "Host", size // _HOST_SHARE)
        quiet = [_longest(bench, london, lambda: None) for _ in range(bench.settings.repeat)]
        three = [_while_deleted(bench, london, 3 * size) for _ in range(bench.settings.repeat)]
        nine = _while_deleted(bench, london, 9 * size)
        trimmed = _while_trimmed(bench, london, 9 * size)
    return {
        QUIET: Measured(Samples.of(quiet)),
        DELETE_3: Measured(Samples.of(three)),
        DELETE_9: Measured(Samples.of([nine])),
        TRIM_9: Measured(Samples.of([trimmed])),
    }


def _while_deleted(bench: Bench, london: System, size_bytes: int) -> float:
    _filled(london, "Gone", size_bytes)
    london.command("unmap", "volume", "Gone")

    def delete() -> None:
        london.command("delete", "volumes", "Gone")

    return _longest(bench, london, delete)


def _while_trimmed(bench: Bench, london: System, size_bytes: int) -> float:
    _filled(london, "Gone", size_bytes)

    def trim() -> None:
        pieces = range(0, size_bytes, DISCARD_BYTES)
        commands = [f"discard {at} {min(DISCARD_BYTES, size_bytes - at)}" for at in pieces]
        words = [word for command in commands for word in ("-c", command)]
        run(["qemu-io", "-f", "raw", "-d", "unmap", *words, london.uri("Gone")])

    return _longest(bench, london, trim)


def _filled(london: System, name: str, size_bytes: int) -> None:
    london.create_volume(name, size_bytes)
    run(["qemu-io", "-f", "raw", "-c", f"write -z 0 {MIB}", london.uri(name)])  # it answers
    command = ["fio", "--name=fill", "--rw=write", f"--bs={MIB}", "--ioengine=nbd", f"--uri={london.uri(name)}"]
    run([*command, "--iodepth=4", f"--size={size_bytes}", "--end_fsync=1"], _FILL_SECONDS)
    os.sync()


def _longest(bench: Bench, london: System, work: Callable[[], None]) -> float:
    """The longest wait of a write while `work` is done."""
    seconds = _BEFORE_SECONDS + _AFTER_SECONDS
    job = Job("randwrite", 4 * KIB, 1, uri=london.uri("Host"), seconds=seconds)
    with ThreadPoolExecutor(1) as threads:
        host = threads.submit(fio.measure, job, bench.directory)
        time.sleep(_BEFORE_SECONDS)
        work()
        longest = host.result().longest_seconds
    bench.say(f"the longest write took {longest * 1e3:.1f} ms")
    return longest
