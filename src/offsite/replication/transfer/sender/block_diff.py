"""From the difference of two images to what has to be sent: the 4 KiB blocks that differ.

The pool's difference tells, from the page tables alone, where two images may differ. Here those places are
read, up to 1 MiB at a time, straight into one buffer, and compared whole with numpy: no Python runs for a
single block or byte. What is found goes out as `Changes`; when all that was read has to be sent, the buffer
itself does, without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from offsite.pools.protocol import Extent, ExtentKind, OpenImage, Pool
from offsite.replication.transfer.reading import read
from offsite.replication.wire.batch import (
    BLOCK_BYTES,
    DATA,
    DATA_BYTES_MAX,
    EXTENT,
    EXTENTS_MAX,
    HOLE,
    HOLE_BYTES_MAX,
    ZERO,
    Changes,
    Extents,
)
from offsite.replication.wire.messages import Position

_SILENT_BYTES_MAX = 64 << 20  # scanned without finding anything, before that is told all the same
_EXTENTS_REMEMBERED_MAX = 65536
_NOTHING = 255
_WORDS = BLOCK_BYTES // 8


@dataclass(frozen=True, slots=True)
class MemberDifference:
    """What one member of a set was (None: all hole) and what it is to become. Neither image may be written."""

    old: int | None
    new: int


class Differences:
    """What the members of a set were, what they are to become, and what lies between."""

    def __init__(self, pool: Pool, members: Sequence[MemberDifference]) -> None:
        self._pool = pool
        self._members = members
        self._remembered: dict[tuple[int, int], list[Extent]] = {}

    def find_changes(self, start: Position, end: Position | None = None) -> Iterator[Changes]:
        """All that must be sent from `start` on, or was sent up to `end`, member after member, by rising offset."""
        end = Position(member=len(self._members)) if end is None else end
        for index, first in self._members_from(start):
            if Position(index, first) >= end:
                break
            yield from self._member_changes(index, first, end.offset if index == end.member else None)
        yield Changes(np.empty(0, EXTENT), memoryview(b""), end, 0)

    def estimate_bytes(self, start: Position) -> int:
        """How many bytes of data find_changes will look at, at most."""
        total = 0
        for index, first in self._members_from(start):
            member = self._members[index]
            if member.old is None and first == 0:
                total += self._pool.image(member.new).allocated_bytes
                continue
            extents = self._extents(index, first)
            total += sum(extent.length for extent in extents if extent.kind is not ExtentKind.HOLE)
        return total

    def _members_from(self, start: Position) -> Iterator[tuple[int, int]]:
        """Each member that is not done yet, and the offset that it begins at."""
        for index in range(start.member, len(self._members)):
            yield index, start.offset if index == start.member else 0

    def _extents(self, index: int, first: int) -> Iterator[Extent]:
        """The pool's difference. A short one is remembered: estimating and sending need not both look for it."""
        known = self._remembered.get((index, first))
        if known is not None:
            return iter(known)
        member = self._members[index]
        found = self._pool.difference(member.old, member.new, first)
        ahead = list(islice(found, _EXTENTS_REMEMBERED_MAX + 1))
        if len(ahead) <= _EXTENTS_REMEMBERED_MAX:
            self._remembered[index, first] = ahead
        return chain(ahead, found)

    def _member_changes(self, index: int, first: int, until: int | None) -> Iterator[Changes]:
        member, pool = self._members[index], self._pool
        extents = self._extents(index, first)
        with ExitStack() as opened:
            new = opened.enter_context(closing(pool.open(member.new)))
            old = None if member.old is None else opened.enter_context(closing(pool.open(member.old)))
            scanner = _Scanner(index, new, old)
            silent = 0
            for window in _windows(extents if until is None else _before(extents, until)):
                found = scanner.scan(window)
                silent += found.scanned_bytes
                if len(found.extents) or silent >= _SILENT_BYTES_MAX:
                    yield Changes(found.extents, found.data, found.position, silent)
                    silent = 0
            if silent:
                yield Changes(np.empty(0, EXTENT), memoryview(b""), _end_of(index, until), silent)


def _end_of(index: int, until: int | None) -> Position:
    return Position(index + 1, 0) if until is None else Position(index, until)


def _before(extents: Iterator[Extent], until: int) -> Iterator[Extent]:
    for extent in extents:
        if extent.offset >= until:
            return
        yield Extent(extent.offset, min(extent.length, until - extent.offset), extent.kind)


@dataclass(slots=True)
class _Window:
    """Pieces of a difference that fit one buffer: those with data one behind the other, in whole blocks."""

    pieces: list[Extent]
    holes: list[Extent]
    data_bytes: int
    end: int
    compared: bool  # at least one piece has an old side


def _windows(extents: Iterator[Extent]) -> Iterator[_Window]:
    window = _Window([], [], 0, 0, False)
    for piece in chain.from_iterable(map(_pieces, extents)):
        full = (
            window.data_bytes + piece.length > DATA_BYTES_MAX
            or window.data_bytes % BLOCK_BYTES  # only the last piece of a window may end within a block
            or len(window.pieces) + len(window.holes) >= EXTENTS_MAX // 2
        )
        if full:
            yield window
            window = _Window([], [], 0, 0, False)
        if piece.kind is ExtentKind.HOLE:
            window.holes.append(piece)
        else:
            window.pieces.append(piece)
            window.data_bytes += piece.length
            window.compared |= piece.kind is ExtentKind.CHANGED
        window.end = piece.offset + piece.length
    if window.end:
        yield window


