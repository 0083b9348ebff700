"""P1, P4, P5, P6 after a crash at any instant: the enumeration of what a crash can leave of a pool's files.

Real lives of a pool run under strace. Every state that a crash could have left of its files is built, opened and
compared with what the process had been told was done.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create
from offsite.store.database import Database
from tests.faults.pool_crash_states import CrashState, Files, crash_states
from tests.faults.pool_io_trace import Mark, Operation, traced
from tests.faults.pool_workload import PAGE, Step
from tests.faults.pool_worlds import MEMORY, VOLUME_PAGES, V, World, after_step, make_template, problem_of
from tests.pools.backends import inside, write
from tests.pools.pool_hosts import check_counts, check_free_pages_are_holes, read
from tests.pools.pool_model import BLOCK

STATES_EACH = {"few": 12, "many": 40}

P = PAGE
S = "s"
WRITTEN_IN_FULL: list[list[Step]] = [
    # A copy after a snapshot, and the page let go by its deletion used again.
    [["snapshot", V, S], ["write", V, 0, BLOCK], ["flush"], ["delete", S], ["flush"], ["reclaim", 0],
     ["write", V, 5 * P, 2 * P], ["flush"]],
    # The same with the page kept warm: it is overwritten without a hole in between, or not given at all.
    [["snapshot", V, S], ["write", V, 0, BLOCK], ["delete", S], ["flush"], ["reclaim", 1 << 20], ["snapshot", V, S],
     ["write", V, P, BLOCK], ["write", V, 2 * P, BLOCK], ["flush"]],
    [["discard", V, 0, 4 * P], ["flush"], ["reclaim", 1 << 20], ["write", V, P, BLOCK], ["write", V, 7 * P, BLOCK],
     ["flush"], ["create", "w", 4 * P], ["write", "w", 0, BLOCK]],
    # Discarded, freed, and given to another volume of which only a part of a page is written.
    [["discard", V, 0, 3 * P], ["flush"], ["reclaim", 0], ["create", "w", 4 * P], ["write", "w", P + BLOCK, BLOCK],
     ["flush"]],
    # Let go, and not durably so, in a full pool where others look for pages (P4).
    [["create", "w", 43 * P], ["write", "w", 0, 43 * P], ["flush"], ["discard", V, 0, 3 * P], ["reclaim", 0],
     ["write", V, 5 * P, 2 * P], ["flush"]],
    [["create", "w", 43 * P], ["write", "w", 0, 43 * P], ["snapshot", V, S], ["discard", V, 0, 4 * P], ["flush"],
     ["discard", S, 0, 2 * P], ["reclaim", 1 << 20], ["write", S, 8 * P, BLOCK], ["write", S, 0, P]],
    # Discarded and written again before anything was flushed.
    [["discard", V, 0, 2 * P], ["write", V, 0, BLOCK], ["discard", V, 0, P], ["write", V, BLOCK, BLOCK], ["flush"]],
    # One of two lets go of a page, and the other writes to it, with nothing flushed in between.
    [["snapshot", V, S], ["write", V, 0, BLOCK], ["write", S, BLOCK, BLOCK], ["discard", S, P, P],
     ["write", V, P, BLOCK], ["write", V, 2 * P, P], ["write", S, 2 * P, P], ["flush"], ["write", S, 0, BLOCK]],
    # The same with a whole leaf, of which one lets go.
    [["create", "w", 300 * P], ["write", "w", 0, 3 * P], ["snapshot", "w", S], ["discard", "w", 0, 256 * P],
     ["write", S, P, P], ["flush"], ["write", S, 2 * P, BLOCK]],
    # Rolled back, and written on.
    [["snapshot", V, S], ["write", V, 0, 3 * P], ["flush"], ["replace", V, S], ["write", V, P, P], ["flush"]],
    # Cut in the middle of a page, grown again.
    [["write", V, 10 * P, 2 * P], ["resize", V, 11 * P + BLOCK], ["resize", V, 12 * P], ["write", V, 11 * P, BLOCK],
     ["flush"]],
    # The last step of a run, over and over.
    [["snapshot", V, "next"], ["write", "next", P, P], ["run", V, "next", "base"], ["write", V, P, BLOCK],
     ["delete", "base"], ["snapshot", V, "next"], ["run", V, "next", "base"]],
    # Never flushed at all, and then opened again.
    [["write", V, 6 * P, 3 * P], ["reopen"], ["write", V, 6 * P, BLOCK], ["discard", V, 7 * P, P]],
    # The log is written back between flushes: each next one renews the generation in database and data file.
    [["write", V, 6 * P, P], ["checkpoint"], ["flush"], ["write", V, 8 * P, P], ["flush"], ["checkpoint"],
     ["write", V, 9 * P, P], ["flush"], ["checkpoint"], ["snapshot", V, S], ["write", V, 0, BLOCK], ["flush"]],
    # Deleted altogether.
    [["delete", V], ["flush"], ["reclaim", 0], ["create", "w", 12 * P], ["write", "w", 0, BLOCK], ["flush"],
     ["reopen"]],
]  # fmt: skip


def drawn(chance: random.Random) -> list[Step]:
    """Five steps that fit one another."""
    steps: list[Step] = []
    there, number = [V], 0
    while len(steps) < 5:
        name = chance.choice(there)
        offset, length = chance.randrange(VOLUME_PAGES * P // BLOCK - 8) * BLOCK, chance.choice([1, 8, 20]) * BLOCK
        length = min(length, VOLUME_PAGES * P - offset)
        kind = chance.choice(
            ["write"] * 5 + ["discard", "flush", "flush", "snapshot", "snapshot", "delete", "replace", "reclaim"]
        )
        number += 1
        if kind in ("write", "discard"):
            steps.append([kind, name, offset, length])
        elif kind == "flush":
            steps.append(["flush"])
        elif kind == "reclaim":
            steps.append(["reclaim", chance.choice([0, 1 << 20])])
        elif kind == "snapshot":
            steps.append(["snapshot", name, f"s{number}"])
            there.append(f"s{number}")
        elif kind == "delete" and len(there) > 1:
            steps.append(["delete", name])
            there.remove(name)
        elif kind == "replace":
            steps.append(["replace", name, chance.choice(there)])
    return steps


def worlds_of(start: World, steps: list[Step]) -> list[list[World]]:
    """For each number of acknowledged steps: what may be found."""
    before = [start]
    for tag, step in enumerate(steps, 1):
        before.append(after_step(before[-1], tag, step))
    return [before[at : at + 2] for at in range(len(before))]


def check(directory: Path, worlds: list[World]) -> None:
    """Opens what a crash left. It must be one of `worlds`, and a sound pool to go on with."""
    database = Database(directory / "state.db")
    pool = LocalPool.load(database, "A")
    try:
        check_counts(pool)
        ids = {info.name: info.id for info in pool.images()}
        sizes = {info.name: info.size_bytes for info in pool.images()}
        fitting = [world for world in worlds if sizes == {name: model.size for name, model in world.items()}]
        assert fitting, f"{sizes} are there, and not what was acknowledged"
        contents = {name: read(pool, ids[name], 0, size) for name, size in sizes.items()}
        problems = [problem for world in fitting if (problem := problem_of(contents, world))]
        assert len(problems) < len(fitting), problems
        check_free_pages_are_holes(pool)
        _check_new_pages(pool)
        check_counts(pool)
    finally:
        pool.close()
        database.close()


def _check_new_pages(pool: LocalPool) -> None:
    """P5: a part of every free page is written; the rest of it must be zero, whatever the crash left there."""
    free = pool.free_space.zeroed_pages
    if free:
        new = pool.apply([Create("new", free * PAGE)])[0].id
        for page in range(free):
            write(pool, new, page * PAGE, b"n" * BLOCK)
        assert read(pool, new, 0, free * PAGE) == (b"n" * BLOCK + bytes(PAGE - BLOCK)) * free
        with inside(pool, new) as opened:
            opened.discard(0, free * PAGE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In memory: thousands of states are written and opened."""
    directory = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else tmp_path_factory.mktemp("states")))
    yield directory
    shutil.rmtree(directory)


