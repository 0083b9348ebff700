"""Each call to the disk fails once, in turn, until a life of a pool passes without meeting the fault.

Whatever fails: who asked is told, nothing else is hurt, every count is right, and what was flushed is there
when the pool is opened again.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from offsite.errors import PoolFailed, StateDirectoryError
from offsite.pools.local import page_store, tidier
from offsite.pools.local.pool import LocalPool
from offsite.store.database import Database
from tests.faults.pool_workload import PAGE, TOLD, Life, Step, content
from tests.faults.pool_worlds import MEMORY, V, World, after_step, make_template, problem_of
from tests.pools.pool_hosts import check_counts, check_free_pages_are_holes, read
from tests.pools.pool_model import BLOCK

P = PAGE
LIFE: list[Step] = [
    ["write", V, BLOCK, BLOCK],  # in place
    ["write", V, 5 * P + BLOCK, 3 * P],  # into holes: a part, wholes, a part
    ["snapshot", V, "s"],
    ["write", V, P, BLOCK],  # a copy
    ["write", V, 0, 4 * P],
    ["read", V, 0, 8 * P],
    ["flush"],
    ["discard", "s", BLOCK, 2 * P],
    ["resize", V, 7 * P + BLOCK],  # cuts within a page
    ["reclaim", 1 << 20],
    ["write", "s", 2 * P, BLOCK],  # into a page that was kept warm
    ["replace", V, "s"],
    ["create", "w", 6 * P],
    ["write", "w", 0, 6 * P],
    ["flush"],
    ["run", V, "w", "base"],
    ["delete", "base"],
    ["reclaim", 0],
    ["write", V, 3 * P, BLOCK],
    ["read", V, 0, 6 * P],
]


class Fault:
    """Makes the `at`th call fail, once."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.calls = 0
        self.fired = False

    def due(self) -> bool:
        self.calls += 1
        if self.calls == self.at:
            self.fired = True
        return self.calls == self.at


def failing(real: Callable[..., Any], number: int) -> Callable[[Fault], Callable[..., Any]]:
    """A call that fails with this errno."""

    def with_fault(fault: Fault) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if fault.due():
                raise OSError(number, os.strerror(number))
            return real(*arguments)

        return call

    return with_fault


def half_written(fault: Fault) -> Callable[..., int]:
    """Takes only a part of what is to be written, as a disk that gets full, a signal or a quota may do."""
    pwrite = os.pwrite

    def call(descriptor: int, data: Any, offset: int) -> int:
        if fault.due():
            return pwrite(descriptor, memoryview(data)[: len(data) // 2 or 1], offset)
        return pwrite(descriptor, data, offset)

    return call


def full_after(pages: int) -> Callable[[Fault], Callable[..., Any]]:
    """A transaction for which the state database's log can grow by so many pages only: SQLite's own errors."""
    real = Database.transaction

    def with_fault(fault: Fault) -> Callable[..., Any]:
        @contextmanager
        def transaction(self: Database) -> Iterator[Connection]:
            if not fault.due():
                with real(self) as connection:
                    yield connection
                return
            log = self.path.with_name(self.path.name + "-wal")
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + pages * (4096 + 24), hard))
            try:
                with real(self) as connection:
                    yield connection
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

        return transaction

    return with_fault


FAULTS: dict[str, tuple[object, str, Callable[[Fault], Callable[..., Any]]]] = {
    "write: EIO": (os, "pwrite", failing(os.pwrite, errno.EIO)),
    "write: ENOSPC": (os, "pwrite", failing(os.pwrite, errno.ENOSPC)),
    "write: in part": (os, "pwrite", half_written),
    "read: EIO": (os, "preadv", failing(os.preadv, errno.EIO)),
    "sync: EIO": (os, "fdatasync", failing(os.fdatasync, errno.EIO)),
    "punch: EIO": (page_store, "_fallocate", failing(page_store._fallocate, errno.EIO)),
    "commit: log full at once": (Database, "transaction", full_after(0)),
    "commit: log full after two pages": (Database, "transaction", full_after(2)),
}


