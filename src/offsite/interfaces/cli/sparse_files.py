"""Raw image files and block devices, sparse: holes are neither read nor written (SEEK_DATA of lseek(2))."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from offsite.errors import BadParameter, ProtocolError
from offsite.interfaces.encoding import frames
from offsite.units import format_size

_ZEROES = bytes(frames.PIECE_BYTES_MAX)
_BLOCK_BYTES = 64 << 10  # zeroes are looked for in pieces of this

Advance = Callable[[int], None]
"""Told how many bytes were done."""


@contextmanager
def opened(file: Path) -> Iterator[int]:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for a writer
    except OSError as error:
        raise BadParameter(f"{file} cannot be read: {error.strerror}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise BadParameter(f"{file} is neither a file nor a block device")
        yield descriptor
    finally:
        os.close(descriptor)


def data_extents(descriptor: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is not a hole of the file."""
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data after it
                return
            raise
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size_bytes)
        yield start, end - start


def read_frames(
    descriptor: int, extents: Sequence[tuple[int, int]], size_bytes: int, advance: Advance
) -> Iterator[bytes]:
    for offset, length in extents:
        for start in range(offset, offset + length, frames.PIECE_BYTES_MAX):
            data = os.pread(descriptor, min(frames.PIECE_BYTES_MAX, offset + length - start), start)
            for piece_offset, piece in _without_zeroes(start, data):
                yield frames.head(piece_offset, len(piece))
                yield piece
            advance(len(data))
    yield frames.end(size_bytes)


def _without_zeroes(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """The stretches of `data` that are not zero, so that zeroes become holes whether the file has them or not."""
    first: int | None = None
    for start in range(0, len(data), _BLOCK_BYTES):
        block = data[start : start + _BLOCK_BYTES]
        if block == _ZEROES[: len(block)]:
            if first is not None:
                yield offset + first, data[first:start]
            first = None
        elif first is None:
            first = start
    if first is not None:
        yield offset + first, data[first:]


def write_frames(descriptor: int, size_bytes: int, chunks: Iterator[bytes], advance: Advance) -> None:
    """Raises ProtocolError when the transfer was cut."""
    _make_hole(descriptor, size_bytes)
    decoder = frames.Decoder(size_bytes)
    for chunk in chunks:
        for offset, data in decoder.feed(chunk):
            _write_all(descriptor, data, offset)
            advance(len(data))
    if not decoder.complete:
        raise ProtocolError("the export was interrupted; the written file is incomplete")


def _make_hole(descriptor: int, size_bytes: int) -> None:
    """All zero, of this size: a regular file by its length, a block device by its size and zeroes."""
    if os.fstat(descriptor).st_rdev == 0:
        os.ftruncate(descriptor, 0)
        os.ftruncate(descriptor, size_bytes)
        return
    there = os.lseek(descriptor, 0, os.SEEK_END)
    if there < size_bytes:
        raise BadParameter(f"the device has {format_size(there)}, but {format_size(size_bytes)} are required")
    for start in range(0, size_bytes, len(_ZEROES)):
        _write_all(descriptor, memoryview(_ZEROES)[: size_bytes - start], start)


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
