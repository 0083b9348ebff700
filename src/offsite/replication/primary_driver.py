"""Drives the primary's side of a run over a channel: the thin shell around primary_run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from offsite.replication.asking import Receive, Transmit
from offsite.replication.batches import Changes, digest_of
from offsite.replication.changes import Differences
from offsite.replication.compression import Compressor
from offsite.replication.messages import START, AnyMessage, Batch, Commit
from offsite.replication.primary_end import PrimaryEnd
from offsite.replication.primary_run import (
    Action,
    Answer,
    Describe,
    Do,
    OpenChanges,
    Poll,
    SendNext,
    Sent,
)
from offsite.replication.progress import Progress


class Link(Protocol):
    """What a run needs of a connection: see channel.Channel."""

    wire_bytes: int

    def send(self, message: AnyMessage, table: bytes = ..., data: memoryview = ...) -> None: ...

    def receive(self, timeout_seconds: float) -> tuple[AnyMessage, memoryview] | None: ...

    def readable(self) -> bool: ...


class PrimaryDriver:
    """For one attempt of one run. `check_stopped` raises when the attempt is to end."""

    def __init__(self, channel: Link, end: PrimaryEnd, progress: Progress, check_stopped: Callable[[], None]) -> None:
        self._channel = channel
        self._end = end
        self._progress = progress
        self._check_stopped = check_stopped
        self._compressor = Compressor()
        self._changes: Iterator[Changes] = iter(())
        self._wire_before = 0

    def drive(self, machine: Generator[Action, Answer, None]) -> None:
        answer: Answer = None
        try:
            while True:
                self._check_stopped()
                answer = self.act(machine.send(answer))
        except StopIteration:
            return
        finally:
            self.close()

    def act(self, action: Action) -> Answer:
        """Does what the machine wants done, and returns what it is to get."""
        match action:
            case Transmit(Commit() as commit):
                self._about_to_commit()
                self._channel.send(commit)
            case Transmit(message):
                self._channel.send(message)
            case Receive(timeout_seconds):
                return self._receive(timeout_seconds)
            case Poll():
                return self._receive(0.001) if self._channel.readable() else None
            case SendNext(sequence):
                return self._send_next(sequence)
            case Describe(point):
                return self._end.describe(point)
            case OpenChanges():
                self._open(action)
            case Do(step, outcome):
                self._end.do(step, outcome)
        return None

    def _about_to_commit(self) -> None:
        """From here on an abort has to ask the secondary first. Whoever aborts stops us before it looks."""
        self._progress.may_be_committed = True
        self._check_stopped()

    def _receive(self, timeout_seconds: float) -> Answer:
        received = self._channel.receive(timeout_seconds)
        return received and received[0]

    def _open(self, action: OpenChanges) -> None:
        self.close()
        ready = action.ready
        differences = Differences(self._end.pool, self._end.differences(action.send.point, action.send.base))
        self._progress.changed_bytes = ready.changed_bytes
        self._wire_before = ready.wire_bytes - self._channel.wire_bytes
        total = left = differences.estimate_bytes(START)
        if ready.watermark != START:
            left = differences.estimate_bytes(ready.watermark)
        self._progress.begin(total, left)
        self._changes = differences.find_changes(ready.watermark)

    def _send_next(self, sequence: int) -> Sent | None:
        changes = next(self._changes, None)
        if changes is None:
            self._progress.state = "committing"
            return None
        compression, data = self._compressor.compress(changes.data)
        batch = Batch(
            sequence=sequence,
            position=changes.position,
            extents=len(changes.extents),
            data_bytes=len(changes.data),
            compression=compression,
            digest=digest_of(changes.extents, changes.data),
        )
        table = changes.extents.tobytes()
        self._channel.send(batch, table, data)
        self._progress.changed_bytes += len(changes.data)
        self._progress.wire_bytes = self._wire_before + self._channel.wire_bytes
        self._progress.scanned(changes.scanned_bytes)
        return Sent(sequence, len(table) + len(data), batch.digest)

    def close(self) -> None:
        """Lets go of the images now, not when the garbage collector comes by."""
        close = getattr(self._changes, "close", None)
        if close is not None:
            close()
        self._changes = iter(())
