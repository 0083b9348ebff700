"""A local pool as a whole: changes to images, what is refused, what a failed commit leaves, opening again."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from offsite import events
from offsite.errors import (
    BadParameter,
    InUse,
    NameInUse,
    ObjectNotFound,
    PoolFailed,
    PoolFull,
    StateDirectoryError,
    VolumeNotFound,
)
from offsite.pools import capture, changes, free_space, local
from offsite.pools.local import LocalPool
from offsite.pools.page_store import PageStore
from offsite.pools.protocol import (
    SIZE_BYTES_MAX,
    Change,
    Clone,
    Create,
    Delete,
    Rename,
    Replace,
    Resize,
    Snapshot,
)
from offsite.store import tables
from offsite.units import GIB, TIB
from tests.pools.pool_bench import PAGE, Bench
from tests.pools.pool_files import copy_sparse
from tests.pools.pool_hosts import check_counts, check_free_pages_are_holes, discard, inside, read, write

Volume = Callable[[str, int], int]


def fail(_connection: Connection) -> None:
    raise ZeroDivisionError("records that cannot be written")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def state(pool: LocalPool) -> object:
    """All that a refused change must leave as it was."""
    contents = {}
    for info in pool.images():
        contents[info.id] = read(pool, info.id, 0, min(info.size_bytes, 64 * PAGE))
    return sorted(pool.images(), key=lambda info: info.id), contents, pool.capacity()


# -- images ------------------------------------------------------------------------------------------------


def test_several_changes_at_once_see_one_another(pool: LocalPool, volume: Volume) -> None:
    """One call: a later change names the images of earlier ones by -1, -2 …, whatever came between."""
    v = volume("v", 8)
    write(pool, v, 0, b"v" * PAGE)
    s, grown, c, made = pool.apply(
        [Snapshot(v, "s"), Resize(-1, 16 * PAGE), Clone(-2, "c", "internal"), Create("new", PAGE)]
    )
    assert (grown.id, c.parent_id, s.parent_id) == (s.id, None, v)
    assert (pool.image(s.id).size_bytes, pool.image(c.id).size_bytes) == (16 * PAGE, 16 * PAGE)
    assert (s.kind, c.kind, made.kind) == ("snapshot", "internal", "volume")
    assert read(pool, c.id, 0, PAGE) == b"v" * PAGE
    check_counts(pool)


def test_a_name_is_free_again_for_a_later_change(pool: LocalPool, volume: Volume) -> None:
    v, w = volume("v", 8), volume("w", 8)
    pool.apply([Rename(v, "x"), Rename(w, "v"), Rename(v, "w"), Delete(w), Create("v", PAGE)])
    assert sorted(info.name for info in pool.images()) == ["v", "w"]
    assert pool.image(v).name == "w"


def test_deleting_a_parent_leaves_its_snapshots(bench: Bench, pool: LocalPool, volume: Volume) -> None:
    v = volume("v", 8)
    write(pool, v, 0, b"v" * PAGE)
    s, t = pool.apply([Snapshot(v, "s"), Snapshot(-1, "t")])
    assert t.parent_id == s.id
    pool.apply([Delete(v)])
    pool.apply([Delete(s.id)])
    for again in (pool, bench.reopen(pool)):
        assert again.image(t.id).parent_id is None
        assert read(again, t.id, 0, PAGE) == b"v" * PAGE
        check_counts(again)


V, S = 2**40, 2**40 + 1  # stand for the volume and its snapshot
REFUSED: dict[str, tuple[list[Change], type[Exception]]] = {
    "a name in use": ([Create("x", PAGE), Snapshot(V, "v")], NameInUse),
    "a name in use by an earlier change": ([Create("x", PAGE), Clone(V, "x")], NameInUse),
    "a name in use, renamed to": ([Rename(V, "s")], NameInUse),
    "a name of another pool": ([Clone(V, "x"), Create("theirs", PAGE)], NameInUse),
    "a name of another pool, renamed to": ([Delete(S), Rename(V, "theirs")], NameInUse),
    "an image that is not there": ([Delete(S), Replace(V, 99)], VolumeNotFound),
    "an image that is deleted before": ([Delete(S), Replace(V, S)], VolumeNotFound),
    "an image that is deleted before, by -1": ([Delete(S), Rename(-1, "x")], VolumeNotFound),
    "two deletions of one image": ([Delete(S), Delete(S)], VolumeNotFound),
    "a reference to a later change": ([Snapshot(V, "x"), Clone(-2, "y")], BadParameter),
    "a reference to nothing": ([Clone(-7, "y")], BadParameter),
    "less than a page": ([Rename(V, "x"), Create("y", PAGE - 512)], BadParameter),
    "less than a page, by resizing": ([Resize(V, 0)], BadParameter),
    "more than 128 TiB": ([Replace(V, S), Create("y", SIZE_BYTES_MAX + 512)], BadParameter),
    "half a block": ([Resize(V, PAGE + 1)], BadParameter),
}


def about(change: Change, ids: dict[int, int]) -> Change:
    """The change with real ids in place of V and S."""
    return replace(
        change, **{f.name: ids.get(getattr(change, f.name), getattr(change, f.name)) for f in fields(change)}
    )


@pytest.mark.parametrize(("changes", "error"), REFUSED.values(), ids=REFUSED)
def test_refused_changes_change_nothing(
    bench: Bench, pool: LocalPool, volume: Volume, changes: list[Change], error: type[Exception]
) -> None:
    bench.make("B").apply([Create("theirs", PAGE)])
    v = volume("v", 8)
    write(pool, v, 0, b"v" * PAGE)
    (s,) = pool.apply([Snapshot(v, "s")])
    write(pool, v, 512, b"w" * PAGE)
    before = state(pool)
    with pytest.raises(error):
        pool.apply([about(change, {V: v, S: s.id}) for change in changes])
    assert state(pool) == before
    check_counts(pool)
    assert state(bench.reopen(pool)) == before


def test_an_image_that_other_records_need_cannot_be_deleted(pool: LocalPool, volume: Volume) -> None:
    """The database's own rule is the last line behind management's checks, and is told as a refusal."""
    v = volume("v", 8)
    held = {"id": 1, "peer_id": 1, "set_id": 1}

    def hold(connection: Connection) -> None:
        r = tables.replication
        connection.execute(
            r.peers.insert().values(
                id=1, name="p", system_uuid="u", system_name="n", address="a", certificate=b"", created_at=0
            )
        )
        connection.execute(
            r.replication_sets.insert().values(
                id=1,
                uuid="u",
                name="s",
                role="primary",
                state="ready",
                peer_id=held["peer_id"],
                remote_pool="A",
                generation=1,
                created_at=0,
            )
        )
        connection.execute(r.set_members.insert().values(set_id=1, position=0, image_id=v, remote_name="r"))

    pool.flush(hold)
    before = state(pool)
    with pytest.raises(InUse):
        pool.apply([Delete(v)])
    assert state(pool) == before
    check_counts(pool)


def test_a_volume_without_overcommit_cannot_promise_more_than_there_is(bench: Bench) -> None:
    pool = bench.make("C", pages=64, overcommit=False)
    v = pool.apply([Create("v", 32 * PAGE)])[0].id
    big = pool.apply([Create("big", 200 * PAGE, "internal")])[0].id
    for change in (Create("w", 33 * PAGE), Resize(v, 65 * PAGE), Clone(big, "w"), Replace(v, big)):
        with pytest.raises(BadParameter, match="overcommit"):
            pool.apply([change])
    pool.apply([Create("w", 32 * PAGE)])
    check_counts(pool)


def test_there_is_a_largest_number_of_images(pool: LocalPool, volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "IMAGES_MAX", 3)
    v = volume("v", 8)
    write(pool, v, 0, b"v" * PAGE)
    pool.apply([Snapshot(v, "s")])
    with pytest.raises(BadParameter, match="3 images"):
        pool.apply([Snapshot(v, "t"), Snapshot(v, "u")])
    check_counts(pool)


# -- sizes ----------------------------------------------------------------------------------------------------


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


# -- after a crash -------------------------------------------------------------------------------------------


def after_a_crash(bench: Bench) -> LocalPool:
    """The pool as it is found when power fails now: nothing more gets to the disk."""
    copy_sparse(bench.directory, bench.directory / "crashed")
    crashed = Bench(bench.directory / "crashed")
    pool = LocalPool.load(crashed.database, "A")
    bench.crashed.append((crashed, pool))
    return pool


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


# -- a commit that fails -----------------------------------------------------------------------------------


def test_every_change_is_taken_back_when_the_commit_fails(bench: Bench, pool: LocalPool, volume: Volume) -> None:
    v, w = volume("v", 8), volume("w", 300)
    write(pool, v, 0, b"v" * 8 * PAGE)
    write(pool, w, 0, b"w" * 300 * PAGE)
    s, t = (i.id for i in pool.apply([Snapshot(v, "s"), Snapshot(-1, "t")]))
    write(pool, v, 100, b"later")
    before = state(pool)
    with pytest.raises(ZeroDivisionError):
        pool.apply(
            [
                Create("new", PAGE),
                Snapshot(w, "ws"),
                Clone(s, "c"),
                Resize(w, 299 * PAGE - 512),
                Resize(w, 400 * PAGE),
                Replace(v, w),
                Rename(w, "renamed"),
                Delete(s),
                Replace(w, t),
                Delete(-2),
            ],
            fail,
        )
    assert state(pool) == before
    check_counts(pool)
    check_free_pages_are_holes(pool)
    assert state(bench.reopen(pool)) == before


@pytest.mark.parametrize("change", [Replace, Resize, Delete], ids=["rollback", "resize", "delete"])
def test_a_host_waits_for_a_change_that_might_be_taken_back(
    pool: LocalPool, volume: Volume, change: type[Change]
) -> None:
    """A write acknowledged on top of a rollback that then fails to commit would be lost; a host told that its
    volume is gone, when it is not, would have failed for nothing."""
    v, w = volume("v", 8), volume("w", 8)
    write(pool, v, 0, b"v" * 8 * PAGE)
    made: dict[type[Change], Change] = {Replace: Replace(v, w), Resize: Resize(v, 4 * PAGE), Delete: Delete(v)}
    opened, other, done = pool.open(v), pool.open(w), threading.Event()

    def host() -> None:
        opened.begin()
        opened.write(PAGE, memoryview(b"h" * 100))
        opened.end()
        done.set()

    thread = threading.Thread(target=host)

    def records(_connection: Connection) -> None:
        thread.start()
        assert not done.wait(0.05)
        other.begin()  # who only gives the content need not wait
        other.end()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.apply([made[change]], records)
    assert done.wait(10)
    thread.join()
    assert read(pool, v, 0, 8 * PAGE) == b"v" * PAGE + b"h" * 100 + b"v" * (7 * PAGE - 100)
    opened.close()
    other.close()
    check_counts(pool)


def test_hosts_write_on_while_a_snapshot_is_made_durable(pool: LocalPool, volume: Volume) -> None:
    """Those of the source; the snapshot itself is nobody's before it is durable."""
    v = volume("v", 8)
    write(pool, v, 0, b"v" * 8 * PAGE)
    seen = []

    def records(_connection: Connection) -> None:
        write(pool, v, 0, b"h" * PAGE)
        seen.append(next(info.id for info in pool.images() if info.name == "s"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.apply([Snapshot(v, "s")], records)
    assert read(pool, v, 0, 2 * PAGE) == b"h" * PAGE + b"v" * PAGE
    with pytest.raises(VolumeNotFound):
        pool.image(seen[0])
    check_counts(pool)
    check_free_pages_are_holes(pool)


def test_a_snapshot_is_kept_from_all_until_it_is_durable(pool: LocalPool, volume: Volume) -> None:
    v = volume("v", 8)
    errors: list[Exception] = []

    def visit(image_id: int) -> None:
        try:
            read(pool, image_id, 0, PAGE)
        except VolumeNotFound as error:
            errors.append(error)

    threads = []

    def records(_connection: Connection) -> None:
        image_id = next(info.id for info in pool.images() if info.name == "s")
        threads.append(threading.Thread(target=visit, args=(image_id,)))
        threads[0].start()
        threads[0].join(0.05)
        assert threads[0].is_alive()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.apply([Snapshot(v, "s")], records)
    threads[0].join(10)
    assert len(errors) == 1


def test_a_failed_sync_fails_the_pool_for_good(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may have thrown the pages away: a second sync that succeeds would be a lie."""
    told: list[tuple[events.EventKind, str]] = []
    pool = bench.make("D", report=lambda kind, message: told.append((kind, message)))
    v = pool.apply([Create("d", 8 * PAGE)])[0].id
    write(pool, v, 0, b"v" * PAGE)

    def no_sync(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = state(pool)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", no_sync)
        with pytest.raises(PoolFailed):
            pool.apply([Snapshot(v, "s")])
    with pytest.raises(PoolFailed):
        pool.flush()
    with pytest.raises(PoolFailed):
        pool.apply([Create("e", PAGE)])
    assert state(pool) == before
    assert [kind for kind, _ in told] == [events.POOL_FAILED]
    check_counts(pool)


# -- space ------------------------------------------------------------------------------------------------------


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
    with pytest.raises(BadParameter, match="smaller"):
        write(pool, v, 40 * PAGE, b"behind the end")
    pool.apply([Resize(v, 64 * PAGE)])
    assert read(pool, v, 0, 64 * PAGE) == bytes(64 * PAGE)
    check_counts(pool)


def test_a_discard_gives_space_back_by_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "TIDY_INTERVAL_SECONDS", 0.01)
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
    monkeypatch.setattr(local, "TIDY_INTERVAL_SECONDS", 0.01)
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


def slow_punches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which all that is to be given back here would take half a minute."""
    monkeypatch.setattr(local, "TIDY_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(local, "WARM_BYTES", 0)
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


# -- making and opening a pool ----------------------------------------------------------------------------------


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
    with pytest.raises(StateDirectoryError, match="there already"):
        LocalPool.create(bench.database, "X", Path("x"), 64 * PAGE, PAGE)
    assert (bench.directory / "x").read_text() == "someone's"
    with bench.database.read() as connection:
        assert connection.execute(select(tables.pools.pools.c.name)).all() == []
    with pytest.raises(ObjectNotFound):
        LocalPool.load(bench.database, "X")


def test_a_pool_that_cannot_be_made_leaves_no_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not hold files so large, for one."""

    def too_large(_descriptor: int, _size: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    descriptors = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", too_large)
        with pytest.raises(StateDirectoryError, match="File too large"):
            LocalPool.create(bench.database, "X", Path("x"), 64 * PAGE, PAGE)
    assert not (bench.directory / "x").exists()
    assert open_descriptors() == descriptors
    bench.make("X", pages=64)


def test_what_an_interrupted_creation_left_is_made_anew(bench: Bench) -> None:
    """Power failed between the making of the file and the row that names it. Only in the state directory, only when
    no page of it was ever written, and only when no pool has it."""
    store = PageStore.create(bench.directory / "left", bytes(16), PAGE, 64 * PAGE)
    store.close()
    pool = LocalPool.create(bench.database, "L", Path("left"), 128 * PAGE, PAGE)
    bench.pools.append(pool)
    with pytest.raises(StateDirectoryError, match="there already"):
        LocalPool.create(bench.database, "M", Path("left"), 64 * PAGE, PAGE)
    v = pool.apply([Create("v", PAGE)])[0].id
    write(pool, v, 0, b"v")
    pool.flush()
    with bench.database.transaction() as connection:  # as if the database had been lost
        connection.execute(tables.pools.images.delete())
        connection.execute(tables.pools.pools.delete())
    for path in (Path("left"), bench.directory / "left"):
        with pytest.raises(StateDirectoryError, match="there already"):
            LocalPool.create(bench.database, "M", path, 64 * PAGE, PAGE)
    assert os.pread(pool.store.descriptor, 1, pool.table.page_at(pool.by_id[v].nodes, 0) * PAGE) == b"v"
    bench.pools.remove(pool)
    pool.store.close()
    pool._closing.set()


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
        with pytest.raises(StateDirectoryError, match="there already"):
            LocalPool.create(bench.database, "M", Path("text"), 64 * PAGE, PAGE)


def damage_file(bench: Bench, change: Callable[[bytearray], object]) -> None:
    path = bench.directory / "pool-A.data"
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


DAMAGED: list[tuple[str, Callable[[Bench], object], str]] = [
    ("the data file is gone", lambda b: (b.directory / "pool-A.data").unlink(), "cannot be opened"),
    ("the data file is cut", lambda b: os.truncate(b.directory / "pool-A.data", 10 * PAGE), "cut off"),
    ("the data file is empty", lambda b: os.truncate(b.directory / "pool-A.data", 0), "cut off"),
    ("another file", lambda b: damage_file(b, lambda d: d.__setitem__(slice(0, 4), b"GIF8")), "header"),
    ("another pool", lambda b: damage_file(b, lambda d: d.__setitem__(20, d[20] ^ 1)), "another pool"),
    ("another page size", lambda b: damage_file(b, lambda d: d.__setitem__(33, 0x20)), "database says"),
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