def _pieces(extent: Extent) -> Iterator[Extent]:
    most = HOLE_BYTES_MAX if extent.kind is ExtentKind.HOLE else DATA_BYTES_MAX
    if extent.length <= most:
        yield extent
        return
    end = extent.offset + extent.length
    for offset in range(extent.offset, end, most):
        yield Extent(offset, min(most, end - offset), extent.kind)


class _Scanner:
    """Finds what differs in one window after another of one member."""

    def __init__(self, index: int, new: OpenImage, old: OpenImage | None) -> None:
        self._index = index
        self._new = new
        self._old = old
        # A piece may end within a block, whose rest has to be there to be compared: hence one block more.
        self._new_buffer = np.zeros(DATA_BYTES_MAX + BLOCK_BYTES, np.uint8)
        self._old_buffer = np.zeros(DATA_BYTES_MAX + BLOCK_BYTES if old is not None else 0, np.uint8)
        self._packed = np.zeros((DATA_BYTES_MAX // BLOCK_BYTES + 1, BLOCK_BYTES), np.uint8)

    def scan(self, window: _Window) -> Changes:
        position = Position(self._index, window.end)
        self._read(window)
        blocks = -(-window.data_bytes // BLOCK_BYTES)
        kinds = self._kinds(window, blocks)
        extents = np.concatenate([self._data_extents(window, kinds), self._hole_extents(window)])
        return Changes(extents, self._data(window, kinds), position, window.data_bytes)

    def _read(self, window: _Window) -> None:
        _fill(self._new, window.pieces, self._new_buffer)
        if window.compared:
            assert self._old is not None
            if any(piece.kind is ExtentKind.DATA for piece in window.pieces):
                self._old_buffer.fill(0)  # where there was a hole, what is not zero differs
            _fill(self._old, window.pieces, self._old_buffer, only=ExtentKind.CHANGED)

    def _kinds(self, window: _Window, blocks: int) -> npt.NDArray[np.uint8]:
        """What to do about each block read: DATA to send, ZERO to clear, or _NOTHING."""
        new = self._new_buffer[: blocks * BLOCK_BYTES].view(np.uint64).reshape(blocks, _WORDS)
        data = np.bitwise_or.reduce(new, axis=1) != 0
        if not window.compared:
            return np.where(data, np.uint8(DATA), np.uint8(_NOTHING))
        old = self._old_buffer[: blocks * BLOCK_BYTES].view(np.uint64).reshape(blocks, _WORDS)
        differs = (new != old).any(axis=1)
        return np.where(differs, np.where(data, np.uint8(DATA), np.uint8(ZERO)), np.uint8(_NOTHING))

    def _data_extents(self, window: _Window, kinds: npt.NDArray[np.uint8]) -> Extents:
        """Neighbouring blocks of a kind, joined."""
        if not len(kinds):
            return np.empty(0, EXTENT)
        offsets = _block_offsets(window.pieces)
        joined = (kinds[1:] == kinds[:-1]) & (offsets[1:] == offsets[:-1] + BLOCK_BYTES)
        firsts = np.concatenate([[0], np.flatnonzero(~joined) + 1])
        counts = np.diff(np.concatenate([firsts, [len(kinds)]]))
        extents = np.empty(len(firsts), EXTENT)
        extents["offset"] = offsets[firsts]
        extents["length"] = counts * BLOCK_BYTES
        extents["member"] = self._index
        extents["kind"] = kinds[firsts]
        extents["length"][-1] -= -window.data_bytes % BLOCK_BYTES
        wanted: Extents = extents[extents["kind"] != _NOTHING]
        return wanted

    def _hole_extents(self, window: _Window) -> Extents:
        rows = [(hole.offset, hole.length, self._index, HOLE) for hole in window.holes]
        return np.array(rows, EXTENT)

    def _data(self, window: _Window, kinds: npt.NDArray[np.uint8]) -> memoryview:
        """The blocks to send, one behind the other."""
        chosen = kinds == DATA
        count = int(np.count_nonzero(chosen))
        length = count * BLOCK_BYTES
        if count and chosen[-1]:
            length -= -window.data_bytes % BLOCK_BYTES
        if count == len(kinds):
            return self._new_buffer.data[:length]
        blocks = self._new_buffer[: len(kinds) * BLOCK_BYTES].reshape(len(kinds), BLOCK_BYTES)
        np.compress(chosen, blocks, axis=0, out=self._packed[:count])
        return self._packed.reshape(-1).data[:length]


def _fill(
    image: OpenImage, pieces: Sequence[Extent], buffer: npt.NDArray[np.uint8], only: ExtentKind | None = None
) -> None:
    """Reads pieces (those of one kind) to where they lie in the buffer; zeroes follow one that ends in a block."""
    view = buffer.data
    at = 0
    image.begin()
    try:
        for piece in pieces:
            end = at + piece.length
            if only is None or piece.kind is only:
                read(image, piece.offset, view[at:end])
            at = end
    finally:
        image.end()
    buffer[at : at + -at % BLOCK_BYTES] = 0


def _block_offsets(pieces: Sequence[Extent]) -> npt.NDArray[np.int64]:
    """Where each block in the buffer lies in the image."""
    offsets = np.array([piece.offset for piece in pieces], np.int64)
    counts = np.array([-(-piece.length // BLOCK_BYTES) for piece in pieces], np.int64)
    firsts = np.cumsum(counts) - counts
    return np.repeat(offsets - firsts * BLOCK_BYTES, counts) + np.arange(int(counts.sum())) * BLOCK_BYTES
