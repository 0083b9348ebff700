"""A pool that is full, and space that is given back."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from offsite import events
from offsite.errors import (
    BadParameter,
    PoolFull,
    StateDirectoryError,
    StateDirectoryFull,
)
from offsite.pools.health import Health
from offsite.pools.local import capture, free_space, room, tidier
from offsite.pools.local.page_store import PageStore
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import (
    Create,
    Replace,
    Resize,
    Snapshot,
)
from offsite.store.free_space import FileSystem
from offsite.units import KIB, MIB
from tests.pools.backends import inside, write
from tests.pools.pool_bench import PAGE, Bench
from tests.pools.pool_hosts import check_counts, check_free_pages_are_holes, discard, read

Volume = Callable[[str, int], int]


def test_a_full_pool_hurts_only_the_write(bench: Bench) -> None:
    """P7: and once something is let go, it goes on."""
    told: list[events.EventKind] = []
    pool = bench.make("C", pages=33, report=lambda kind, _message: told.append(kind))
    v = pool.apply([Create("c", 64 * PAGE)])[0].id
    w = pool.apply([Create("w", 64 * PAGE)])[0].id
    write(pool, v, 0, b"v" * 32 * PAGE)
    for _ in range(2):
        with pytest.raises(PoolFull):
            write(pool, w, 0, b"w")
    assert told[-1] == events.POOL_FULL
    assert told.count(events.POOL_FULL) == 1
    write(pool, v, 0, b"in place")
    assert read(pool, v, 0, 32 * PAGE) == b"in place" + b"v" * (32 * PAGE - 8)
    s = pool.apply([Snapshot(v, "s")])[0].id
    with pytest.raises(PoolFull):
        write(pool, v, 0, b"a copy")
    with pytest.raises(PoolFull):
        pool.apply([Create("x", PAGE), Resize(v, 31 * PAGE + 512)])
    check_counts(pool)
    discard(pool, s, 0, 2 * PAGE)
    write(pool, v, 0, b"in place")
    discard(pool, v, PAGE, PAGE)
    write(pool, w, 0, b"w")  # in the page that was let go a moment ago, no flush in between
    assert read(pool, w, 0, PAGE) == b"w" + bytes(PAGE - 1)
    check_counts(pool)
    check_free_pages_are_holes(pool)


def test_a_pool_whose_last_free_pages_are_warm_is_not_full(bench: Bench) -> None:
    """They hold old content, so that a write of a part of a new page cannot have them as they are."""
    pool = bench.make("C", pages=33)
    v = pool.apply([Create("c", 64 * PAGE)])[0].id
    write(pool, v, 0, b"v" * 32 * PAGE)
    discard(pool, v, 0, 3 * PAGE)
    pool.flush()
    pool.reclaim(warm_bytes=32 * PAGE)
    write(pool, v, 40 * PAGE, b"w" * 512)
    write(pool, v, 41 * PAGE + 512, b"w" * (2 * PAGE - 1024))
    assert read(pool, v, 40 * PAGE, 3 * PAGE) == b"w" * 512 + bytes(PAGE) + b"w" * (2 * PAGE - 1024) + bytes(512)
    with pytest.raises(PoolFull):
        write(pool, v, 50 * PAGE, b"w")
    check_counts(pool)


def test_a_write_does_not_find_the_pool_full_because_someone_else_is_inside(bench: Bench) -> None:
    """Pages that are free but for a reader who will leave in a moment are worth waiting for."""
    pool = bench.make("C", pages=17)
    v, w = (i.id for i in pool.apply([Create("c", 16 * PAGE), Create("w", 16 * PAGE)]))
    write(pool, v, 0, b"v" * 16 * PAGE)
    reader = pool.open(v)
    reader.begin()
    discard(pool, v, 0, PAGE)
    timer = threading.Timer(0.1, reader.end)
    timer.start()
    write(pool, w, 0, b"w")
    timer.join()
    reader.close()
    check_counts(pool)


def test_a_write_that_waited_for_space_does_not_land_behind_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the image to wait. If the volume is rolled back to a smaller size just then, it must not write
    where a later growth would show it."""
    pool = bench.make("C", pages=33)
    v = pool.apply([Create("c", PAGE)])[0].id
    s = pool.apply([Snapshot(v, "s")])[0].id
    pool.apply([Resize(v, 64 * PAGE)])
    write(pool, v, 0, b"v" * 32 * PAGE)
    discard(pool, v, 0, PAGE)
    flush = pool.flush

    def roll_back_too() -> None:
        flush()
        monkeypatch.undo()
        pool.apply([Replace(v, s)])

    monkeypatch.setattr(pool, "flush", roll_back_too)
    with pytest.raises(BadParameter, match="shrunk"):
        write(pool, v, 40 * PAGE, b"behind the end")
    pool.apply([Resize(v, 64 * PAGE)])
    assert read(pool, v, 0, 64 * PAGE) == bytes(64 * PAGE)
    check_counts(pool)


