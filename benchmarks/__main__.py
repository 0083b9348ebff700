"""`make bench`: measures Offsite beside its peers, prints one table, and writes benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from benchmarks import machine, table
from benchmarks.bench import Bench, Settings, opened
from benchmarks.figures import FIGURES, Figure
from benchmarks.measure import Outcomes, Unmeasured
from benchmarks.processes import CannotMeasure
from offsite.errors import OffsiteError

_HERE = Path(__file__).parent
_RESULTS = _HERE / "RESULTS.md"
_REPEAT_MIN = 3  # of what counts


def main(words: Sequence[str]) -> int:
    """Exit status 0 when all was measured, reached or not; 1 when something could not be; 130 after Ctrl-C."""
    options = _options(words)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    figures = [figure for figure in FIGURES if not options.only or figure.name in options.only]
    settings = Settings(repeat=options.repeat, quick=options.quick)
    if os.geteuid() != 0:
        _shout("This is not root: what needs loop-mounted btrfs will not be measured.")
    if settings.quick:
        _shout("Quick: volumes of 128 MiB in place of 1 GiB, 64 GiB in place of 1 TiB, short windows. Believe nothing.")
    outcomes: Outcomes = {}
    try:
        with opened(settings, options.directory) as bench:
            facts = machine.facts(bench.directory)
            for figure in figures:
                outcomes |= _measure(figure, bench)
    except CannotMeasure as error:
        _shout(str(error))
        return 1
    except KeyboardInterrupt:
        _shout("Stopped; nothing is left behind, and RESULTS.md is as it was.")
        return 130
    print(table.markdown(outcomes))
    print(f"\n{table.summary(outcomes)}")
    if len(figures) == len(FIGURES) and not settings.quick and settings.repeat >= _REPEAT_MIN:
        date = time.strftime("%Y-%m-%d", time.gmtime())
        notes = [(figure.name, figure.method) for figure in figures]
        _RESULTS.write_text(table.page(outcomes, date, facts, notes))
        print("Written to benchmarks/RESULTS.md.")
    else:
        print("Not written to benchmarks/RESULTS.md: this was not all, too quick, or of too few rounds.")
    return 1 if any(isinstance(outcome, Unmeasured) for outcome in outcomes.values()) else 0


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [figure.name for figure in FIGURES]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=f"of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="for developing: small and short, not to be believed")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds of each measurement (default 3)")
    parser.add_argument(
        "--directory",
        type=Path,
        default=_HERE.parent / "bench-state",
        metavar="DIR",
        help="where to measure: on a disk, not in memory (default: bench-state in the repository)",
    )
    options = parser.parse_args(words)
    if options.repeat < 1:
        parser.error(f"--repeat {options.repeat}: at least 1 round is needed")
    return options


def _measure(figure: Figure, bench: Bench) -> Outcomes:
    print(f"== {figure.name}", file=sys.stderr, flush=True)
    start = time.monotonic()
    try:
        with bench.room(figure.name) as room:
            outcomes = figure.measure(room)
    except (CannotMeasure, OffsiteError, OSError) as error:
        why = str(error).replace(str(bench.directory), "…").replace(str(bench.sockets), "…")
        outcomes = {line: Unmeasured(why) for line in figure.lines}
    for line, outcome in outcomes.items():
        if isinstance(outcome, Unmeasured):
            _shout(f"NOT MEASURED: {line.title}, beside {line.beside or 'nothing'}: {outcome.why}")
    bench.say(f"{time.monotonic() - start:.0f} s")
    return outcomes


def _shout(text: str) -> None:
    print(f"!! {text}", file=sys.stderr, flush=True)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Once: what ends the servers and mounts must not be stopped in the middle."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
