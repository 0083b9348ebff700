"""The digest of an image's content: equal content, equal digest.

Page size, sharing, and whether zeroes are holes or written make no difference, and what is hole costs no
time. So it is not the plain BLAKE3 of the bytes, which would have to read every zero, but

    BLAKE3( size of the image  ‖  for each chunk of 1 MiB that is not all zero: its index ‖ BLAKE3(chunk) )

with size and index as 64-bit little endian numbers, in hexadecimal. The last chunk may be shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from blake3 import blake3

from offsite.management.images.point_in_time_reader import Frozen

CHUNK_BYTES = 1 << 20
_ZEROES = bytes(CHUNK_BYTES)


def digest(image: Frozen, check: Callable[[], None] = lambda: None) -> str:
    """The digest of what `image` holds: 64 hexadecimal digits.

    `check` is called before each chunk; it may raise to stop.
    """
    whole = blake3(image.size_bytes.to_bytes(8, "little"))
    buffer = bytearray(CHUNK_BYTES)
    for index in _chunks_with_data(image):
        check()
        length = min(CHUNK_BYTES, image.size_bytes - index * CHUNK_BYTES)
        if length < len(buffer):
            buffer = bytearray(length)
        image.read(index * CHUNK_BYTES, memoryview(buffer))
        if buffer != _ZEROES[:length]:
            whole.update(index.to_bytes(8, "little"))
            whole.update(blake3(buffer).digest())
    return whole.hexdigest()


def _chunks_with_data(image: Frozen) -> Iterator[int]:
    """Indexes of the chunks that are not all hole, rising."""
    next_index = 0
    for offset, length in image.data_extents():
        first = max(offset // CHUNK_BYTES, next_index)
        next_index = max(next_index, -(-(offset + length) // CHUNK_BYTES))
        yield from range(first, next_index)
