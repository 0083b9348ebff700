"""A local pool: sizes of volumes, handles, and what is durable when."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from offsite.errors import (
    VolumeNotFound,
)
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import (
    SIZE_BYTES_MAX,
    Create,
    Delete,
    Replace,
    Resize,
    Snapshot,
)
from offsite.units import TIB
from tests.pools.backends import inside, write
from tests.pools.pool_bench import PAGE, Bench
from tests.pools.pool_hosts import after_a_crash, check_counts, check_free_pages_are_holes, discard, fail, read

Volume = Callable[[str, int], int]


# -- sizes ----


def test_what_was_cut_off_does_not_come_back(bench: Bench, pool: LocalPool, volume: Volume) -> None:
    """Shrunk within a page, at a page's edge and across leaves, then grown: zero from the cut on, also of a
    page that a snapshot keeps whole."""
    v = volume("v", 600)
    write(pool, v, 0, b"v" * 600 * PAGE)
    (s,) = pool.apply([Snapshot(v, "s")])
    for size in (599 * PAGE + 512, 599 * PAGE, 258 * PAGE - 512, 257 * PAGE, 256 * PAGE, PAGE):
        pool.apply([Resize(v, size), Resize(v, 600 * PAGE)])
        assert read(pool, v, 0, 600 * PAGE) == b"v" * size + bytes(600 * PAGE - size)
        check_counts(pool)
    assert read(pool, s.id, 0, 600 * PAGE) == b"v" * 600 * PAGE
    pool = bench.reopen(pool)
    assert read(pool, v, 0, 600 * PAGE) == b"v" * PAGE + bytes(599 * PAGE)
    assert pool.image(v).allocated_bytes == PAGE


def test_a_new_size_is_durable_at_once(bench: Bench, pool: LocalPool, volume: Volume) -> None:
    v = volume("v", 8)
    pool.apply([Resize(v, 16 * PAGE)])
    assert after_a_crash(bench).image(v).size_bytes == 16 * PAGE
    assert bench.reopen(pool).image(v).size_bytes == 16 * PAGE


def test_the_last_page_of_a_volume_may_be_half_a_page(pool: LocalPool) -> None:
    """Nothing lies behind the end: to discard up to there gives the page back."""
    v = pool.apply([Create("v", 2 * PAGE + 512)])[0].id
    write(pool, v, 0, b"v" * (2 * PAGE + 512))
    assert pool.image(v).allocated_bytes == 3 * PAGE
    discard(pool, v, PAGE + 512, PAGE - 512)
    assert pool.image(v).allocated_bytes == 3 * PAGE
    discard(pool, v, PAGE + 512, PAGE)
    assert read(pool, v, 0, 2 * PAGE + 512) == b"v" * (PAGE + 512) + bytes(PAGE)
    assert pool.image(v).allocated_bytes == 2 * PAGE
    with inside(pool, v) as opened:
        opened.write_zeroes(2 * PAGE, 512, allocate=True)
        assert list(opened.extents(PAGE - 1, PAGE + 513)) == [(PAGE + 513, True)]
        opened.write_zeroes(0, 2 * PAGE + 512)
        assert list(opened.extents(0, 2 * PAGE + 512)) == [(2 * PAGE + 512, False)]
    assert pool.capacity().allocated_bytes == 0
    check_counts(pool)


def test_a_volume_of_128_tib_is_handled_in_milliseconds(pool: LocalPool) -> None:
    """Made, written at its far end, snapshotted, compared, zeroed, listed, shrunk: none walks what is not there."""
    started = time.monotonic()
    v = pool.apply([Create("v", SIZE_BYTES_MAX)])[0].id
    write(pool, v, SIZE_BYTES_MAX - 700, b"e" * 700)
    write(pool, v, 5 * TIB - 1, b"m" * 2)
    s = pool.apply([Snapshot(v, "s")])[0].id
    write(pool, v, SIZE_BYTES_MAX - PAGE, b"f" * PAGE)
    assert [(e.offset, e.length) for e in pool.difference(s, v)] == [(SIZE_BYTES_MAX - PAGE, PAGE)]
    assert [e.offset for e in pool.difference(None, v)] == [5 * TIB - PAGE, SIZE_BYTES_MAX - PAGE]
    with inside(pool, v) as opened:
        runs = list(opened.extents(0, SIZE_BYTES_MAX))
        assert runs == [
            (5 * TIB - PAGE, False),
            (2 * PAGE, True),
            (SIZE_BYTES_MAX - 5 * TIB - 2 * PAGE, False),
            (PAGE, True),
        ]
        opened.discard(10 * TIB, SIZE_BYTES_MAX - 10 * TIB)
    assert read(pool, v, SIZE_BYTES_MAX - PAGE, PAGE) == bytes(PAGE)
    assert read(pool, s, SIZE_BYTES_MAX - 700, 700) == b"e" * 700
    pool.apply([Resize(s, TIB)])
    check_counts(pool)
    assert time.monotonic() - started < 2.0


def test_a_rollback_changes_what_open_handles_see(pool: LocalPool, volume: Volume) -> None:
    """Also the size: to a snapshot that is smaller than the volume is by now."""
    v = volume("v", 8)
    write(pool, v, 0, b"o" * 8 * PAGE)
    s = pool.apply([Snapshot(v, "s")])[0].id
    pool.apply([Resize(v, 600 * PAGE)])
    opened = pool.open(v)
    opened.begin()
    opened.write(0, memoryview(b"n" * 600 * PAGE))
    opened.end()
    pool.apply([Replace(v, s)])
    opened.begin()
    assert opened.size_bytes == 8 * PAGE
    buffer = bytearray(8 * PAGE)
    opened.read(0, memoryview(buffer))
    opened.end()
    opened.close()
    assert buffer == b"o" * 8 * PAGE
    check_counts(pool)
    check_free_pages_are_holes(pool)


def test_an_open_handle_of_a_deleted_volume_is_refused(pool: LocalPool, volume: Volume) -> None:
    v = volume("v", 8)
    opened = pool.open(v)
    pool.apply([Delete(v)])
    with pytest.raises(VolumeNotFound, match="'v' was deleted"):
        opened.begin()
    opened.close()
    with pytest.raises(VolumeNotFound):
        pool.open(v)
    check_free_pages_are_holes(pool)


def test_writing_nothing_allocates_nothing(pool: LocalPool, volume: Volume) -> None:
    v = volume("v", 8)
    write(pool, v, 3 * PAGE, b"")
    write(pool, v, 8 * PAGE, b"")
    discard(pool, v, 8 * PAGE, 0)
    assert pool.capacity().allocated_bytes == 0


# -- after a crash ----


@pytest.mark.parametrize("from_which", ["volume", "snapshot"])
def test_what_one_let_go_is_not_overwritten_by_the_other_before_that_is_durable(
    bench: Bench, pool: LocalPool, volume: Volume, from_which: str
) -> None:
    """The volume is written and gets a page of its own. Until that is flushed, its page table on disk names the
    page that the snapshot still has: the snapshot's host must not write to it in place, or after a crash the volume
    would show what was written to the snapshot (P2, P5)."""
    v = volume("v", 8)
    write(pool, v, 0, b"v" * 8 * PAGE)
    s = pool.apply([Snapshot(v, "s")])[0].id
    first, second = (v, s) if from_which == "volume" else (s, v)
    write(pool, first, 0, b"1" * 512)
    write(pool, second, 0, b"2" * 512)
    discard(pool, first, PAGE, PAGE)
    write(pool, second, PAGE, b"2" * 512)
    write(pool, first, 2 * PAGE, b"1" * PAGE)
    write(pool, second, 2 * PAGE, b"2" * PAGE)
    check_counts(pool)
    crashed = after_a_crash(bench)
    for image, other in ((first, b"2"), (second, b"1")):
        found = read(crashed, image, 0, 8 * PAGE)
        assert other not in found
        assert found[512:PAGE] == b"v" * (PAGE - 512)
    pool.flush()
    check_counts(pool)
    write(pool, second, 512, b"2" * 512)
    assert read(pool, second, 0, PAGE) == b"2" * 1024 + b"v" * (PAGE - 1024)
    assert read(pool, first, 0, PAGE) == b"1" * 512 + b"v" * (PAGE - 512)
    check_free_pages_are_holes(pool)
    check_counts(pool)


def test_a_whole_leaf_that_one_let_go_is_not_overwritten_by_the_other_before_that_is_durable(
    bench: Bench, pool: LocalPool, volume: Volume
) -> None:
    v = volume("v", 600)
    write(pool, v, 0, b"v" * 600 * PAGE)
    s = pool.apply([Snapshot(v, "s")])[0].id
    discard(pool, v, 0, 600 * PAGE)
    write(pool, s, 256 * PAGE, b"s" * PAGE)
    discard(pool, s, 0, 256 * PAGE)
    check_counts(pool)
    assert b"s" not in read(after_a_crash(bench), v, 0, 600 * PAGE)
    pool.flush()
    check_counts(pool)
    assert pool.capacity().allocated_bytes == (600 - 256) * PAGE
    check_free_pages_are_holes(pool)
    assert read(pool, s, 255 * PAGE, 3 * PAGE) == bytes(PAGE) + b"s" * PAGE + b"v" * PAGE


def test_what_all_let_go_is_free_after_one_flush(bench: Bench) -> None:
    """Or a pool would be found full that is not."""
    pool = bench.make("C", pages=257 + 16)
    v = pool.apply([Create("c", 300 * PAGE)])[0].id
    write(pool, v, 0, b"v" * 256 * PAGE)
    s = pool.apply([Snapshot(v, "s")])[0].id
    for image in (v, s):
        discard(pool, image, 0, 256 * PAGE)
    write(pool, v, 0, b"w" * 272 * PAGE)
    assert read(pool, v, 0, 272 * PAGE) == b"w" * 272 * PAGE
    check_counts(pool)
    discard(pool, v, 0, 300 * PAGE)
    check_free_pages_are_holes(pool)
    assert pool.capacity().allocated_bytes == 0


def test_a_failed_commit_keeps_what_was_let_go_by_one_of_several(pool: LocalPool, volume: Volume) -> None:
    v = volume("v", 600)
    write(pool, v, 0, b"v" * 600 * PAGE)
    pool.apply([Snapshot(v, "s")])
    discard(pool, v, 0, 300 * PAGE)
    with pytest.raises(ZeroDivisionError):
        pool.flush(fail)
    check_counts(pool)
    discard(pool, v, 0, 600 * PAGE)
    pool.flush()
    check_counts(pool)
    check_free_pages_are_holes(pool)
    assert pool.capacity().allocated_bytes == 600 * PAGE