ABSORBED = ("write: in part", "write: ENOSPC")  # the rest is written then; space is looked for, and it is tried again


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else tmp_path))
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("name", FAULTS)
def test_a_life_in_which_one_call_fails(place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(tidier, "TIDY_INTERVAL_SECONDS", 3600.0)
    start = make_template(place / "template")
    for at in itertools.count(1):
        directory = place / str(at)
        shutil.copytree(place / "template", directory)
        fault = Fault(at)
        life = Life(directory)
        owner, attribute, with_fault = FAULTS[name]
        with monkeypatch.context() as patch:
            patch.setattr(owner, attribute, with_fault(fault))
            world, errors = lived(life, start)
        try:
            check_afterwards(life, world)
        except Exception as error:
            error.add_note(f"call {at} failed: {errors}")
            raise
        if not fault.fired:
            assert errors == []
            assert at > 1
            return
        assert errors or name in ABSORBED, f"nobody was told of call {at}"
        shutil.rmtree(directory)


def lived(life: Life, world: World) -> tuple[World, list[str]]:
    """Does all steps; returns what the images hold, and what was told."""
    errors = []
    for tag, step in enumerate(LIFE, 1):
        try:
            life.step(tag, step)
        except TOLD as error:
            errors.append(f"{step}: {error!r}")
            world = after_failure(life.pool, world, tag, step)
        except LookupError:  # the image is not there, since making it failed
            assert errors
        else:
            world = after_step(world, tag, step)
    return world, errors


def after_failure(pool: LocalPool, world: World, tag: int, step: Step) -> World:
    """A change was not made. A write was made or not, in each of its blocks."""
    match step:
        case ["write" | "discard" as kind, str(name), int(offset), int(length)]:
            now = read(pool, id_of(pool, name), offset, length)
            new = content(tag, length) if kind == "write" else bytes(length)
            old = world[name].get(offset, length)
            for at in range(0, length, BLOCK):
                block = slice(at, at + BLOCK)
                assert now[block] in (old[block], new[block]), f"{step}: block {at // BLOCK} is {now[block][:16]!r}"
            world[name].put(offset, now)
    return world


def id_of(pool: LocalPool, name: str) -> int:
    return next(info.id for info in pool.images() if info.name == name)


def contents(pool: LocalPool) -> dict[str, bytes]:
    return {info.name: read(pool, info.id, 0, info.size_bytes) for info in pool.images()}


def check_afterwards(life: Life, world: World) -> None:
    """In memory all is as it was told. On disk too, but for what a failed pool said it could not keep."""
    told = {name: model.get(0, model.size) for name, model in world.items()}
    assert contents(life.pool) == told
    check_counts(life.pool)
    failed = False
    try:
        check_free_pages_are_holes(life.pool)
        life.pool.close()
    except PoolFailed:
        failed = True
        with pytest.raises(PoolFailed):
            life.pool.flush()
        life.pool.close()
    life.database.close()
    life.open()
    check_reopened(life, world, not failed)


@pytest.mark.parametrize("name", [name for name in FAULTS if not name.startswith("write: in part")])
def test_opening_a_pool_in_which_one_call_fails(place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is refused, says why, keeps nothing open, and can be opened once the disk is well."""
    start = make_template(place / "template")
    life = Life(place / "template")
    life.step(1, ["discard", V, P, P])  # a free page below the last one in use
    life.close()
    world = after_step(start, 1, ["discard", V, P, P])
    for at in itertools.count(1):
        fault = Fault(at)
        owner, attribute, with_fault = FAULTS[name]
        database = Database(place / "template" / "state.db")
        with database.read():
            pass
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        with monkeypatch.context() as patch:
            patch.setattr(owner, attribute, with_fault(fault))
            try:
                LocalPool.load(database, "A").close()
            except StateDirectoryError as error:
                assert fault.fired, error
                assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
            except PoolFailed as error:
                assert fault.fired, error
        pool = LocalPool.load(database, "A")
        assert contents(pool) == {name: model.get(0, model.size) for name, model in world.items()}
        check_counts(pool)
        check_free_pages_are_holes(pool)
        pool.close()
        database.close()
        if not fault.fired:
            return


@pytest.mark.slow
@pytest.mark.needs("strace")
def test_a_life_in_which_one_sync_fails_in_the_kernel(place: Path) -> None:
    """As above, but whoever asks for a sync gets the error from the kernel's door: SQLite too, in its commits."""
    start = make_template(place / "template")
    (place / "workloads.json").write_text(json.dumps([LIFE]))
    for at in itertools.count(1):
        shutil.copytree(place / "template", place / "0")
        strace = ["strace", "-f", "-o", str(place / "trace"), "-e", f"inject=fdatasync,fsync:error=EIO:when={at}"]
        script = [sys.executable, "-B", str(Path(__file__).with_name("pool_workload.py")), str(place), "live-on"]
        subprocess.run([*strace, *script], check=True, timeout=60)
        *ends, closed = json.loads((place / "marks").read_text())
        world = start
        for tag, (step, end) in enumerate(zip(LIFE, ends, strict=True), 1):
            if end == "done" and step[0] != "read":
                world = after_step(world, tag, step)
        try:
            failed = any("PoolFailed" in end for end in (*ends, closed))
            check_reopened(Life(place / "0"), world, closed == "done" and not failed)
        except Exception as error:
            error.add_note(f"sync {at} failed: {list(zip(LIFE, ends, strict=True))}, {closed}")
            raise
        if "INJECTED" not in (place / "trace").read_text():
            assert at > 10
            return
        shutil.rmtree(place / "0")


def check_reopened(life: Life, world: World, flushed: bool) -> None:
    """All that was told is there; if the end of it could not be flushed, that may be lost."""
    found = contents(life.pool)
    assert found.keys() == world.keys()
    if flushed:
        assert found == {name: model.get(0, model.size) for name, model in world.items()}
    else:
        assert problem_of(found, world) == ""
    check_counts(life.pool)
    check_free_pages_are_holes(life.pool)
    life.close()
