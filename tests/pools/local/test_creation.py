"""Making a pool, opening it, and what is said of one that is damaged."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from offsite.errors import (
    BadParameter,
    NameInUse,
    ObjectNotFound,
    StateDirectoryError,
    VolumeNotFound,
)
from offsite.pools import tables
from offsite.pools.local.creation import make_pool
from offsite.pools.local.header import HEADER_BYTES, Generation, Header
from offsite.pools.local.page_store import PageStore
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import (
    Create,
    Delete,
    Resize,
    Snapshot,
)
from offsite.store.database import Database
from offsite.units import GIB
from tests.pools.backends import write
from tests.pools.pool_bench import PAGE, Bench
from tests.pools.pool_hosts import after_a_crash, check_counts, check_free_pages_are_holes, discard, read, state

Volume = Callable[[str, int], int]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("page_bytes", [2048, 4097, 3 << 12, 2 << 20])
def test_page_sizes_that_are_refused(bench: Bench, page_bytes: int) -> None:
    with pytest.raises(BadParameter, match=str(page_bytes)):
        LocalPool.create(bench.database, "X", Path("x"), GIB, page_bytes)
    assert not (bench.directory / "x").exists()


@pytest.mark.parametrize("size", [0, 15 * PAGE, ((1 << 32) + 1) * PAGE])
def test_pool_sizes_that_are_refused(bench: Bench, size: int) -> None:
    with pytest.raises(BadParameter, match="16 to 4294967296"):
        LocalPool.create(bench.database, "X", Path("x"), size, PAGE)
    assert not (bench.directory / "x").exists()


def test_a_second_pool_of_a_name_is_refused_and_leaves_nothing(bench: Bench) -> None:
    bench.make("A")
    with pytest.raises(NameInUse, match="'A'"):
        LocalPool.create(bench.database, "A", Path("x"), 64 * PAGE, PAGE)
    assert not (bench.directory / "x").exists()


def test_a_pool_is_made_in_a_new_file_only(bench: Bench) -> None:
    (bench.directory / "x").write_text("someone's")
    with pytest.raises(StateDirectoryError, match="exists already"):
        LocalPool.create(bench.database, "X", Path("x"), 64 * PAGE, PAGE)
    assert (bench.directory / "x").read_text() == "someone's"
    with bench.database.read() as connection:
        assert connection.execute(select(tables.pools.c.name)).all() == []
    with pytest.raises(ObjectNotFound):
        LocalPool.load(bench.database, "X")


def test_a_pool_that_cannot_be_made_leaves_no_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not hold files so large, for one."""

    def too_large(_descriptor: int, _size: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    with bench.database.read():  # a connection for the reader is open now, and stays
        pass
    descriptors = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", too_large)
        with pytest.raises(StateDirectoryError, match="File too large"):
            LocalPool.create(bench.database, "X", Path("x"), 64 * PAGE, PAGE)
    assert not (bench.directory / "x").exists()
    assert open_descriptors() == descriptors
    bench.make("X", pages=64)


@pytest.mark.parametrize("what", ["the database cannot be read", "it cannot be begun"])
def test_a_pool_that_cannot_be_opened_once_it_was_made_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Neither its row, nor its file, nor a lock on that."""
    with bench.database.read():
        pass
    descriptors = open_descriptors()

    def fails(*_: object) -> None:
        raise StateDirectoryError("the disk failed")

    with monkeypatch.context() as patch:

        def made(*arguments: Any, **options: Any) -> PageStore:
            store = make_pool(*arguments, **options)
            where, name = (Database, "read") if "read" in what else (LocalPool, "begin")
            patch.setattr(where, name, fails)
            return store

        patch.setattr("offsite.pools.local.pool.make_pool", made)
        with pytest.raises(StateDirectoryError, match="the disk failed"):
            LocalPool.create(bench.database, "X", Path("x"), 64 * PAGE, PAGE)
    assert open_descriptors() == descriptors
    with bench.database.read() as connection:
        assert connection.execute(select(tables.pools.c.name)).all() == []
    pool = LocalPool.create(bench.database, "X", Path("x"), 64 * PAGE, PAGE)
    bench.pools.append(pool)


def test_what_an_interrupted_creation_left_is_made_anew(bench: Bench) -> None:
    """Power failed between the making of the file and the row that names it. Only in the state directory, only when
    no page of it was ever written, and only when no pool has it."""
    header = Header(bytes(16), PAGE, 64 * PAGE, Generation.first())
    store = PageStore.create(bench.directory / "left", header)
    store.close()
    pool = LocalPool.create(bench.database, "L", Path("left"), 128 * PAGE, PAGE)
    bench.pools.append(pool)
    with pytest.raises(StateDirectoryError, match="exists already"):
        LocalPool.create(bench.database, "M", Path("left"), 64 * PAGE, PAGE)
    v = pool.apply([Create("v", PAGE)])[0].id
    write(pool, v, 0, b"v")
    pool.flush()
    with bench.database.transaction() as connection:  # as if the database had been lost
        connection.execute(tables.images.delete())
        connection.execute(tables.pools.delete())
    for path in (Path("left"), bench.directory / "left"):
        with pytest.raises(StateDirectoryError, match="exists already"):
            LocalPool.create(bench.database, "M", path, 64 * PAGE, PAGE)
    assert os.pread(pool.store.descriptor, 1, pool.table.page_at(pool.by_id[v].nodes, 0) * PAGE) == b"v"
    bench.pools.remove(pool)
    pool.store.close()
    pool.closing.set()


@pytest.mark.parametrize("size", [0, 100, 64 * PAGE])
def test_a_file_without_a_header_is_left_over_too(bench: Bench, size: int) -> None:
    """The name and the size may be there before the header is; but a file that anyone wrote to is his."""
    with (bench.directory / "left").open("wb") as file:
        file.truncate(size)
    bench.pools.append(LocalPool.create(bench.database, "L", Path("left"), 64 * PAGE, PAGE))
    with (bench.directory / "text").open("wb") as file:
        file.write(b"a")
        file.truncate(size)
    if size:
        with pytest.raises(StateDirectoryError, match="exists already"):
            LocalPool.create(bench.database, "M", Path("text"), 64 * PAGE, PAGE)


def damage_file(bench: Bench, change: Callable[[bytearray], object]) -> None:
    path = bench.directory / "pool-A.data"
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def data_path(bench: Bench) -> Path:
    return bench.directory / "pool-A.data"


def change_header(bench: Bench, **changes: object) -> None:
    path = bench.directory / "pool-A.data"
    header = Header.unpacked(path.read_bytes()[:HEADER_BYTES])
    assert isinstance(header, Header)
    damage_file(bench, lambda d: d.__setitem__(slice(0, HEADER_BYTES), replace(header, **changes).packed()))  # type: ignore[arg-type]


DAMAGED: list[tuple[str, Callable[[Bench], object], str]] = [
    ("the data file is gone", lambda b: (b.directory / "pool-A.data").unlink(), "cannot be opened"),
    ("the data file is cut", lambda b: os.truncate(b.directory / "pool-A.data", 10 * PAGE), "cut off"),
    ("the last byte is cut", lambda b: os.truncate(data_path(b), data_path(b).stat().st_size - 1), "cut off"),
    ("the data file is empty", lambda b: os.truncate(b.directory / "pool-A.data", 0), "cut off"),
    ("another file", lambda b: damage_file(b, lambda d: d.__setitem__(slice(0, 4), b"GIF8")), "header"),
    ("another pool", lambda b: change_header(b, pool=bytes(16)), "another pool"),
    ("another page size", lambda b: change_header(b, page_bytes=2 * PAGE), "database says"),
    ("another generation", lambda b: change_header(b, generation=Generation.first()), "do not belong together"),
    ("a damaged header", lambda b: damage_file(b, lambda d: d.__setitem__(HEADER_BYTES - 9, 0xFF)), "damaged header"),
    ("a newer version", lambda b: damage_file(b, lambda d: d.__setitem__(15, 3)), "newer version of Offsite"),
    ("the generation is none", lambda b: execute(b, "UPDATE pools SET generation = 'yesterday'"), "not a generation"),
    ("a leaf is gone", lambda b: execute(b, "DELETE FROM leaves"), "lacks leaf"),
    ("a leaf is short", lambda b: execute(b, "UPDATE leaves SET pages = substr(pages, 1, 1020)"), "wrong length"),
    (
        "two leaves' lengths are wrong",
        lambda b: execute(
            b,
            "UPDATE leaves SET pages = CASE WHEN id = (SELECT min(id) FROM leaves) "
            "THEN CAST(pages || x'00000000' AS BLOB) ELSE substr(pages, 1, 1020) END",
        ),
        "wrong length",
    ),
    ("a leaf is no blob", lambda b: execute(b, "UPDATE leaves SET pages = 7"), "wrong length"),
    ("a node is gone", lambda b: execute(b, "DELETE FROM nodes"), "lacks node"),
    ("a node is short", lambda b: execute(b, "UPDATE nodes SET leaves = substr(leaves, 1, 8190)"), "lacks node"),
    ("an image's nodes are cut", lambda b: execute(b, "UPDATE images SET nodes = substr(nodes, 1, 15)"), "image"),
    ("a page is out of the pool", lambda b: execute(b, f"UPDATE leaves SET pages = x'{'ff' * 1024}'"), "names page"),
]


def execute(bench: Bench, sql: str) -> None:
    with bench.database.transaction() as connection:
        connection.exec_driver_sql(sql)


@pytest.mark.parametrize(("damage", "message"), [d[1:] for d in DAMAGED], ids=[d[0] for d in DAMAGED])
def test_a_damaged_pool_is_refused(
    bench: Bench, pool: LocalPool, volume: Volume, damage: Callable[[Bench], object], message: str
) -> None:
    """It says what is wrong, and keeps no descriptor open."""
    v = volume("v", 600)
    write(pool, v, 0, b"v" * 600 * PAGE)
    pool.close()
    bench.pools.remove(pool)
    damage(bench)
    with bench.database.read():  # a connection for the reader is open now, and stays
        pass
    descriptors = open_descriptors()
    with pytest.raises(StateDirectoryError, match=message):
        LocalPool.load(bench.database, "A")
    assert open_descriptors() == descriptors


def test_a_pool_opens_as_it_was_closed(bench: Bench, pool: LocalPool, volume: Volume) -> None:
    v = volume("v", 600)
    write(pool, v, 100, b"v" * 300 * PAGE)
    s = pool.apply([Snapshot(v, "s")])[0].id
    write(pool, v, 0, b"w" * 777)
    discard(pool, s, 10 * PAGE, 20 * PAGE)
    before = state(pool)
    for _ in range(2):
        pool = bench.reopen(pool)
        assert state(pool) == before
        check_counts(pool)
    check_free_pages_are_holes(pool)
    new = pool.apply([Create("new", PAGE)])[0].id
    assert new not in (v, s)


def test_pages_that_a_former_life_let_go_are_free(bench: Bench, pool: LocalPool, volume: Volume) -> None:
    """Also those below the last page in use, and those that hold what was never flushed."""
    v, w = volume("v", 100), volume("w", 100)
    for image in (v, w, v, w):
        for page in range(0, 100, 3):
            write(pool, image, page * PAGE, b"x" * PAGE)
    discard(pool, v, 0, 50 * PAGE)
    pool.flush()
    discard(pool, w, 0, 50 * PAGE)
    crashed = after_a_crash(bench)
    check_counts(crashed)
    check_free_pages_are_holes(crashed)
    check_free_pages_are_holes(bench.reopen(pool))


def test_image_ids_are_unique_in_the_system(bench: Bench) -> None:
    a, b = bench.make("A"), bench.make("B")
    ids = [pool.apply([Create(f"{pool.name}{n}", PAGE)])[0].id for pool in (a, b) for n in range(3)]
    assert len(set(ids)) == 6


def test_two_pools_of_one_system_do_not_touch_each_other(bench: Bench) -> None:
    a, b = bench.make("A"), bench.make("B")
    va, vb = a.apply([Create("a", 300 * PAGE)])[0].id, b.apply([Create("b", 300 * PAGE)])[0].id
    write(a, va, 0, b"a" * 300 * PAGE)
    write(b, vb, 0, b"b" * 300 * PAGE)
    a.apply([Delete(va)])
    a, b = bench.reopen(a), bench.reopen(b)
    assert read(b, vb, 0, 300 * PAGE) == b"b" * 300 * PAGE
    assert a.images() == []
    check_counts(b)
    check_free_pages_are_holes(a)


def test_the_id_of_a_deleted_image_is_not_given_to_another(bench: Bench) -> None:
    """Or a map or a later change of the same call, which knew the old image by it, would reach the new one."""
    pool = bench.make()
    _, newest = pool.apply([Create("a", 4 * PAGE), Create("b", 4 * PAGE)])
    pool = bench.reopen(pool)
    with pytest.raises(VolumeNotFound):
        pool.apply([Delete(newest.id), Create("c", 4 * PAGE), Resize(newest.id, 8 * PAGE)])
    made = pool.apply([Delete(newest.id), Create("c", 4 * PAGE)])[1]
    assert made.id != newest.id
