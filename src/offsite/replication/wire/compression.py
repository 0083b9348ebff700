"""Compression of batches that steps aside when it does not pay. No I/O here."""

from __future__ import annotations

import zstandard

from offsite.replication.wire.batch import BLOCK_BYTES

NONE, ZSTD = 0, 1

_LEVEL = 1
_WORTH = 0.9  # of the size before; more than that is not worth the time of both ends
_SAMPLE_BLOCKS = 8
_SKIP_MAX = 64  # batches: how long a stretch of incompressible data may make us blind for what follows


class Compressor:
    """Compresses batch after batch of one run, as long as a sample of each says that it is worth it.

    A sample that does not shrink lets the next batch go uncompressed without a look, the next such one two,
    then four, and so on up to 64: incompressible data costs next to nothing, and data that turns
    compressible is noticed within 64 MiB.
    """

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL)
        self._skip = 0  # batches still to go without a look
        self._penalty = 0

    def compress(self, data: memoryview) -> tuple[int, memoryview]:
        """How `data` goes on the wire: (NONE, data itself) or (ZSTD, compressed)."""
        if self._skip:
            self._skip -= 1
            return NONE, data
        if len(data) < BLOCK_BYTES:
            return NONE, data
        if self._pays(_sample(data)):
            packed = self._zstd.compress(data)
            if len(packed) <= len(data) * _WORTH:
                self._penalty = 0
                return ZSTD, memoryview(packed)
        self._penalty = min(_SKIP_MAX, max(1, self._penalty * 2))
        self._skip = self._penalty
        return NONE, data

    def _pays(self, sample: bytes) -> bool:
        return len(self._zstd.compress(sample)) <= len(sample) * _WORTH


def _sample(data: memoryview) -> bytes:
    """A few blocks from all over `data`."""
    blocks = len(data) // BLOCK_BYTES
    step = max(1, blocks // _SAMPLE_BLOCKS)
    starts = range(0, min(blocks, step * _SAMPLE_BLOCKS) * BLOCK_BYTES, step * BLOCK_BYTES)
    return b"".join(data[start : start + BLOCK_BYTES] for start in starts)
