"""However much is deleted or discarded at once, nobody else waits for more than a bounded piece of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from offsite.pools.local import capture, durability, page_store, records
from offsite.pools.local.page_store import PUNCH_BYTES_MAX
from offsite.pools.local.page_table import PAGES_PER_LEAF, Leaf, PageNumbers, PageTable
from offsite.pools.protocol import Create, Delete, Snapshot
from offsite.units import MIB
from tests.pools.backends import inside, write
from tests.pools.pool_bench import PAGE, Bench
from tests.pools.pool_hosts import check_counts, check_free_pages_are_holes, discard, read

BIG = 3 * PUNCH_BYTES_MAX


@pytest.fixture
def punched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each call that punches."""
    fallocate, lengths = page_store._fallocate, list[int]()

    def recorded(descriptor: int, flags: int, start: int, length: int) -> int:
        lengths.append(length)
        return fallocate(descriptor, flags, start, length)

    monkeypatch.setattr(page_store, "_fallocate", recorded)
    return lengths


@pytest.mark.parametrize("how", ["delete", "trim", "make space"])
def test_a_large_volume_is_punched_piece_by_piece(bench: Bench, punched: list[int], how: str) -> None:
    pool = bench.make("C", pages=BIG // PAGE + 2)
    v = pool.apply([Create("c", BIG)])[0].id
    for at in range(0, BIG, MIB):
        write(pool, v, at, b"v" * MIB)
    pool.flush()
    punched.clear()
    if how == "delete":
        pool.apply([Delete(v)])
    else:
        discard(pool, v, 0, BIG)
        pool.flush()
    if how == "make space":
        w = pool.apply([Create("w", BIG)])[0].id
        for at in range(0, BIG, MIB):  # finds the pool full, and waits for the first pieces only
            write(pool, w, at, b"w" * MIB)
    else:
        check_free_pages_are_holes(pool)
        assert sum(punched) == BIG
    assert max(punched) <= PUNCH_BYTES_MAX


def test_data_that_a_crash_left_in_unused_space_is_punched_piece_by_piece(bench: Bench, punched: list[int]) -> None:
    """Only what holds data: a call for each piece of a pool of many terabytes would take long."""
    pool = bench.make("C", pages=4 * BIG // PAGE)
    pool.store.fill(BIG, memoryview(bytes(b"x" * (BIG + 5 * PAGE))))
    punched.clear()
    again = bench.reopen(pool)
    assert max(punched) <= PUNCH_BYTES_MAX
    assert sum(punched) == BIG + 5 * PAGE
    check_free_pages_are_holes(again)


def test_what_a_deleted_volume_had_is_let_go_piece_by_piece(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is done, hosts need the same lock; and what has to be read for it is read without that lock."""
    monkeypatch.setattr(durability, "LET_GO_LEAVES_AT_A_TIME", 4)
    monkeypatch.setattr(capture, "DEAD_ROWS_MAX", 8)
    pages = 20 * PAGES_PER_LEAF
    pool = bench.make("C", pages=pages + 2)
    v = pool.apply([Create("c", pages * PAGE)])[0].id
    for at in range(0, pages, PAGES_PER_LEAF):
        write(pool, v, at * PAGE, b"v" * PAGE)
    pool = bench.reopen(pool)
    drop, at_once = PageTable._drop_leaves, list[int]()

    def dropped(self: PageTable, leaves: Any, let_go: Any) -> None:
        leaves = list(leaves)
        at_once.append(len(leaves))
        drop(self, leaves, let_go)

    read_leaves, locked = records.read_leaves, list[bool]()

    def read_without_lock(*arguments: Any) -> Any:
        """Whether another thread could have the pool's lock now."""

        def try_it() -> None:
            locked.append(not pool.lock.acquire(timeout=5))
            if not locked[-1]:
                pool.lock.release()

        other = threading.Thread(target=try_it)
        other.start()
        other.join()
        return read_leaves(*arguments)

    monkeypatch.setattr(PageTable, "_drop_leaves", dropped)
    monkeypatch.setattr(records, "read_leaves", read_without_lock)
    pool.apply([Delete(v)])
    assert sum(at_once) == 20
    assert max(at_once) <= 4
    assert locked
    assert not any(locked)
    while pool.table.has_dead_rows:
        pool.flush()
    with bench.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM leaves").scalar_one() == 0
    check_counts(pool)
    check_free_pages_are_holes(pool)


def test_what_a_trim_leaves_to_a_snapshot_is_settled_piece_by_piece(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "SETTLED_LEAVES_AT_A_TIME", 2)
    monkeypatch.setattr(durability, "SETTLED_PAGES_AT_A_TIME", 8)
    pages = 5 * PAGES_PER_LEAF
    pool = bench.make("C", pages=2 * pages)
    v = pool.apply([Create("c", pages * PAGE)])[0].id
    write(pool, v, 0, b"v" * pages * PAGE)
    s = pool.apply([Snapshot(v, "s")])[0].id
    discard(pool, v, 0, 40 * PAGE)
    discard(pool, v, PAGES_PER_LEAF * PAGE, 4 * PAGES_PER_LEAF * PAGE)
    settled: list[list[Leaf]] = []
    settle = PageTable.settle_leaves

    def settling(self: PageTable, leaves: list[Leaf]) -> list[PageNumbers]:
        settled.append(leaves)
        return settle(self, leaves)

    monkeypatch.setattr(PageTable, "settle_leaves", settling)
    pool.flush()
    assert [len(each) for each in settled] == [2, 2]
    assert read(pool, s, 0, pages * PAGE) == b"v" * pages * PAGE
    assert read(pool, v, 0, pages * PAGE) == bytes(40 * PAGE) + b"v" * (216 * PAGE) + bytes(4 * PAGES_PER_LEAF * PAGE)
    check_counts(pool)
    pool.apply([Delete(v), Delete(s)])
    check_free_pages_are_holes(pool)


@pytest.mark.parametrize("how", ["discard", "write_zeroes"])
def test_a_trim_leaves_no_more_to_one_commit_than_the_disk_takes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Else the next flush is a transaction that a nearly full disk has no room for."""
    leaf_bytes, leaves = PAGES_PER_LEAF * PAGE, 8
    pool = bench.make("C")
    v = pool.apply([Create("c", leaves * leaf_bytes)])[0].id
    for leaf in range(leaves):
        write(pool, v, leaf * leaf_bytes, b"v" * 2 * PAGE)
    pool.flush()
    monkeypatch.setattr(pool, "dirty_leaves_max", 2)
    with inside(pool, v) as opened:
        for leaf in range(leaves):
            getattr(opened, how)(leaf * leaf_bytes, PAGE)
            assert len(pool.table.dirty_leaves) <= 2
    assert read(pool, v, 0, 2 * PAGE) == bytes(PAGE) + b"v" * PAGE
    check_counts(pool)


def test_the_bound_on_one_commit_holds_from_the_start(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "dirty_leaves_max", lambda _free_bytes: 321)
    assert bench.make("C").dirty_leaves_max == 321
