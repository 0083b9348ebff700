"""Batches: what arrives is checked before anything is written, and compression steps aside."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard

from offsite.errors import ProtocolError
from offsite.replication.wire import compression
from offsite.replication.wire.batch import DATA, EXTENT, HOLE, HOLE_BYTES_MAX, ZERO, Extents, digest_of, unpack
from offsite.replication.wire.compression import Compressor
from offsite.replication.wire.messages import Batch, Position
from tests.replication.sites import random_bytes

MIB = 1 << 20


def table(*rows: tuple[int, int, int, int]) -> Extents:
    return np.array(list(rows), EXTENT)


def packed(
    extents: Extents, data: bytes, *, compressed: bytes | None = None, data_bytes: int | None = None
) -> tuple[Batch, memoryview]:
    batch = Batch(
        sequence=7,
        position=Position(0, 0),
        extents=len(extents),
        data_bytes=len(data) if data_bytes is None else data_bytes,
        compression=0 if compressed is None else 1,
        digest=digest_of(extents, memoryview(data)),
    )
    return batch, memoryview(extents.tobytes() + (data if compressed is None else compressed))


def test_a_batch_comes_back_as_it_was_packed() -> None:
    extents = table((0, 4096, 0, DATA), (8192, 4096, 0, ZERO), (1 << 40, 1 << 30, 1, HOLE))
    data = random_bytes(4096)
    arrived = unpack(*packed(extents, data), [1 << 20, 2 << 40])
    assert np.array_equal(arrived.extents, extents)
    assert bytes(arrived.data) == data


def test_compressed_data_comes_back() -> None:
    extents = table((0, 8192, 0, DATA))
    data = b"abcd" * 2048
    arrived = unpack(*packed(extents, data, compressed=zstandard.compress(data)), [MIB])
    assert bytes(arrived.data) == data


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ((0, 4096, 1, DATA), "member"),
        ((0, 4096, 0, 3), "kind"),
        ((MIB - 4095, 4096, 0, DATA), "past its member's end"),
        ((MIB + 1, 4096, 0, DATA), "past its member's end"),
        ((2**64 - 1, 4096, 0, DATA), "past its member's end"),
        ((0, 0, 0, ZERO), "empty"),
        ((0, 8192, 0, DATA), "the extents have 8192"),
    ],
)
def test_an_extent_outside_of_its_member_is_refused(row: tuple[int, int, int, int], rule: str) -> None:
    with pytest.raises(ProtocolError, match=rule):
        unpack(*packed(table(row), bytes(4096)), [MIB])


def test_a_hole_too_long_for_one_step_is_refused() -> None:
    with pytest.raises(ProtocolError, match="too long"):
        unpack(*packed(table((0, HOLE_BYTES_MAX + 1, 0, HOLE)), b""), [1 << 40])


def test_a_payload_shorter_than_its_table_is_refused() -> None:
    batch, payload = packed(table((0, 4096, 0, ZERO)), b"")
    with pytest.raises(ProtocolError, match="are too short for 1 extents"):
        unpack(batch, payload[:15], [MIB])


def test_a_position_beyond_the_last_member_is_refused() -> None:
    batch = Batch(sequence=0, position=Position(2, 0), extents=0, data_bytes=0, compression=0, digest=bytes(16))
    with pytest.raises(ProtocolError, match="beyond the end"):
        unpack(batch, memoryview(b""), [MIB])


def test_data_of_another_length_than_said_is_refused() -> None:
    batch, payload = packed(table((0, 4096, 0, DATA)), bytes(4096))
    with pytest.raises(ProtocolError, match="4095 bytes of data instead of 4096"):
        unpack(batch, payload[:-1], [MIB])


def test_a_compression_bomb_is_refused_before_memory_is_taken() -> None:
    bomb = zstandard.compress(bytes(64 * MIB))
    with pytest.raises(ProtocolError, match="another size"):
        unpack(*packed(table((0, 4096, 0, DATA)), bytes(4096), compressed=bomb), [MIB])


@pytest.mark.parametrize("junk", [b"junk that is no zstd frame", b"", zstandard.compress(bytes(4096))[:-2]])
def test_data_that_cannot_be_decompressed_is_refused(junk: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(*packed(table((0, 4096, 0, DATA)), bytes(4096), compressed=junk), [MIB])


def test_the_digest_covers_the_table_too() -> None:
    data = memoryview(bytes(4096))
    assert digest_of(table((0, 4096, 0, DATA)), data) != digest_of(table((4096, 4096, 0, DATA)), data)


def test_what_shrinks_is_compressed() -> None:
    how, data = Compressor().compress(memoryview(b"the same line again\n" * 10000))
    assert how == compression.ZSTD
    assert len(data) < 10000


def test_what_does_not_shrink_is_left_alone_and_soon_not_even_looked_at() -> None:
    compressor = Compressor()
    noise, text = memoryview(random_bytes(MIB)), memoryview(b"text" * (MIB // 4))
    for _ in range(200):
        assert compressor.compress(noise) == (compression.NONE, noise)
    turns = next(n for n in range(100) if compressor.compress(text)[0] == compression.ZSTD)
    assert 1 < turns <= 64, "it looks seldom, but it does look again"


def test_a_sample_that_deceives_does_not_make_data_larger() -> None:
    """The blocks that are looked at shrink, all others do not."""
    data = bytearray(random_bytes(MIB))
    for block in range(0, 256, 32):
        data[block * 4096 : block * 4096 + 4096] = bytes(4096)
    how, sent = Compressor().compress(memoryview(data))
    assert (how, len(sent)) == (compression.NONE, MIB)


def test_a_few_bytes_are_not_worth_it() -> None:
    assert Compressor().compress(memoryview(bytes(100)))[0] == compression.NONE


def test_a_comparison_has_no_data() -> None:
    extents = table((0, 4096, 0, DATA))
    digest = digest_of(extents, memoryview(bytes(4096)))
    batch = Batch(
        sequence=0, position=Position(1, 0), extents=1, data_bytes=4096, compression=0, digest=digest, compares=True
    )
    payload = memoryview(extents.tobytes())
    assert len(unpack(batch, payload, [8192]).data) == 0
    with pytest.raises(ProtocolError, match="is only for comparison, but has 4 bytes of data"):
        unpack(batch, memoryview(bytes(payload) + b"data"), [8192])