def live(place: Path, workloads: list[list[Step]]) -> list[list[Operation]]:
    """Runs all workloads under strace; returns what each did to its files."""
    for number in range(len(workloads)):
        shutil.copytree(place / "template", place / str(number))
    (place / "workloads.json").write_text(json.dumps(workloads))
    return done_to(place, "live", len(workloads))


def done_to(place: Path, how: str, directories: int) -> list[list[Operation]]:
    """Runs the workload's process; returns what was done to the files of each state directory."""
    script = Path(__file__).with_name("pool_workload.py")
    operations = traced([sys.executable, "-B", str(script), str(place), how], place, place / "marks", place / "trace")
    own: list[list[Operation]] = [[] for _ in range(directories)]
    for operation in operations:
        if isinstance(operation, Mark):
            own[int(operation.text.split()[0])].append(operation)
        elif operation.file.parent.name.isdecimal() and not operation.file.name.endswith("-shm"):
            own[int(operation.file.parent.name)].append(operation)
        elif operation.file.name.isdecimal():
            own[int(operation.file.name)].append(operation)  # a sync of the directory itself
    return own


def build(state: CrashState, directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for file, data in state.files().items():
        (directory / file.name).write_bytes(data)


MANY = [pytest.mark.slow, pytest.mark.timeout(900)]  # more than a minute on an idle machine


@pytest.mark.parametrize("much", ["few", pytest.param("many", marks=MANY)])
def test_every_state_that_a_crash_can_leave(place: Path, much: str) -> None:
    chance = random.Random(20251122)
    workloads = [*WRITTEN_IN_FULL, *(drawn(chance) for _ in range(3 if much == "few" else 34))]
    place = place / much
    place.mkdir()
    start = make_template(place / "template")
    checked = 0
    for number, operations in enumerate(live(place, workloads)):
        assert sum(isinstance(operation, Mark) for operation in operations) == len(workloads[number])
        worlds = worlds_of(start, workloads[number])
        files: Files = {place / str(number) / f.name: bytearray(f.read_bytes()) for f in (place / "template").iterdir()}
        states = list(crash_states(files, operations, number))
        for state in chance.sample(states, min(len(states), STATES_EACH[much])):
            build(state, place / "state")
            try:
                check(place / "state", worlds[state.marks])
            except Exception as error:
                error.add_note(f"workload {number}: {workloads[number]}")
                error.add_note(f"crash after {state.after} operations, {state.marks} steps acknowledged")
                error.add_note(f"last: {[repr(o)[:100] for o in operations[max(0, state.after - 3) : state.after]]}")
                raise
            checked += 1
    assert checked >= (100 if much == "few" else 1500)


@pytest.mark.parametrize("much", ["few", pytest.param("many", marks=MANY)])
def test_a_first_start_that_was_cut_can_be_done_again(place: Path, much: str) -> None:
    """Power may fail while database and pool are being made: neither is then in the way of making them."""
    place = place / f"begin-{much}"
    (place / "0").mkdir(parents=True)
    (operations,) = done_to(place, "begin", 1)
    states = list(crash_states({}, operations, 0))
    for state in random.Random(1).sample(states, min(len(states), 40 if much == "few" else 400)):
        build(state, place / "state")
        try:
            database = Database(place / "state" / "state.db")
            with database.read() as connection:
                made = connection.exec_driver_sql("SELECT count(*) FROM pools").scalar()
            assert made or not state.marks
            if made:
                pool = LocalPool.load(database, "A")
            else:
                pool = LocalPool.create(database, "A", Path("A.data"), 64 * PAGE, PAGE)
            _check_new_pages(pool)
            pool.close()
            database.close()
        except Exception as error:
            error.add_note(f"crash after {state.after} operations, {state.marks} steps acknowledged")
            error.add_note(f"last: {[repr(o)[:100] for o in operations[max(0, state.after - 3) : state.after]]}")
            raise
