"""Writing a batch into images, and making sure that what is stored is what was sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from offsite.errors import DigestMismatch
from offsite.pools.protocol import OpenImage
from offsite.replication.transfer.reading import read
from offsite.replication.wire.batch import DATA, DATA_BYTES_MAX, HOLE, ZERO, Arrived, digest_of


class BatchWriter:
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

    def compare(self, arrived: Arrived) -> None:
        """What was stored earlier is read again. Raises OSError, or DigestMismatch, which says where it differs."""
        if self._digest_of_stored(arrived) != arrived.batch.digest:
            raise DigestMismatch(f"{_place(arrived)}: the stored data differ from the sent data")

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
                        image.write_zeroes(offset, length)

    def _verify(self, arrived: Arrived) -> None:
        if self._digest_of_stored(arrived) != arrived.batch.digest:
            raise DigestMismatch(self._explain(arrived, self._read_back[: len(arrived.data)]))

    def _digest_of_stored(self, arrived: Arrived) -> bytes:
        """Raises DigestMismatch where something else than zero is found in what was sent as zeros."""
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
        return digest_of(arrived.extents, self._read_back[:at])

    def _check_zero(self, image: OpenImage, member: int, offset: int, length: int) -> None:
        scratch = memoryview(bytearray(0))
        for piece, has_data in image.extents(offset, length):
            for at in range(offset, offset + piece if has_data else offset, DATA_BYTES_MAX):
                scratch = scratch or memoryview(bytearray(DATA_BYTES_MAX))
                part = scratch[: min(DATA_BYTES_MAX, offset + piece - at)]
                read(image, at, part)
                found = np.flatnonzero(np.frombuffer(part, np.uint8))
                if len(found):
                    raise DigestMismatch(
                        f"member {member} at offset {at + int(found[0])} is not zero, although zeros were sent"
                    )
            offset += piece

    def _explain(self, arrived: Arrived, stored: memoryview) -> str:
        different = np.flatnonzero(np.frombuffer(stored, np.uint8) != np.frombuffer(arrived.data, np.uint8))
        if not len(different):
            return f"batch {arrived.batch.sequence} does not match the digest that it was sent with"
        at = int(different[0])
        for offset, length, member, kind in arrived.extents.tolist():
            if kind != DATA:
                continue
            if at < length:
                return f"member {member} at offset {offset + at}: the stored data differ from the sent data"
            at -= length
        raise AssertionError("a difference lies outside of every extent")


def _by_member(arrived: Arrived) -> Iterator[tuple[int, list[tuple[int, int, int, int]]]]:
    """The rows of the table, as (offset, length, member, kind), in stretches of one member."""
    members = arrived.extents["member"]
    edges = (np.flatnonzero(members[1:] != members[:-1]) + 1).tolist()
    for first, last in zip([0, *edges], [*edges, len(members)], strict=True):
        if first < last:
            yield int(members[first]), arrived.extents[first:last].tolist()


def _place(arrived: Arrived) -> str:
    """Batches are of one member, by rising offset, as this version makes them."""
    if not len(arrived.extents):
        return f"batch {arrived.batch.sequence}, which is empty"
    first, last = arrived.extents[0], arrived.extents[-1]
    until = int(last["offset"]) + int(last["length"])
    return f"member {first['member']} between offset {first['offset']} and {until}"


@contextmanager
def _inside(image: OpenImage) -> Iterator[None]:
    image.begin()
    try:
        yield
    finally:
        image.end()
