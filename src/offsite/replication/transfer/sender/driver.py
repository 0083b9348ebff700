"""Drives the primary's side of a run over a channel: the thin shell around the machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from offsite.errors import PeerRefused
from offsite.replication.bandwidth.rate_limiter import Flow
from offsite.replication.transfer.progress import Progress
from offsite.replication.transfer.sender.block_diff import Differences
from offsite.replication.transfer.sender.endpoint import SenderEndpoint
from offsite.replication.transfer.sender.machine import Action, Answer, Describe, Do, OpenChanges, Poll, SendNext, Sent
from offsite.replication.wire.batch import Changes, digest_of
from offsite.replication.wire.compression import Compressor
from offsite.replication.wire.exchange import Receive, Transmit
from offsite.replication.wire.messages import START, AnyMessage, Batch, Commit, Done, Ping, Working

PING_SECONDS = 30.0  # while we wait to send: the other side gives up after 120 s in which it hears nothing


class Link(Protocol):
    """What a run needs of a connection: see channel.Channel."""

    wire_bytes: int

    def send(self, message: AnyMessage, table: bytes = ..., data: memoryview = ...) -> None: ...

    def receive(self, timeout_seconds: float) -> tuple[AnyMessage, memoryview] | None: ...

    def readable(self) -> bool: ...


class SenderDriver:
    """For one attempt of one run. `check_stopped` raises when the attempt is to end; `pacing` says when a batch
    may go, without it at once; `heard` is called with each message that comes."""

    def __init__(
        self,
        channel: Link,
        end: SenderEndpoint,
        progress: Progress,
        check_stopped: Callable[[], None],
        pacing: Flow | None = None,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self._channel = channel
        self._end = end
        self._progress = progress
        self._check_stopped = check_stopped
        self._pacing = pacing
        self._heard = heard
        self._pings_due = 0  # that were sent and not yet answered
        self._compressor = Compressor()
        self._changes: Iterator[Changes] = iter(())
        self._sent_before: Iterator[Changes] | None = None  # what is to be compared once all is sent
        self._compares = False
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
                self._about_to_commit(commit)
                self._channel.send(commit)
            case Transmit(message):
                self._channel.send(message)
            case Receive(timeout_seconds):
                return self._receive(timeout_seconds)
            case Poll():
                return self._poll()
            case SendNext(sequence):
                return self._send_next(sequence)
            case Describe(point):
                return self._end.describe(point)
            case OpenChanges():
                self._open(action)
            case Do(step, outcome):
                if not self._end.do(step, outcome):
                    raise PeerRefused(
                        "the recovery point of the secondary cannot be the base here; it is checked again"
                    )
        return None

    def _about_to_commit(self, commit: Commit) -> None:
        """From here on an abort has to ask the secondary first. Whoever aborts stops us before it looks. Our digest is
        on record, so that what the secondary says of the run can be compared with it, also after a crash."""
        self._progress.may_be_committed = True
        self._check_stopped()
        self._end.note_digest(commit.point, commit.digest)

    def _receive(self, timeout_seconds: float) -> Answer:
        received = self._channel.receive(timeout_seconds)
        if received is None:
            return None
        self._heard()
        if self._pings_due and isinstance(received[0], Done):
            self._pings_due -= 1
            return Working()  # a run knows nothing of pings; it is to know that the other side lives
        return received[0]

    def _poll(self) -> Answer:
        """The first message that is more than a sign of life, or one of those, or None."""
        sign_of_life: Answer = None
        while self._channel.readable():
            answer = self._receive(0.001)
            if not isinstance(answer, Working):
                return answer or sign_of_life
            sign_of_life = answer
        return sign_of_life

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
        self._sent_before = differences.find_changes(START, ready.watermark) if ready.watermark != START else None

    def _send_next(self, sequence: int) -> Sent | None:
        changes = next(self._changes, None)
        if changes is None and self._sent_before is not None:
            self._changes, self._sent_before = self._sent_before, None
            self._compares = True
            self._progress.compare()
            changes = next(self._changes, None)
        if changes is None:
            self._progress.state = "committing"
            return None
        if self._compares:
            return self._send_comparison(sequence, changes)
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
        self._send_batch(batch, table, data)
        self._progress.changed_bytes += len(changes.data)
        self._progress.wire_bytes = self._wire_before + self._channel.wire_bytes
        self._progress.scanned(changes.scanned_bytes)
        return Sent(sequence, len(table) + len(data), batch.digest)

    def _send_comparison(self, sequence: int, changes: Changes) -> Sent:
        """The table and the digest of what an earlier connection has sent. How much may be on its way counts by what
        the other side has to read."""
        batch = Batch(
            sequence=sequence,
            position=changes.position,
            extents=len(changes.extents),
            data_bytes=len(changes.data),
            compression=0,
            digest=digest_of(changes.extents, changes.data),
            compares=True,
        )
        table = changes.extents.tobytes()
        self._send_batch(batch, table, memoryview(b""))
        self._progress.wire_bytes = self._wire_before + self._channel.wire_bytes
        return Sent(sequence, len(table) + len(changes.data), batch.digest)

    def _send_batch(self, batch: Batch, table: bytes, data: memoryview) -> None:
        if self._pacing is not None and self._pacing.is_limited:
            self._send_paced(self._pacing, batch, table, data)
        else:
            self._channel.send(batch, table, data)

    def _send_paced(self, pacing: Flow, batch: Batch, table: bytes, data: memoryview) -> None:
        """Waits until it may go. What arrives meanwhile waits, too: a run takes it in before it counts silence."""
        payload_bytes, next_ping_seconds = len(table) + len(data), PING_SECONDS

        def meanwhile(waited_seconds: float) -> None:
            nonlocal next_ping_seconds
            self._check_stopped()
            if waited_seconds >= next_ping_seconds:
                next_ping_seconds += PING_SECONDS
                self._channel.send(Ping())
                self._pings_due += 1

        pacing.take(payload_bytes, meanwhile)
        before = self._channel.wire_bytes
        self._channel.send(batch, table, data)
        pacing.charge(self._channel.wire_bytes - before - payload_bytes)

    def close(self) -> None:
        """Lets go of the images now, not when the garbage collector comes by."""
        close = getattr(self._changes, "close", None)
        if close is not None:
            close()
        self._changes, self._sent_before, self._compares = iter(()), None, False
