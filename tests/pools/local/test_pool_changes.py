"""Changes to images: what they do, what is refused, and what a commit that fails leaves."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from sqlalchemy import Connection

from offsite import events
from offsite.errors import (
    BadParameter,
    InUse,
    NameInUse,
    PoolFailed,
    VolumeNotFound,
)
from offsite.pools.local import changes
from offsite.pools.local.pool import LocalPool
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
from offsite.replication.records import tables as replication_tables
from tests.pools.backends import write
from tests.pools.pool_bench import PAGE, Bench
from tests.pools.pool_hosts import check_counts, check_free_pages_are_holes, fail, read, state

Volume = Callable[[str, int], int]


# -- images ----


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

    def hold(connection: Connection, _images: object) -> None:
        r = replication_tables
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


# -- a commit that fails ----


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


@pytest.mark.parametrize("change", ["rollback", "shrink", "grow", "delete"])
def test_a_host_waits_for_a_change_that_might_be_taken_back(pool: LocalPool, volume: Volume, change: str) -> None:
    """A write acknowledged on top of a rollback that then fails to commit would be lost; a host told that its
    volume is gone, when it is not, would have failed for nothing."""
    v, w = volume("v", 8), volume("w", 8)
    write(pool, v, 0, b"v" * 8 * PAGE)
    made: dict[str, Change] = {
        "rollback": Replace(v, w),
        "shrink": Resize(v, 4 * PAGE),
        "grow": Resize(v, 16 * PAGE),
        "delete": Delete(v),
    }
    opened, other, done = pool.open(v), pool.open(w), threading.Event()

    def host() -> None:
        opened.begin()
        opened.write(PAGE, memoryview(b"h" * 100))
        opened.end()
        done.set()

    thread = threading.Thread(target=host)

    def records(_connection: Connection, _images: object) -> None:
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

    def records(_connection: Connection, _images: object) -> None:
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

    def records(_connection: Connection, _images: object) -> None:
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
