"""What a pool is, whatever its backend: each of these holds for all of them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Connection, insert, select

from offsite.errors import BadParameter, InUse, NameInUse, OffsiteError, PoolFull, VolumeNotFound
from offsite.pools import pool_rows
from offsite.pools.groups import Groups
from offsite.pools.health import Health
from offsite.pools.protocol import (
    Change,
    Clone,
    Create,
    Delete,
    ExtentKind,
    ImageInfo,
    Pool,
    Rename,
    Replace,
    Resize,
    Snapshot,
)
from offsite.pools.retention import priorities, set_priority
from offsite.pools.space import Thresholds
from offsite.store.tables import system
from tests.pools.backends import KINDS, UNIT, World, content, inside, read, state, write

SIZE = 8 * UNIT


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, empty_database: Path) -> Iterator[World]:
    made = World(KINDS[request.param](), tmp_path, empty_database)
    yield made
    made.close()


@pytest.fixture
def pool(world: World) -> Pool:
    return world.create()


def make(pool: Pool, name: str, data: bytes = b"", size: int = SIZE) -> int:
    image_id = pool.apply([Create(name, size)])[0].id
    if data:
        write(pool, image_id, 0, data)
    return image_id


# -- pools -----------------------------------------------------------------------------------------------------


def test_a_pool_is_found_again_with_its_settings_and_images(world: World) -> None:
    pool = world.create(units=256, overcommit=False)
    volume = make(pool, "v", b"data")
    pool.configure(Thresholds(10, 20, 30), overcommit=False)
    before = pool.image(volume), pool.capacity().size_bytes
    again = world.reopen(pool)
    assert (again.id, again.name) == (pool.id, "A")
    assert (again.thresholds, again.overcommit) == (Thresholds(10, 20, 30), False)
    assert (again.image(volume), again.capacity().size_bytes) == before
    assert read(again, volume, 0, 5) == b"data\0"
    assert again.health == (Health.OK, "")


def test_opening_changes_nothing_before_it_begins(world: World) -> None:
    world.create().close()
    world.pools.clear()
    with world.database.read() as connection:
        before = dict(pool_rows.read_pool(connection, "A"))
    opened = world.backend.open(world.database, "A")
    world.pools.append(opened)
    with world.database.read() as connection:
        assert dict(pool_rows.read_pool(connection, "A")) == before
    opened.begin()


def test_two_pools_cannot_have_one_name(world: World, pool: Pool) -> None:
    volume = make(pool, "v", b"data")
    with pytest.raises(NameInUse, match="'A'"):
        world.create("A")
    assert read(pool, volume, 0, 4) == b"data"


def test_a_pool_without_size_or_place_is_refused(world: World) -> None:
    from offsite.pools.backend import NewPool

    with pytest.raises(BadParameter, match="size"):
        world.backend.location(world.database, NewPool("A"))


def test_a_destroyed_pool_is_gone_with_what_it_was_on_and_its_name_is_free(world: World, pool: Pool) -> None:
    volume = make(pool, "v", b"data")
    with pytest.raises(InUse, match="pool A has volumes"):
        world.backend.destroy(world.database, pool.id)
    assert read(pool, volume, 0, 4) == b"data"
    pool.apply([Delete(volume)])
    world.destroy(pool)
    with world.database.read() as connection:
        assert pool_rows.all_pools(connection) == []
    assert world.backend.clear_remains(world.database) == []
    assert world.backend.clear_remains(world.database) == [], "a second time there is nothing"
    new = world.create("A")
    assert new.images() == []
    assert content(new, make(new, "v")) == bytes(SIZE)


def test_the_pool_keeps_its_backend_on_record(world: World, pool: Pool) -> None:
    with world.database.read() as connection:
        assert pool_rows.backend_of(connection, pool.id) == world.backend.name


# -- changes ---------------------------------------------------------------------------------------------------


def test_a_new_image_is_all_hole(pool: Pool) -> None:
    volume = make(pool, "v")
    assert content(pool, volume) == bytes(SIZE)
    with inside(pool, volume) as opened:
        assert list(opened.extents(0, SIZE)) == [(SIZE, False)]
        assert (opened.size_bytes, opened.allocation_bytes) == (SIZE, UNIT)


def test_what_is_written_is_read_at_any_offset(pool: Pool) -> None:
    volume, source = make(pool, "v"), random.Random(4711)
    model = bytearray(SIZE)
    for _ in range(50):
        offset = source.randrange(SIZE)
        length = source.randrange(1, min(3 * UNIT, SIZE - offset) + 1)
        with inside(pool, volume) as opened:
            kind = source.randrange(3)
            if kind == 0:
                data = source.randbytes(length)
                opened.write(offset, memoryview(data))
            elif kind == 1:
                data = bytes(length)
                opened.write_zeroes(offset, length)
            else:
                data = bytes(length)
                opened.discard(offset, length)
            model[offset : offset + length] = data
    assert content(pool, volume) == model


def test_a_snapshot_and_a_clone_never_change(pool: Pool) -> None:
    volume = make(pool, "v", b"first")
    snapshot, clone = (each.id for each in pool.apply([Snapshot(volume, "s"), Clone(volume, "c")]))
    write(pool, volume, 0, b"later" + b"x" * 3 * UNIT)
    assert content(pool, snapshot) == content(pool, clone) == b"first".ljust(SIZE, b"\0")
    assert (pool.image(snapshot).parent_id, pool.image(clone).parent_id) == (volume, None)
    write(pool, snapshot, 0, b"own")
    assert read(pool, volume, 0, 5) == b"later"


def test_a_snapshot_may_show_another_instant_and_parent(pool: Pool) -> None:
    volume, other = make(pool, "v"), make(pool, "w")
    (snapshot,) = pool.apply([Snapshot(volume, "s", kind="internal", parent=other, created_at=7.0)])
    assert (snapshot.kind, snapshot.parent_id, snapshot.created_at) == ("internal", other, 7.0)


def test_later_changes_see_earlier_ones(pool: Pool) -> None:
    volume = make(pool, "v", b"data")
    infos = pool.apply([Clone(volume, "c"), Resize(-1, 2 * UNIT), Rename(-1, "d"), Snapshot(-1, "s"), Delete(volume)])
    assert [each.name for each in infos] == ["d", "d", "d", "s", "v"]
    assert sorted((each.name, each.size_bytes) for each in pool.images()) == [("d", 2 * UNIT), ("s", 2 * UNIT)]
    assert content(pool, infos[3].id) == b"data".ljust(2 * UNIT, b"\0")


def test_replacing_gives_content_and_size(pool: Pool) -> None:
    volume, other = make(pool, "v", b"old"), make(pool, "w", b"new", size=2 * UNIT)
    uuid = pool.image(volume).uuid
    (info,) = pool.apply([Replace(volume, other)])
    assert (info.name, info.uuid, info.size_bytes) == ("v", uuid, 2 * UNIT)
    assert content(pool, volume) == b"new".ljust(2 * UNIT, b"\0")
    write(pool, volume, 0, b"!")
    assert read(pool, other, 0, 3) == b"new"


def test_what_is_cut_off_does_not_come_back(pool: Pool) -> None:
    volume = make(pool, "v", b"x" * SIZE)
    pool.apply([Resize(volume, UNIT + 512)])
    pool.apply([Resize(volume, SIZE)])
    assert content(pool, volume) == (b"x" * (UNIT + 512)).ljust(SIZE, b"\0")


def test_a_deleted_image_is_gone_and_its_snapshots_lose_their_parent(pool: Pool) -> None:
    volume = make(pool, "v", b"data")
    snapshot = pool.apply([Snapshot(volume, "s")])[0].id
    (info,) = pool.apply([Delete(volume)])
    assert (info.id, info.name) == (volume, "v")
    assert pool.image(snapshot).parent_id is None
    assert read(pool, snapshot, 0, 4) == b"data"
    for call in (lambda: pool.image(volume), lambda: pool.open(volume), lambda: pool.apply([Delete(volume)])):
        with pytest.raises(VolumeNotFound):
            call()


def test_who_has_a_deleted_image_open_is_told(pool: Pool) -> None:
    volume = make(pool, "v", b"data")
    opened = pool.open(volume)
    pool.apply([Delete(volume)])
    with pytest.raises(VolumeNotFound):
        opened.begin()
    opened.close()


def test_ids_and_names_are_unique_over_pools(world: World, pool: Pool) -> None:
    other = world.create("B")
    first, second = make(pool, "v"), make(other, "w")
    assert first != second
    Groups(world.database).create("g")
    for name in ("v", "g"):
        for change in (Create(name, SIZE), Rename(second, name), Clone(second, name)):
            with pytest.raises(NameInUse, match=repr(name)):
                other.apply([change])
    assert [each.name for each in other.images()] == ["w"]


REFUSED: list[tuple[Callable[[int], Sequence[Change]], type[OffsiteError]]] = [
    (lambda _: [Create("v", SIZE)], NameInUse),
    (lambda _: [Create("n", 0)], BadParameter),
    (lambda _: [Create("n", UNIT + 1)], BadParameter),
    (lambda _: [Create("n", 1 << 60)], BadParameter),
    (lambda v: [Resize(v, 0)], BadParameter),
    (lambda v: [Snapshot(v, "s"), Rename(v, "s")], NameInUse),
    (lambda v: [Create("n", SIZE), Replace(v, -1), Delete(v), Snapshot(v, "s")], VolumeNotFound),
    (lambda v: [Create("n", SIZE), Delete(-1), Replace(v, -1)], VolumeNotFound),
    (lambda v: [Resize(v, SIZE // 2), Replace(v, 4711)], VolumeNotFound),
    (lambda _: [Delete(4711)], VolumeNotFound),
    (lambda _: [Delete(-1)], BadParameter),
]


@pytest.mark.parametrize(("changes", "error"), REFUSED)
def test_when_a_change_is_refused_nothing_has_changed(
    world: World, pool: Pool, changes: Callable[[int], Sequence[Change]], error: type[OffsiteError]
) -> None:
    volume = make(pool, "v", b"data" * UNIT)
    pool.flush()
    before = state(pool)
    with pytest.raises(error):
        pool.apply(changes(volume))
    assert state(pool) == before
    assert state(world.reopen(pool)) == before


# -- instants --------------------------------------------------------------------------------------------------


def test_changes_wait_for_who_is_inside_and_keep_others_out(pool: Pool) -> None:
    """Of several images: what one thread writes between begin and end is in all snapshots, or in none."""
    first, second = make(pool, "v"), make(pool, "w")
    one, other = pool.open(first), pool.open(second)
    one.begin()
    other.begin()
    one.write(0, memoryview(b"in"))
    taken: list[ImageInfo] = []
    thread = threading.Thread(
        target=lambda: taken.extend(pool.apply([Snapshot(first, "s"), Snapshot(second, "t")])), daemon=True
    )
    thread.start()
    thread.join(0.05)
    assert not taken
    other.write(0, memoryview(b"in"))
    other.end()
    one.end()
    thread.join(10)
    assert [read(pool, each.id, 0, 2) for each in taken] == [b"in", b"in"]
    one.close()
    other.close()


# -- differences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_a_difference_makes_one_image_of_the_other(pool: Pool, seed: int) -> None:
    source = random.Random(seed)
    volume = make(pool, "v", source.randbytes(3 * UNIT))
    old = pool.apply([Snapshot(volume, "old")])[0].id
    for _ in range(6):
        offset = source.randrange(SIZE - UNIT)
        with inside(pool, volume) as opened:
            if source.random() < 0.5:
                opened.write(offset, memoryview(source.randbytes(source.randrange(1, UNIT))))
            else:
                opened.discard(offset, 2 * UNIT if offset < SIZE - 2 * UNIT else UNIT)
    new = pool.apply([Snapshot(volume, "new")])[0].id
    for start, before in ((0, old), (UNIT + 7, old), (0, None)):
        made = bytearray(content(pool, old) if before is not None else bytes(SIZE))
        wanted, at = content(pool, new), start
        for extent in pool.difference(before, new, start):
            assert extent.offset >= at
            at = extent.offset + extent.length
            is_hole = extent.kind is ExtentKind.HOLE
            made[extent.offset : at] = bytes(extent.length) if is_hole else wanted[extent.offset : at]
        assert made[start:] == wanted[start:]
    assert list(pool.difference(new, new)) == []


# -- space -----------------------------------------------------------------------------------------------------


def test_a_full_pool_refuses_the_write_alone_and_takes_it_once_there_is_space(world: World) -> None:
    pool = world.create(units=20)
    volume, other = make(pool, "v", size=64 * UNIT), make(pool, "w", b"other")
    filled = 0
    with pytest.raises(PoolFull):
        for filled in range(64):
            write(pool, volume, filled * UNIT, b"f" * UNIT)
    assert 0 < filled <= 20
    assert content(pool, volume)[: filled * UNIT] == b"f" * filled * UNIT
    assert read(pool, other, 0, 5) == b"other"
    write(pool, volume, 0, b"in place")
    with inside(pool, volume) as opened:
        opened.discard(0, 4 * UNIT)
    pool.flush()
    write(pool, other, UNIT, b"again")


def test_capacity_counts_what_is_in_use_and_promised(pool: Pool) -> None:
    assert pool.capacity().allocated_bytes == pool.capacity().provisioned_bytes == 0
    volume = make(pool, "v", b"x" * 3 * UNIT)
    snapshot = pool.apply([Snapshot(volume, "s")])[0].id
    pool.flush()
    capacity = pool.capacity()
    assert (capacity.allocated_bytes, capacity.provisioned_bytes) == (3 * UNIT, SIZE)
    assert capacity.allocation_bytes == UNIT
    assert capacity.allocated_bytes + capacity.available_bytes <= capacity.size_bytes
    assert pool.image(snapshot).allocated_bytes == 3 * UNIT
    pool.apply([Delete(volume), Delete(snapshot)])
    pool.flush()
    assert (pool.capacity().allocated_bytes, pool.capacity().provisioned_bytes) == (0, 0)


def test_a_pool_without_overcommit_promises_no_more_than_it_has(world: World) -> None:
    pool = world.create(units=64, overcommit=False)
    volume = make(pool, "v", size=32 * UNIT)
    for change in (Create("w", 64 * UNIT), Resize(volume, 128 * UNIT)):
        with pytest.raises(BadParameter, match="does not overcommit"):
            pool.apply([change])
    pool.configure(pool.thresholds, overcommit=True)
    pool.apply([Create("w", 64 * UNIT)])
    with pytest.raises(InUse, match="cannot be disabled"):
        pool.configure(Thresholds(1, 2, 3), overcommit=False)
    assert (pool.thresholds, pool.overcommit) == (Thresholds(), True)


# -- records and crashes ---------------------------------------------------------------------------------------


def note(connection: Connection, name: str) -> None:
    """A record of whoever uses the pool."""
    connection.execute(insert(system).values(id=1, uuid=str(UUID(int=1)), name=name, created_at=0))


def noted(world: World) -> str | None:
    with world.database.read() as connection:
        return connection.execute(select(system.c.name)).scalar()


def test_records_get_the_images_of_the_changes_and_find_their_rows(world: World, pool: Pool) -> None:
    volume, got = make(pool, "v"), list[ImageInfo]()

    def record(connection: Connection, images: Sequence[ImageInfo]) -> None:
        got.extend(images)
        set_priority(connection, images[0].id, "low")  # a row that needs that of the image

    infos = pool.apply([Snapshot(volume, "s"), Rename(volume, "w")], record)
    assert got == infos
    with world.database.read() as connection:
        assert priorities(connection) == {infos[0].id: "low"}
    pool.flush(lambda _, images: got.append(infos[0]) if images else note(_, "flush"))
    assert (got, noted(world)) == (infos, "flush")


def test_images_and_records_change_together_or_not_at_all(world: World, pool: Pool) -> None:
    volume = make(pool, "v", b"data")
    pool.flush()
    before = state(pool)

    def fail(connection: Connection, _images: Sequence[ImageInfo]) -> None:
        note(connection, "lost")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.apply([Snapshot(volume, "s"), Rename(volume, "w"), Resize(volume, UNIT), Create("n", SIZE)], fail)
    with pytest.raises(ZeroDivisionError):
        pool.flush(fail)
    assert (state(pool), noted(world)) == (before, None)
    crashed = world.crashed()
    assert (state(crashed.open()), noted(crashed)) == (before, None)


def test_what_was_flushed_is_there_after_a_crash_with_its_records(world: World, pool: Pool) -> None:
    volume = make(pool, "v", b"flushed")
    pool.flush(lambda connection, _: note(connection, "flushed"))
    crashed = world.crashed()
    assert read(crashed.open(), volume, 0, 7) == b"flushed"
    assert noted(crashed) == "flushed"


def test_what_was_changed_is_there_after_a_crash_with_its_records(world: World, pool: Pool) -> None:
    volume = make(pool, "v", b"data")
    infos = pool.apply(
        [Snapshot(volume, "s"), Clone(volume, "c"), Resize(-2, 2 * UNIT)], lambda connection, _: note(connection, "s")
    )
    crashed = world.crashed()
    again = crashed.open()
    assert {each.name for each in again.images()} == {"v", "s", "c"}
    assert (content(again, infos[1].id), noted(crashed)) == (b"data".ljust(2 * UNIT, b"\0"), "s")