def test_a_discard_gives_space_back_by_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidier, "TIDY_INTERVAL_SECONDS", 0.01)
    pool = bench.make("C", pages=1024)
    v = pool.apply([Create("c", 512 * PAGE)])[0].id
    write(pool, v, 0, b"v" * 512 * PAGE)
    pool.flush()
    used = (bench.directory / "pool-C.data").stat().st_blocks
    discard(pool, v, 0, 512 * PAGE)
    deadline = time.monotonic() + 10
    while (bench.directory / "pool-C.data").stat().st_blocks > used // 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_tidier_tells_a_trouble_once_and_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory that is full for a while must not end the giving back of space, nor flood the events."""
    told: list[tuple[events.EventKind, str]] = []
    monkeypatch.setattr(tidier, "TIDY_INTERVAL_SECONDS", 0.01)
    pool = bench.make("C", report=lambda kind, message: told.append((kind, message)))
    v = pool.apply([Create("c", 8 * PAGE)])[0].id
    write(pool, v, 0, b"v" * 8 * PAGE)
    pool.flush()
    commit, tries = pool._commit, threading.Semaphore(0)

    def no_commit(*arguments: Any) -> None:
        tries.release()
        with pool.lock:
            capture.put_back(pool.table, arguments[0])
        raise StateDirectoryError("database or disk is full")

    monkeypatch.setattr(pool, "_commit", no_commit)
    discard(pool, v, 0, 8 * PAGE)
    for _ in range(3):
        assert tries.acquire(timeout=10)
    monkeypatch.setattr(pool, "_commit", commit)
    deadline = time.monotonic() + 10
    while pool.has_pages_to_reclaim():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [kind for kind, _ in told] == [events.POOL_NOT_TIDIED]
    assert "database or disk is full" in told[0][1]
    pool.flush()


