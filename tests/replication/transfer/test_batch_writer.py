"""Storing a batch: what is stored is what was sent, or it is said where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from offsite.errors import DigestMismatch
from offsite.pools.protocol import Create, OpenImage
from offsite.replication.transfer.receiver.batch_writer import BatchWriter
from offsite.replication.wire.batch import DATA, EXTENT, HOLE, ZERO, Arrived, digest_of
from offsite.replication.wire.messages import Batch, Position
from offsite.store.database import Database
from tests.pools.memory_pool import MemoryDisk, MemoryPool
from tests.replication.faulty_pools import WrappedImage
from tests.replication.sites import random_bytes

MIB = 1 << 20


@pytest.fixture
def images(tmp_path: Path) -> Iterator[list[OpenImage]]:
    """Two members of 4 MiB, all written."""
    database = Database(tmp_path / "state.db")
    pool = MemoryPool(database, "A", MemoryDisk())
    created = pool.apply([Create("one", 4 * MIB), Create("two", 4 * MIB)])
    opened: list[OpenImage] = [pool.open(info.id) for info in created]
    for image in opened:
        image.write(0, memoryview(random_bytes(4 * MIB)))
    yield opened
    database.close()


def arrived(*rows: tuple[int, int, int, int], data: bytes = b"", digest: bytes | None = None) -> Arrived:
    extents = np.array(list(rows), EXTENT)
    batch = Batch(
        sequence=3,
        position=Position(0, 0),
        extents=len(rows),
        data_bytes=len(data),
        compression=0,
        digest=digest or digest_of(extents, memoryview(data)),
    )
    return Arrived(batch, extents, memoryview(data))


def content(image: OpenImage, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    image.read(offset, memoryview(buffer))
    return bytes(buffer)


def test_data_zeros_and_holes_of_several_members(images: list[OpenImage]) -> None:
    data = random_bytes(12288, 5)
    store = BatchWriter(images)
    store.store(
        arrived(
            (4096, 8192, 0, DATA),
            (65536, 4096, 0, ZERO),
            (MIB, 2 * MIB, 0, HOLE),
            (0, 4096, 1, DATA),
            (4 * MIB - 4096, 4096, 1, ZERO),
            data=data,
        )
    )
    one, two = images
    assert content(one, 4096, 8192) == data[:8192]
    assert content(one, 65536, 4096) == bytes(4096)
    assert list(one.extents(MIB, 2 * MIB)) == [(2 * MIB, False)]
    assert content(two, 0, 4096) == data[8192:]
    assert content(two, 4 * MIB - 4096, 4096) == bytes(4096)
    store.close()


def test_a_hole_is_zero_also_where_a_discard_would_leave_an_end(images: list[OpenImage]) -> None:
    """A discard ends well on a full disk, with what is left as it was: that would be told as damage."""

    class Leaving(WrappedImage):
        def discard(self, offset: int, length: int) -> None:
            """There is no space for the zeros."""

    store = BatchWriter([Leaving(images[0], lambda _offset, data: data)])
    store.store(arrived((4096, 8192, 0, HOLE)))
    assert content(images[0], 4096, 8192) == bytes(8192)
    store.close()


def test_an_empty_batch_is_one_too(images: list[OpenImage]) -> None:
    BatchWriter(images).store(arrived())


def faulty(image: OpenImage, on_write: Callable[[int, memoryview], memoryview]) -> OpenImage:
    return WrappedImage(image, on_write)


def test_a_flipped_bit_is_found_at_its_place(images: list[OpenImage]) -> None:
    def flip(offset: int, data: memoryview) -> memoryview:
        damaged = bytearray(data)
        if offset == 65536:
            damaged[77] ^= 1
        return memoryview(damaged)

    store = BatchWriter([images[0], faulty(images[1], flip)])
    with pytest.raises(DigestMismatch, match=f"member 1 at offset {65536 + 77}: the stored data differ"):
        store.store(
            arrived(
                (0, 4096, 0, DATA),
                (0, 4096, 1, DATA),
                (9000, 10, 1, ZERO),
                (65536, 4096, 1, DATA),
                data=random_bytes(12288),
            )
        )


@pytest.mark.parametrize("kind", [ZERO, HOLE])
def test_zeros_that_did_not_get_there_are_found(
    images: list[OpenImage], kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.pools.memory_pool.MemoryOpenImage.write_zeroes", lambda *_arguments: None)
    first = next(at for at in range(MIB + 5, 2 * MIB) if content(images[0], at, 1) != b"\0")
    with pytest.raises(DigestMismatch, match=f"member 0 at offset {first} is not zero"):
        BatchWriter(images).store(arrived((MIB + 5, 2 * MIB, 0, kind)))


def test_a_batch_damaged_on_its_way_is_told_from_a_damaged_disk(images: list[OpenImage]) -> None:
    with pytest.raises(DigestMismatch, match="batch 3 does not match the digest"):
        BatchWriter(images).store(arrived((0, 4096, 0, DATA), data=random_bytes(4096), digest=bytes(16)))


def test_what_was_stored_is_compared_later(images: list[OpenImage]) -> None:
    store = BatchWriter(images)
    data = random_bytes(8192, 5)
    stored = arrived((4096, 4096, 1, DATA), (9 * 4096, 4096, 1, ZERO), (65536, 4096, 1, DATA), data=data)
    store.store(stored)
    later = Arrived(stored.batch, stored.extents, memoryview(b""))
    store.compare(later)
    images[1].write(9 * 4096 + 5, memoryview(b"!"))
    with pytest.raises(DigestMismatch, match=f"member 1 at offset {9 * 4096 + 5} is not zero"):
        store.compare(later)
    store.store(stored)
    images[1].write(65536 + 4095, memoryview(bytes([data[-1] ^ 1])))
    with pytest.raises(
        DigestMismatch, match=f"member 1 between offset 4096 and {65536 + 4096}: the stored data differ"
    ):
        store.compare(later)


def test_a_comparison_of_nothing_with_a_digest_of_something_is_told(images: list[OpenImage]) -> None:
    with pytest.raises(DigestMismatch, match="batch 3, which is empty"):
        BatchWriter(images).compare(arrived(digest=bytes(16)))
