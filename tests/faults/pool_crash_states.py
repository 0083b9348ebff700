"""The states that a crash may leave of some files, given all that was done to them in order.

A crash may come after any operation. What was synced is there. Of what was not, any subset may be there: each
4 KiB of a write by itself, each truncation, punched hole, new or unlinked name.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.pool_io_trace import Make, Mark, Operation, Punch, Sync, Truncate, Unlink, Write

TEAR_BYTES = 4096
ALL_SUBSETS_UP_TO = 5  # pending units: 32 subsets
SAMPLES = 16
INODE = "#"  # in a name, before how often the name was unlinked

Files = dict[Path, bytearray]


@dataclass
class Disk:
    """Contents, and which of them have a name: a file may be synced before the directory that it is new in."""

    contents: Files
    named: set[Path]

    def copy(self) -> Disk:
        return Disk({file: bytearray(data) for file, data in self.contents.items()}, set(self.named))

    def do(self, operation: Operation) -> None:
        match operation:
            case Make(file):
                self.named.add(file)
            case Unlink(file):
                self.named.discard(file)
                self.contents.pop(file, None)
            case Write(file, offset, data):
                content = self._grown(file, offset)
                content[offset : offset + len(data)] = data
            case Truncate(file, size):
                del self._grown(file, size)[size:]
            case Punch(file, offset, length):
                content = self._grown(file, 0)
                end = min(len(content), offset + length)
                content[offset:end] = bytes(max(0, end - offset))

    def _grown(self, file: Path, size: int) -> bytearray:
        content = self.contents.setdefault(file, bytearray())
        content.extend(bytes(max(0, size - len(content))))
        return content


@dataclass(frozen=True)
class CrashState:
    after: int  # operations
    marks: int  # of those, what the process had said
    durable: Disk
    kept: list[Operation]  # of what was not synced

    def files(self) -> Files:
        disk = self.durable.copy()
        for operation in self.kept:
            disk.do(operation)
        named = sorted(disk.named, key=_inode)  # of two of one name the newer one has it
        return {file.with_name(file.name.partition(INODE)[0]): disk.contents.get(file, bytearray()) for file in named}


def crash_states(start: Files, operations: Sequence[Operation], seed: int) -> Iterator[CrashState]:
    """Each once: a state that comes up again without anything said in between is left out."""
    chance = random.Random(seed)
    durable, pending, marks = Disk(start, set(start)), list[Operation](), 0
    seen: set[tuple[int, ...]] = set()
    for after, operation in enumerate([None, *_by_inode(operations)]):
        match operation:
            case None:
                pass
            case Mark():
                marks += 1
                seen.clear()
                continue
            case Sync(file):
                durable, pending = _synced(file, durable, pending)
                seen.clear()
            case _:
                pending = [*pending, *_units(operation)]
        for kept in _subsets(len(pending), chance):
            state = list(itertools.compress(pending, kept))
            key = tuple(map(id, state))
            if key not in seen:
                seen.add(key)
                yield CrashState(after, marks, durable, state)


def _by_inode(operations: Sequence[Operation]) -> Iterator[Operation]:
    """A file that is made where one was unlinked is another one: a sync of it makes nothing of the old one durable."""
    times_unlinked: dict[Path, int] = {}
    for operation in operations:
        if isinstance(operation, Mark):
            yield operation
            continue
        times = times_unlinked.get(operation.file, 0)
        name = operation.file.name + (f"{INODE}{times}" if times else "")
        yield dataclasses.replace(operation, file=operation.file.with_name(name))
        if isinstance(operation, Unlink):
            times_unlinked[operation.file] = times + 1


def _inode(file: Path) -> int:
    return int(file.name.partition(INODE)[2] or 0)


def _synced(what: Path, durable: Disk, pending: list[Operation]) -> tuple[Disk, list[Operation]]:
    """What is durable and what is still pending after a sync of a file, or of a directory: of names in it."""
    disk = durable.copy()
    left: list[Operation] = []
    for operation in pending:
        assert not isinstance(operation, Sync | Mark)
        is_name = isinstance(operation, Make | Unlink)
        if what == (operation.file.parent if is_name else operation.file):
            disk.do(operation)
        else:
            left.append(operation)
    return disk, left


def _units(operation: Operation) -> Iterator[Operation]:
    if not isinstance(operation, Write):
        yield operation
        return
    at, end = operation.offset, operation.offset + len(operation.data)
    while at < end:
        until = min(end, (at // TEAR_BYTES + 1) * TEAR_BYTES)
        yield Write(operation.file, at, operation.data[at - operation.offset : until - operation.offset])
        at = until


def _subsets(count: int, chance: random.Random) -> Iterator[list[bool]]:
    if count <= ALL_SUBSETS_UP_TO:
        yield from (list(kept) for kept in itertools.product((False, True), repeat=count))
        return
    yield [False] * count
    yield [True] * count
    for _ in range(SAMPLES // 4):
        one = chance.randrange(count)
        yield [at != one for at in range(count)]
        yield [at == one for at in range(count)]
        until = chance.randrange(count)
        yield [at < until for at in range(count)]
    for _ in range(SAMPLES - 3 * (SAMPLES // 4)):
        share = chance.random()
        yield [chance.random() < share for _ in range(count)]
