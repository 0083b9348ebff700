"""The secondary's side of a run, without I/O: what to answer to each message, and in which order they may come.

          Begin                      Batch (the next one, or one that compares what was stored before Begin)
idle ───────────────▶ filling ──────────────────┐
 ▲                     │   ▲                     │
 └── Commit ───────────┘   └──── Ack ────────────┘
     of all that was sent, and compared

Ask, Begin, Keep and Discard are welcome in both states: a Begin while filling starts anew from what is durable, after a
Discard nothing is being filled.
A message out of order is a ProtocolError. Any error is told as Failed and ends the connection; what is
durable stays, and the next connection's Ask tells it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from offsite.errors import DigestMismatch, ProtocolError
from offsite.replication.wire.batch import DIGEST_START, Arrived, chain, unpack
from offsite.replication.wire.messages import (
    START,
    Ack,
    AnyMessage,
    Ask,
    Batch,
    Begin,
    Commit,
    Committed,
    Discard,
    Done,
    Holds,
    Keep,
    Kept,
    Position,
    Ready,
)

RunMessage = Ask | Begin | Batch | Commit | Discard | Keep


@dataclass(frozen=True, slots=True)
class Filled:
    """How far a point is filled."""

    position: Position
    digest: bytes


class ReceiverStore(Protocol):
    """What a run does on the secondary: its volumes, its records."""

    def look(self, ask: Ask) -> Holds: ...

    def prepare(self, begin: Begin) -> Ready:
        """Makes, or finds, what is to be filled; tells how far it is."""
        ...

    def store(self, arrived: Arrived, filled: Filled) -> Position:
        """Stores a batch and checks what is stored. Returns how far everything is durable."""
        ...

    def compare(self, arrived: Arrived, done: Position) -> Position:
        """Reads again what an earlier connection has stored; all before `done` was compared before. Returns how far
        everything is durable. Raises DigestMismatch: what follows `done` is to be sent again then."""
        ...

    def commit(self, commit: Commit) -> Committed: ...

    def discard(self, discard: Discard) -> None: ...

    def keep(self, keep: Keep) -> Kept:
        """Takes snapshots of what the volumes are, if they are that still."""
        ...


class ReceiverMachine:
    """One connection's worth of a run."""

    def __init__(self, end: ReceiverStore) -> None:
        self._end = end
        self._begun: Begin | None = None
        self._filled = Filled(Position(), b"")
        self._resumed_at = self._compared = START
        self._sequence = 0

    def answer(self, message: RunMessage, payload: memoryview) -> AnyMessage:
        match message:
            case Ask():
                return self._end.look(message)
            case Begin():
                return self._begin(message)
            case Batch():
                return self._batch(message, payload)
            case Commit():
                return self._commit(message)
            case Discard():
                self._begun = None
                self._end.discard(message)
                return Done()
            case Keep():
                return self._end.keep(message)

    def _begin(self, begin: Begin) -> Ready:
        self._begun = None
        ready = self._end.prepare(begin)
        self._begun = begin
        self._filled = Filled(ready.watermark, DIGEST_START)
        self._resumed_at, self._compared = ready.watermark, START
        self._sequence = 0
        return ready

    def _batch(self, batch: Batch, payload: memoryview) -> Ack:
        if self._begun is None:
            raise ProtocolError("received a Batch before a Begin")
        if batch.sequence != self._sequence:
            raise ProtocolError(f"received batch {batch.sequence} instead of {self._sequence}")
        if batch.compares:
            return self._compare(batch, payload, self._begun)
        if batch.position < self._filled.position:
            raise ProtocolError(f"batch {batch.sequence} goes back from {self._filled.position}")
        arrived = unpack(batch, payload, self._begun.sizes_bytes)
        filled = Filled(batch.position, chain(self._filled.digest, batch.digest))
        return self._acknowledge(batch, self._end.store(arrived, filled), filled)

    def _compare(self, batch: Batch, payload: memoryview, begun: Begin) -> Ack:
        if not self._compared <= batch.position <= self._resumed_at:
            raise ProtocolError(
                f"batch {batch.sequence} compares up to {batch.position}, which is outside {self._compared} to "
                f"{self._resumed_at}"
            )
        durable = self._end.compare(unpack(batch, payload, begun.sizes_bytes), self._compared)
        self._compared = batch.position
        filled = Filled(self._filled.position, chain(self._filled.digest, batch.digest))
        return self._acknowledge(batch, durable, filled)

    def _acknowledge(self, batch: Batch, durable: Position, filled: Filled) -> Ack:
        self._filled = filled
        self._sequence += 1
        return Ack(sequence=batch.sequence, durable=durable)

    def _commit(self, commit: Commit) -> Committed:
        begun = self._begun
        if begun is None or commit.point != begun.point or commit.run != begun.run:
            raise ProtocolError(f"received a Commit of point {commit.point} without its Begin")
        end = Position(len(begun.sizes_bytes), 0)
        if self._filled.position != end:
            raise ProtocolError(f"received a Commit at {self._filled.position} instead of the end, {end}")
        if self._compared != self._resumed_at:
            raise ProtocolError(
                f"received a Commit when the data before {self._compared} instead of {self._resumed_at} were compared"
            )
        if commit.digest != self._filled.digest:
            raise DigestMismatch(
                f"the stored batches have the digest {self._filled.digest.hex()}, but the sent ones "
                f"{commit.digest.hex()}"
            )
        self._begun = None
        return self._end.commit(commit)
