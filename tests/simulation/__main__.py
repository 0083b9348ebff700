"""python -m tests.simulation SEED | --count N [--from SEED] [--mutant NAME] [--lies] | --soak: see the package."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.simulation.liar import LyingWorld
from tests.simulation.mutants import MUTANTS
from tests.simulation.run import Failed, place, run
from tests.simulation.world import World

_ROOT = Path(__file__).parents[2]
TELL_EVERY_SECONDS = 10.0


def main(words: Sequence[str]) -> int:
    """Exit status 1 when a seed failed."""
    options = _options(words)
    if options.mutant:
        MUTANTS[options.mutant].break_it()
    world_of = LyingWorld if options.lies else World
    if options.worker:
        seeds = range(options.first, options.first + options.count * options.worker, options.worker)
        return _work(seeds, options.directory, world_of)
    if options.seed is not None:
        return _show(options.seed, world_of)
    try:
        return _campaign(options.first, None if options.soak else options.count, options.mutant, lies=options.lies)
    except KeyboardInterrupt:
        return 130


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="this one alone, with its trace")
    parser.add_argument("--count", type=int, default=1000, help="so many seeds (1000)")
    parser.add_argument("--from", dest="first", type=int, default=1, help="from this one on (1)")
    parser.add_argument("--soak", action="store_true", help="one seed after another, until stopped or one fails")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="the product broken in this way")
    parser.add_argument("--lies", action="store_true", help="one of the two systems lies")
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)  # every how manieth seed is its own
    return parser.parse_args(words)


def _show(seed: int, world_of: type[World]) -> int:
    with place() as directory:
        outcome = run(seed, directory, print, world_of)
    print(outcome.what if isinstance(outcome, Failed) else f"Seed {seed}: all held. {outcome}")
    return int(isinstance(outcome, Failed))


def _work(seeds: Sequence[int], directory: Path, world_of: type[World]) -> int:
    """Runs seeds and tells each outcome in a line of JSON."""
    for seed in seeds:
        outcome = run(seed, directory, world_of=world_of)
        if isinstance(outcome, Failed):
            print(json.dumps({"seed": seed, "steps": outcome.steps, "failed": outcome.what}), flush=True)
        else:
            print(json.dumps({"seed": seed, "steps": outcome.steps, "counts": outcome.counts}), flush=True)
    return 0


# -- many ------------------------------------------------------------------------------------------------------------


def _campaign(first: int, count: int | None, mutant: str | None, *, lies: bool) -> int:
    """On all cores, a process each. Ends with the first seed that fails, which is shown."""
    begun = told = time.monotonic()
    seeds = steps = 0
    counts: Counter[str] = Counter()
    for outcome in outcomes(first, count, mutant, lies=lies):
        seeds, steps = seeds + 1, steps + int(outcome["steps"])
        counts.update(outcome.get("counts", {}))
        if "failed" in outcome:
            print(outcome["failed"])
            print(f"The same again: python -m tests.simulation {'--lies ' * lies}{outcome['seed']}")
            return 1
        if time.monotonic() > told + TELL_EVERY_SECONDS:
            told = time.monotonic()
            print(f"{seeds} seeds, {seeds / (told - begun):.2f} a second, {steps} steps, all held", flush=True)
    print(json.dumps({"seeds": seeds, "seconds": time.monotonic() - begun, "steps": steps, "counts": counts}))
    return 0


def outcomes(
    first: int, count: int | None, mutant: str | None = None, *, lies: bool = False
) -> Iterator[dict[str, Any]]:
    """What each seed came to, in the order in which they end."""
    workers = 1 + (os.cpu_count() or 1)  # while one hands over from thread to thread, another has the core
    each = sys.maxsize // (2 * workers) if count is None else -(-count // workers)
    command = [sys.executable, "-m", "tests.simulation", "--worker", str(workers), "--count", str(each)]
    command += [*(["--mutant", mutant] if mutant else []), *(["--lies"] if lies else [])]
    with place() as directory:
        yield from _outcomes_of([*command, "--directory", str(directory)], first, workers, count)


def _outcomes_of(command: Sequence[str], first: int, workers: int, count: int | None) -> Iterator[dict[str, Any]]:
    started = [
        subprocess.Popen(
            [*command, "--from", str(first + number)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env=os.environ | {"PYTHONHASHSEED": "0"},
        )
        for number in range(workers)
    ]
    try:
        yield from itertools.islice(_lines(started), count)
    finally:
        for process in started:
            process.kill()
            process.wait()


def _lines(processes: Sequence[subprocess.Popen[str]]) -> Iterator[dict[str, Any]]:
    """A line of each in turn. Raises RuntimeError when one has ended otherwise than by running out of seeds."""
    left = list(processes)
    while left:
        for process in list(left):
            assert process.stdout is not None
            line = process.stdout.readline()
            if line:
                yield json.loads(line)
                continue
            left.remove(process)
            if process.wait():
                raise RuntimeError(f"a process of the simulation ended with {process.returncode}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
