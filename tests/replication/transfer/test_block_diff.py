"""What has to be sent: all that differs, nothing else, from any position on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Clone, Create, Delete, Extent, ImageInfo, OpenImage, Pool
from offsite.replication.transfer.sender.block_diff import Differences, MemberDifference
from offsite.replication.wire.batch import DATA, HOLE, Changes
from offsite.replication.wire.messages import START, Position
from offsite.store.database import Database
from tests.pools.memory_pool import MemoryDisk, MemoryPool
from tests.replication.sites import random_bytes

MIB = 1 << 20
SIZE = 3 * MIB + 12288 + 512  # three buffers, then a page that ends within a block


@pytest.fixture(scope="module", params=["memory", "local"])
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    directory = tmp_path_factory.mktemp("pool")
    database = Database(directory / "state.db")
    made: Pool = (
        MemoryPool(database, "A", MemoryDisk())
        if request.param == "memory"
        else LocalPool.create(database, "A", Path("pool-A.data"), 64 * MIB)
    )
    yield made
    made.close()
    database.close()


def make(pool: Pool, changes: list[Create] | list[Clone]) -> list[ImageInfo]:
    """New images; those that a test before has left go first, all but the ones to be cloned."""
    sources = {change.source for change in changes if isinstance(change, Clone)}
    pool.apply([Delete(image.id) for image in pool.images() if image.id not in sources])
    return pool.apply(changes)


Write = tuple[str, int, int]
writes = st.lists(
    st.tuples(
        st.sampled_from(["data", "zero", "discard"]),
        st.integers(0, SIZE - 1),
        st.sampled_from([1, 512, 4096, 5000, 16384, 100_000, MIB]),
    ),
    max_size=12,
)


def write(image: OpenImage, changes: list[Write], seed: int) -> None:
    for number, (kind, offset, length) in enumerate(changes):
        length = min(length, SIZE - offset)
        image.begin()
        if kind == "data":
            image.write(offset, memoryview(random_bytes(length, seed + number)))
        elif kind == "zero":
            image.write(offset, memoryview(bytes(length)))
        else:
            image.discard(offset, length)
        image.end()


def content(pool: Pool, image_id: int) -> bytearray:
    image = pool.open(image_id)
    buffer = bytearray(image.size_bytes)
    image.begin()
    image.read(0, memoryview(buffer))
    image.end()
    image.close()
    return buffer


def put(changes: Changes, to: bytearray) -> None:
    at = 0
    for offset, length, _, kind in changes.extents.tolist():
        if kind == DATA:
            to[offset : offset + length] = changes.data[at : at + length]
            at += length
        else:
            to[offset : offset + length] = bytes(length)
    assert at == len(changes.data)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=writes, after=writes, cut=st.floats(0, 1))
def test_what_is_sent_makes_the_old_image_the_new_one(
    pool: Pool, before: list[Write], after: list[Write], cut: float
) -> None:
    """Also when the first part went over another connection, and the position was only remembered."""
    (old,) = make(pool, [Create("old", SIZE)])
    write(pool.open(old.id), before, 1000)
    (new,) = make(pool, [Clone(old.id, "new")])
    write(pool.open(new.id), after, 2000)
    members = [MemberDifference(old.id, new.id)]
    result, wanted = content(pool, old.id), content(pool, new.id)
    differing = sum(result[at : at + 4096] != wanted[at : at + 4096] for at in range(0, SIZE, 4096))

    position, sent_blocks = START, 0
    for changes in Differences(pool, members).find_changes(START):
        put(changes, result)
        assert changes.position >= position
        position = changes.position
        sent_blocks += -(-len(changes.data) // 4096)
        if position.offset > cut * SIZE:
            break
    for changes in Differences(pool, members).find_changes(position):
        put(changes, result)
        sent_blocks += -(-len(changes.data) // 4096)
    assert result == wanted
    assert sent_blocks <= differing


def test_zero_blocks_of_a_new_image_are_never_sent(pool: Pool) -> None:
    (new,) = make(pool, [Create("new", SIZE)])
    image = pool.open(new.id)
    image.begin()
    image.write(0, memoryview(bytes(MIB)))
    image.write(MIB, memoryview(random_bytes(4096)))
    image.end()
    found = list(Differences(pool, [MemberDifference(None, new.id)]).find_changes(START))
    assert sum(len(changes.data) for changes in found) == 4096
    assert [row[:2] for changes in found for row in changes.extents.tolist()] == [(MIB, 4096)]


def test_a_discard_is_sent_as_a_hole_without_its_bytes(pool: Pool) -> None:
    (old,) = make(pool, [Create("old", SIZE)])
    write(pool.open(old.id), [("data", 0, MIB)], 1)
    (new,) = make(pool, [Clone(old.id, "new")])
    write(pool.open(new.id), [("discard", 65536, 131072)], 1)
    found = list(Differences(pool, [MemberDifference(old.id, new.id)]).find_changes(START))
    rows = [row for changes in found for row in changes.extents.tolist()]
    assert rows == [(65536, 131072, 0, HOLE)]
    assert sum(len(changes.data) for changes in found) == 0


def test_members_are_sent_one_after_the_other(pool: Pool) -> None:
    infos = make(pool, [Create("one", MIB), Create("two", MIB)])
    for info in infos:
        write(pool.open(info.id), [("data", 4096, 4096)], info.id)
    members = [MemberDifference(None, info.id) for info in infos]
    found = list(Differences(pool, members).find_changes(START))
    rows = [row for changes in found for row in changes.extents.tolist()]
    assert [(row[0], row[2]) for row in rows] == [(4096, 0), (4096, 1)]
    assert found[-1].position == Position(2, 0)
    later = list(Differences(pool, members).find_changes(Position(1, 0)))
    assert [row[2] for changes in later for row in changes.extents.tolist()] == [1]


def test_a_long_stretch_without_differences_still_tells_how_far_it_is(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the other side would think that we are gone, and a cut would lose all of it."""
    monkeypatch.setattr("offsite.replication.transfer.sender.block_diff._SILENT_BYTES_MAX", MIB)
    (old,) = make(pool, [Create("old", SIZE)])
    write(pool.open(old.id), [("data", 0, MIB), ("data", MIB, MIB), ("data", 2 * MIB, MIB)], 1)
    (new,) = make(pool, [Clone(old.id, "new")])
    same = content(pool, old.id)
    image = pool.open(new.id)
    for at in range(0, SIZE, MIB):  # written again with what was there: other pages, equal content
        image.begin()
        image.write(at, memoryview(same)[at : at + MIB])
        image.end()
    found = list(Differences(pool, [MemberDifference(old.id, new.id)]).find_changes(START))
    assert [len(changes.extents) for changes in found] == [0] * len(found)
    assert [changes.position.offset for changes in found][:3] == [MIB, 2 * MIB, 3 * MIB]
    estimate = Differences(pool, [MemberDifference(old.id, new.id)]).estimate_bytes(START)
    assert sum(changes.scanned_bytes for changes in found) == estimate