def test_refused_writes_leave_no_crumbs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that goes on writing to a full disk must not cost memory, nor tear apart what is free in one piece."""
    pool = bench.make("C")
    v = pool.apply([Create("c", 512 * PAGE)])[0].id
    free = pool.free_space.zeroed_pages
    with monkeypatch.context() as patch:
        patch.setattr(pool.free_space.room, "bytes_left", lambda *_: 0)
        for _ in range(3):
            with pytest.raises(PoolFull, match="file system"):
                write(pool, v, 0, b"v")
    assert pool.free_space.zeroed_pages == free
    assert not pool.free_space._allocator._short
    assert pool.take(free) == (1, free)  # together
    pool.give_back(1, free)


def test_a_discard_on_a_full_pool_gives_back_what_it_can(bench: Bench) -> None:
    """Its ends lie in pages that a snapshot has, too: zeros there would need new pages."""
    told: list[events.EventKind] = []
    pool = bench.make("C", pages=33, report=lambda kind, _message: told.append(kind))
    v, w = (i.id for i in pool.apply([Create("c", 30 * PAGE), Create("w", 2 * PAGE)]))
    write(pool, v, 0, b"v" * 30 * PAGE)
    write(pool, w, 0, b"w" * 2 * PAGE)
    pool.apply([Snapshot(v, "s")])
    told.clear()
    discard(pool, v, PAGE - 512, 20 * PAGE)
    discard(pool, v, 25 * PAGE + 512, 512)
    assert read(pool, v, PAGE, 19 * PAGE) == bytes(19 * PAGE)
    assert read(pool, v, 25 * PAGE, PAGE) == b"v" * PAGE
    discard(pool, w, 512, 2 * PAGE - 512)
    assert read(pool, w, 0, 2 * PAGE) == b"w" * 512 + bytes(2 * PAGE - 512)
    assert told == [], "a refused write was told, and no write was refused"
    write(pool, w, PAGE, b"w" * PAGE)
    with inside(pool, v) as opened, pytest.raises(PoolFull):
        opened.write_zeroes(25 * PAGE + 512, 512)
    check_counts(pool)


def test_what_a_page_lacks_yet_has_its_room_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a page that was written in part is written in place, where nobody asks whether there is room."""
    page, size = 16 * KIB, 64 * MIB
    pool = bench.make("C", page_bytes=page)
    pool.store.sync()

    def stored() -> int:
        return os.fstat(pool.store.descriptor).st_blocks * 512

    header = stored()

    def disk(_place: object) -> FileSystem:
        return FileSystem(size, size // 8 + 32 * page - (stored() - header), is_read_only=False)

    monkeypatch.setattr(room, "file_system", disk)
    v = pool.apply([Create("c", 1024 * page)])[0].id
    written = 0
    with pytest.raises(PoolFull, match="to the rest of pages written in part"):
        for written in range(1024):
            write(pool, v, written * page, b"v" * 4 * KIB)
    pool.flush()
    assert 30 <= written <= 32  # the file system's own notes of where the file is are a few KiB
    assert pool.capacity().available_bytes <= 2 * page
    write(pool, v, 0, b"v" * 30 * page)
    assert disk(None).free_bytes >= size // 8
    check_counts(pool)


@pytest.fixture
def full_disk_pool(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> LocalPool:
    """Full, with 4 pages to be punched and 4 whose letting go is no more to be committed until these are."""
    monkeypatch.setattr(tidier, "TIDY_INTERVAL_SECONDS", 1000)
    pool = bench.make("C", pages=17)
    v = pool.apply([Create("c", 16 * PAGE), Create("w", 16 * PAGE)])[0].id
    write(pool, v, 0, b"v" * 16 * PAGE)
    pool.flush()
    discard(pool, v, 0, 4 * PAGE)
    pool.flush()
    discard(pool, v, 4 * PAGE, 4 * PAGE)
    commit = pool._commit

    def refused(*arguments: Any) -> None:
        if pool.free_space.unpunched_pages:
            with pool.lock:
                capture.put_back(pool.table, arguments[0])
            raise StateDirectoryFull("database or disk is full")
        commit(*arguments)

    monkeypatch.setattr(pool, "_commit", refused)
    return pool


def test_space_is_given_back_though_nothing_can_be_committed(full_disk_pool: LocalPool) -> None:
    """To punch what was let go before needs no commit, and is what makes room for one."""
    full_disk_pool._tidier._tidy()
    assert not full_disk_pool.table.has_let_go
    assert full_disk_pool.free_space.zeroed_pages + full_disk_pool.free_space.unpunched_pages == 8


def test_the_database_is_looked_after_though_nothing_can_be_committed(
    full_disk_pool: LocalPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That writes its WAL back: on a full disk all the more."""
    looked: list[bool] = []

    def no_commit() -> None:
        raise StateDirectoryFull("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(full_disk_pool, "flush", no_commit)
        patch.setattr(full_disk_pool, "look_after_database", lambda: looked.append(True))
        with pytest.raises(StateDirectoryFull):
            full_disk_pool._tidier._tidy()
    assert looked
    assert full_disk_pool.free_space.zeroed_pages == 4


def test_a_write_gets_space_though_nothing_can_be_committed_at_first(full_disk_pool: LocalPool) -> None:
    w = full_disk_pool.names["w"]
    write(full_disk_pool, w, 0, b"w")
    assert read(full_disk_pool, w, 0, PAGE) == b"w" + bytes(PAGE - 1)
    check_counts(full_disk_pool)


def test_an_idle_pool_is_well_again_once_the_database_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that could not be made leaves nothing behind that a later commit would write."""
    monkeypatch.setattr(tidier, "TIDY_INTERVAL_SECONDS", 1000)
    told: list[events.EventKind] = []
    pool = bench.make("C", report=lambda kind, _message: told.append(kind))

    def query_only(value: int) -> None:
        with bench.database.transaction() as connection:
            connection.exec_driver_sql(f"PRAGMA query_only={value}")

    query_only(1)
    with pytest.raises(StateDirectoryError):
        pool.apply([Create("c", PAGE)])
    for _ in range(2):
        with pytest.raises(StateDirectoryError):
            pool._tidier._tidy()
        assert pool.health[0] is Health.FAULT, "told well though nothing can be written"
    query_only(0)
    pool._tidier._tidy()
    assert pool.health == (Health.OK, "")
    assert told == [events.STATE_NOT_WRITTEN, events.STATE_WRITTEN_AGAIN]


def slow_punches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which all that is to be given back here would take half a minute."""
    monkeypatch.setattr(tidier, "TIDY_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(tidier, "WARM_BYTES", 0)
    monkeypatch.setattr(free_space, "PUNCHES_AT_A_TIME", 4)
    punch = PageStore.punch

    def slowly(self: PageStore, first: int, count: int) -> None:
        time.sleep(0.05)
        punch(self, first, count)

    monkeypatch.setattr(PageStore, "punch", slowly)


def crumbs(pool: LocalPool, image: int) -> None:
    """Lets every other page of 1200 go."""
    for page in range(0, 1200, 2):
        discard(pool, image, page * PAGE, PAGE)
    pool.flush()


def test_a_write_waits_for_one_page_only_and_not_for_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = bench.make("C", pages=1201)
    v = pool.apply([Create("c", 2400 * PAGE)])[0].id
    write(pool, v, 0, b"v" * 1200 * PAGE)
    slow_punches(monkeypatch)
    crumbs(pool, v)
    started = time.monotonic()
    for page in range(3):
        write(pool, v, (1300 + page) * PAGE, b"w")
    assert time.monotonic() - started < 5
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 5, "closing waited for all to be given back"
    bench.pools.remove(pool)


def test_a_hole_that_cannot_be_punched_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = bench.make("C", pages=300)
    v = pool.apply([Create("c", 256 * PAGE)])[0].id
    write(pool, v, 0, b"v" * 256 * PAGE)
    discard(pool, v, 0, 100 * PAGE)
    discard(pool, v, 128 * PAGE, PAGE)
    pool.flush()

    def no_punch(_self: PageStore, _first: int, _count: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(PageStore, "punch", no_punch)
        with pytest.raises(OSError, match="Input/output"):
            pool.reclaim()
    check_free_pages_are_holes(pool)
