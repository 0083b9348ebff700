"""A batch: some extents of a point with their data, packed for the wire and checked on arrival. No I/O here.

The payload of a batch is its table of extents, 16 bytes each, and then the data of its data extents, in the
order of the table, compressed if that paid. The digest is xxh3_128 over the table and the uncompressed data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash
import zstandard

from offsite.errors import BadParameter, ProtocolError
from offsite.replication.wire.messages import Batch, Position

BLOCK_BYTES = 4096  # what changed is found and sent in blocks of this size
DATA_BYTES_MAX = 1 << 20
EXTENTS_MAX = 4096
HOLE_BYTES_MAX = 1 << 30  # a longer hole is sent as several, so that giving it back never takes long

DATA, ZERO, HOLE = 0, 1, 2

EXTENT = np.dtype([("offset", "<u8"), ("length", "<u4"), ("member", "<u2"), ("kind", "<u2")])
Extents = npt.NDArray[np.void]

DIGEST_START = bytes(16)


@dataclass(frozen=True, slots=True)
class Changes:
    """Extents to be sent, before they are a batch. `data` is only valid until the next one is asked for."""

    extents: Extents
    data: memoryview
    position: Position  # how far the point is sent once these are
    scanned_bytes: int  # how much of the difference was looked at to find them


@dataclass(frozen=True, slots=True)
class Arrived:
    """A batch that arrived and was found well formed."""

    batch: Batch
    extents: Extents
    data: memoryview


def digest_of(extents: Extents, data: memoryview) -> bytes:
    state = xxhash.xxh3_128(extents.tobytes())
    state.update(data)
    return state.digest()


def chain(digest: bytes, batch_digest: bytes) -> bytes:
    """The digest of all batches up to one, from that of all before it."""
    return xxhash.xxh3_128(digest + batch_digest).digest()


def check_position(position: Position, sizes_bytes: Sequence[int], what: str) -> None:
    """Raises ProtocolError unless it lies within the point, or is its end: what is put on record as filled up to
    somewhere else would never be at its end."""
    end = Position(len(sizes_bytes), 0)
    if position > end or (position < end and position.offset > sizes_bytes[position.member]):
        raise ProtocolError(f"{what}: position {position} is beyond the end of its member, or of the last one")


def unpack(batch: Batch, payload: memoryview, sizes_bytes: Sequence[int]) -> Arrived:
    """Table and data of a batch. Raises ProtocolError unless every extent lies within its member, of the sizes
    given, and the data is as long as the extents say. The digest is not checked here: what counts is that of
    what is stored."""
    table_bytes = batch.extents * EXTENT.itemsize
    if len(payload) < table_bytes:
        raise ProtocolError(f"batch {batch.sequence}: {len(payload)} bytes are too short for {batch.extents} extents")
    extents = np.frombuffer(payload[:table_bytes], EXTENT)
    _check_extents(batch, extents, sizes_bytes)
    if not batch.compares:
        return Arrived(batch, extents, _data(batch, payload[table_bytes:]))
    if len(payload) > table_bytes:
        raise ProtocolError(
            f"batch {batch.sequence} is only for comparison, but has {len(payload) - table_bytes} bytes of data"
        )
    return Arrived(batch, extents, payload[table_bytes:])


def _check_extents(batch: Batch, extents: Extents, sizes_bytes: Sequence[int]) -> None:
    check_position(batch.position, sizes_bytes, f"batch {batch.sequence}")
    if np.any(extents["member"] >= len(sizes_bytes)) or np.any(extents["kind"] > HOLE):
        raise ProtocolError(f"batch {batch.sequence}: an extent of a member or kind that does not exist")
    length = extents["length"].astype(np.uint64)
    size = np.asarray(sizes_bytes, np.uint64)[extents["member"]]
    outside = (extents["offset"] > size) | (length > size - np.minimum(extents["offset"], size))
    if np.any(outside | (length == 0) | (length > HOLE_BYTES_MAX)):
        raise ProtocolError(f"batch {batch.sequence}: an extent is empty, too long, or past its member's end")
    said = int(length[extents["kind"] == DATA].sum())
    if said != batch.data_bytes:
        raise ProtocolError(
            f"batch {batch.sequence}: the extents have {said} bytes of data, but the batch {batch.data_bytes}"
        )


def _data(batch: Batch, packed: memoryview) -> memoryview:
    if batch.compression == 0:
        if len(packed) != batch.data_bytes:
            raise ProtocolError(f"batch {batch.sequence}: {len(packed)} bytes of data instead of {batch.data_bytes}")
        return packed
    try:
        # The frame's own idea of its size is what would be allocated: so it has to be the batch's, too.
        if zstandard.frame_content_size(packed) != batch.data_bytes:
            raise ProtocolError(f"batch {batch.sequence}: the compressed data have another size than announced")
        return memoryview(zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise ProtocolError(f"batch {batch.sequence}: the data cannot be decompressed: {error}") from error


def check_sizes(sizes_bytes: Sequence[int]) -> None:
    """Raises BadParameter for a size that no user could have given to a volume."""
    for size_bytes in sizes_bytes:
        if size_bytes % BLOCK_BYTES:
            raise BadParameter(f"a volume of {size_bytes} bytes: sizes are multiples of {BLOCK_BYTES}")
