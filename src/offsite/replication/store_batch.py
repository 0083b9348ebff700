"""Writing a batch into images, and making sure that what is stored is what was sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from offsite.errors import DigestMismatch
from offsite.pools.protocol import OpenImage
from offsite.replication.batches import DATA, DATA_BYTES_MAX, HOLE, ZERO, Arrived, digest_of
from offsite.replication.reading import read


class BatchStore:
    """Stores batches in the images of one point, one for each member. Belongs to one thread."""

    def __init__(self, images: Sequence[OpenImage]) -> None:
        self._images = images
        self._read_back = memoryview(bytearray(2 * DATA_BYTES_MAX))

    def close(self) -> None:
        for image in self._images:
            image.close()

    def store(self, arrived: Arrived) -> None:
        """Raises PoolFull, OSError, or DigestMismatch, which names the member and the offset. The batch may
        be stored in part then; storing it again is harmless."""
        self._write(arrived)
        self._verify(arrived)

    def _write(self, arrived: Arrived) -> None:
        at = 0
        for member, rows in _by_member(arrived):
            image = self._images[member]
            with _inside(image):
                for offset, length, _, kind in rows:
                    if kind == DATA:
                        image.write(offset, arrived.data[at : at + length])
                        at += length
                    elif kind == ZERO:
                        image.write_zeroes(offset, length)
            for offset, length, _, kind in rows:
                if kind == HOLE:  # long ones take a while: each by itself
                    with _inside(image):
                        image.discard(offset, length)

    def _verify(self, arrived: Arrived) -> None:
        at = 0
        for member, rows in _by_member(arrived):
            image = self._images[member]
            with _inside(image):
                for offset, length, _, kind in rows:
                    if kind == DATA:
                        read(image, offset, self._read_back[at : at + length])
                        at += length
                    else:
                        self._check_zero(image, member, offset, length)
        if digest_of(arrived.extents, self._read_back[:at]) != arrived.batch.digest:
            raise DigestMismatch(self._explain(arrived, self._read_back[:at]))

    def _check_zero(self, image: OpenImage, member: int, offset: int, length: int) -> None:
        scratch = memoryview(bytearray(0))
        for piece, has_data in image.extents(offset, length):
            for at in range(offset, offset + piece if has_data else offset, DATA_BYTES_MAX):
                scratch = scratch or memoryview(bytearray(DATA_BYTES_MAX))
                part = scratch[: min(DATA_BYTES_MAX, offset + piece - at)]
                read(image, at, part)
                found = np.flatnonzero(np.frombuffer(part, np.uint8))
                if len(found):
                    raise DigestMismatch(f"member {member} at offset {at + int(found[0])} is not zero, as it was sent")
            offset += piece

    def _explain(self, arrived: Arrived, stored: memoryview) -> str:
        different = np.flatnonzero(np.frombuffer(stored, np.uint8) != np.frombuffer(arrived.data, np.uint8))
        if not len(different):
            return f"batch {arrived.batch.sequence} arrived with another digest than it was sent with"
        at = int(different[0])
        for offset, length, member, kind in arrived.extents.tolist():
            if kind != DATA:
                continue
            if at < length:
                return f"member {member} at offset {offset + at}: what is stored there is not what was sent"
            at -= length
        raise AssertionError("a difference lies outside of every extent")


def _by_member(arrived: Arrived) -> Iterator[tuple[int, list[tuple[int, int, int, int]]]]:
    """The rows of the table, as (offset, length, member, kind), in stretches of one member."""
    members = arrived.extents["member"]
    edges = (np.flatnonzero(members[1:] != members[:-1]) + 1).tolist()
    for first, last in zip([0, *edges], [*edges, len(members)], strict=True):
        if first < last:
            yield int(members[first]), arrived.extents[first:last].tolist()


@contextmanager
def _inside(image: OpenImage) -> Iterator[None]:
    image.begin()
    try:
        yield
    finally:
        image.end()