def test_a_difference_that_was_estimated_is_not_sought_again(pool: Pool) -> None:
    """In 1 TiB it takes tens of milliseconds, which a run would spend twice."""
    (new,) = make(pool, [Create("new", SIZE)])
    sought = []

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(pool, name)

        def difference(self, old: int | None, new: int, start: int = 0) -> Iterator[Extent]:
            sought.append((old, new, start))
            return pool.difference(old, new, start)

    differences = Differences(cast(Pool, Counting()), [MemberDifference(new.id, new.id)])
    differences.estimate_bytes(START)
    assert len(list(differences.find_changes(START))) == 1
    assert sought == [(new.id, new.id, 0)]


def test_the_estimate_counts_what_is_left(pool: Pool) -> None:
    infos = make(pool, [Create("one", SIZE), Create("two", SIZE)])
    for info in infos:
        write(pool.open(info.id), [("data", 0, MIB)], 1)
    members = [MemberDifference(None, info.id) for info in infos]
    assert Differences(pool, members).estimate_bytes(START) == 2 * MIB
    assert Differences(pool, members).estimate_bytes(Position(0, MIB // 2)) == MIB + MIB // 2
    assert Differences(pool, members).estimate_bytes(Position(1, 0)) == MIB


def test_a_scattered_difference_is_sent_in_blocks_that_are_joined_where_they_touch(pool: Pool) -> None:
    (old,) = make(pool, [Create("old", SIZE)])
    write(pool.open(old.id), [("data", 0, MIB)], 1)
    (new,) = make(pool, [Clone(old.id, "new")])
    for block in (3, 4, 9, 200):
        write(pool.open(new.id), [("data", block * 4096, 4096)], 50 + block)
    found = list(Differences(pool, [MemberDifference(old.id, new.id)]).find_changes(START))
    rows = np.concatenate([changes.extents for changes in found]).tolist()
    assert [row[:2] for row in rows] == [(3 * 4096, 8192), (9 * 4096, 4096), (200 * 4096, 4096)]
