"""Short lives of a pool, done under strace in one process: `pool_workload.py DIRECTORY live`.

DIRECTORY/workloads.json lists steps for each of the state directories 0, 1, 2 … in it. After each step the number
of it is written to DIRECTORY/marks: what was acknowledged.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offsite.errors import PoolFailed, PoolFull, StateDirectoryError
from offsite.pools.local import tidier
from offsite.pools.local.open_image import LocalOpenImage
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Clone, Create, Delete, Rename, Replace, Resize, Snapshot
from offsite.store.database import Database

PAGE = 4096
Step = list[str | int]


def content(tag: int, length: int) -> bytes:
    """What step `tag` writes: each block tells which step wrote it, and its place."""
    return b"".join(b"%07d:%07d\n" % (tag, at // 16) for at in range(0, length, 16))[:length]


class Life:
    """A pool, and steps that are done to it by the names of images."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.open()

    def open(self) -> None:
        self.database = Database(self.directory / "state.db")
        try:
            self.pool = LocalPool.load(self.database, "A")
        except BaseException:
            self.database.close()
            raise

    def close(self) -> None:
        self.pool.close()
        self.database.close()

    def id(self, name: str | int) -> int:
        for info in self.pool.images():
            if info.name == name:
                return info.id
        raise LookupError(name)

    @contextmanager
    def inside(self, name: str | int) -> Iterator[LocalOpenImage]:
        opened = self.pool.open(self.id(name))
        try:
            opened.begin()
            yield opened
        finally:
            opened.close()

    def step(self, tag: int, step: Step) -> None:
        match step:
            case ["write", name, int(offset), int(length)]:
                with self.inside(name) as opened:
                    opened.write(offset, memoryview(content(tag, length)))
            case ["discard", name, int(offset), int(length)]:
                with self.inside(name) as opened:
                    opened.discard(offset, length)
            case ["read", name, int(offset), int(length)]:
                with self.inside(name) as opened:
                    opened.read(offset, memoryview(bytearray(length)))
            case ["flush"]:
                self.pool.flush()
            case ["reclaim", int(warm_bytes)]:  # without a flush: what was let go since the last one is not free
                self.pool.reclaim(warm_bytes)
            case ["checkpoint"]:
                self.database.checkpoint()
            case ["reopen"]:
                self.close()
                self.open()
            case _:
                self.pool.apply(self.changes(step))

    def changes(self, step: Step) -> list[Create | Snapshot | Clone | Replace | Resize | Rename | Delete]:
        match step:
            case ["create", str(name), int(size)]:
                return [Create(name, size)]
            case ["snapshot", source, str(name)]:
                return [Snapshot(self.id(source), name)]
            case ["replace", target, source]:
                return [Replace(self.id(target), self.id(source))]
            case ["resize", name, int(size)]:
                return [Resize(self.id(name), size)]
            case ["delete", name]:
                return [Delete(self.id(name))]
            case ["run", target, source, str(name)]:  # as the last step of a replication
                return [
                    Replace(self.id(target), self.id(source)),
                    Delete(self.id(source)),
                    Clone(self.id(target), name),
                ]
        raise AssertionError(step)


TOLD = (OSError, PoolFull, PoolFailed, StateDirectoryError)
"""What a pool may answer when the disk fails."""


def live_on(directory: Path) -> None:
    """One life, DIRECTORY/0, that goes on whatever is told; how each step and the end went is written to marks."""
    tidier.TIDY_INTERVAL_SECONDS = 3600.0
    try:
        life = Life(directory / "0")
    except StateDirectoryError:
        life = Life(directory / "0")  # a start that was refused is done again
    ends = []
    for tag, step in enumerate(json.loads((directory / "workloads.json").read_text())[0], 1):
        try:
            life.step(tag, step)
            ends.append("done")
        except (*TOLD, LookupError) as error:
            ends.append(repr(error))
    try:
        life.close()
        ends.append("done")
    except TOLD as error:
        ends.append(repr(error))
        life.database.close()
    (directory / "marks").write_text(json.dumps(ends))


def begin(directory: Path) -> None:
    """The first start: a database and a pool in DIRECTORY/0."""
    marks = os.open(directory / "marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    database = Database(directory / "0" / "state.db")
    LocalPool.create(database, "A", Path("A.data"), 64 * PAGE, PAGE).close()
    os.write(marks, b"0 1")
    database.close()


def main(directory: Path) -> None:
    tidier.TIDY_INTERVAL_SECONDS = 3600.0  # one thread only, so that the trace is in order
    marks = os.open(directory / "marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, steps in enumerate(json.loads((directory / "workloads.json").read_text())):
        life = Life(directory / str(number))
        for tag, step in enumerate(steps, 1):
            life.step(tag, step)
            os.write(marks, f"{number} {tag}".encode())
        life.close()


if __name__ == "__main__":
    {"live": main, "live-on": live_on, "begin": begin}[sys.argv[2]](Path(sys.argv[1]))
