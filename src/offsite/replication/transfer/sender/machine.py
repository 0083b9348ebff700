"""The primary's side of a run, without I/O: what to do next, given what was heard.

    asking ──Holds──▶ planned ──▶ for each step that is left:

        Adopt, Forget ........ done on the spot
        Outdated ............. told, and gone on with
        Diverged ............. told, and the end of it: nothing is asked of the secondary any more
        Send:  beginning ──Ready──▶ sending ──all acknowledged──▶ committing ──Committed──▶ next step
                                    │     ▲
                                    └─Ack─┘  at most `window_bytes` are on their way without an Ack

    In every state: Failed from the other side, or silence for longer than allowed, ends it with an error.
    Nothing is undone then: the next attempt asks again, and plans from what is there.

A run is a generator: it yields what it wants done, and gets the outcome sent in. Whoever drives it owns
sockets, threads and disks, or is a simulator and owns none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass

from offsite.errors import ProtocolError
from offsite.replication.points.plan import Adopt, Diverged, Forget, Outdated, PrimarySide, Send, plan
from offsite.replication.wire.batch import DIGEST_START, chain, check_position
from offsite.replication.wire.exchange import Asking, Receive, Transmit
from offsite.replication.wire.messages import (
    Ack,
    AnyMessage,
    Ask,
    Begin,
    Commit,
    Committed,
    HistorySnapshot,
    Holds,
    Ready,
    RunOutcome,
    Working,
    told_instant,
)

WINDOW_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Poll:
    """Gets a message that has arrived already, or None."""


@dataclass(frozen=True, slots=True)
class Describe:
    """Gets the PointDescription of a point that the primary holds."""

    point: str


@dataclass(frozen=True, slots=True)
class OpenChanges:
    """Make ready to send what the other side is ready for. Gets None."""

    send: Send
    ready: Ready


@dataclass(frozen=True, slots=True)
class SendNext:
    """Send the next batch, at last those that compare what earlier connections have sent. Gets Sent, or None when
    there is none left."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Do:
    """Take a step that concerns the primary alone. Gets None."""

    step: Adopt | Forget | Outdated | Diverged
    outcome: RunOutcome | None  # of the point that the other side committed last


@dataclass(frozen=True, slots=True)
class PointDescription:
    taken_at: float
    sizes_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    sequence: int
    payload_bytes: int
    digest: bytes


Action = Transmit | Receive | Poll | Describe | OpenChanges | SendNext | Do
Answer = AnyMessage | PointDescription | Sent | None


@dataclass(frozen=True)
class SenderMachine:
    """One attempt of one run over one connection."""

    run: str
    set_uuid: str
    generation: int
    asking: Asking
    history: Callable[[], HistorySnapshot | None] = lambda: None  # asked for when a point is to be committed
    window_bytes: int = WINDOW_BYTES

    def steps(self, side: Callable[[Holds], PrimarySide]) -> Generator[Action, Answer, None]:
        """Drives the run to its end. Raises what ended it otherwise. `side` tells what the primary holds, and what it
        knows of what the secondary holds."""
        ask = Ask(set_uuid=self.set_uuid, generation=self.generation)
        remote = yield from self.asking.request(ask, Holds)
        outcome = remote.outcome
        for step in plan(side(remote), remote):
            if isinstance(step, Send):
                outcome = yield from self._send(step)
            else:
                yield Do(step, outcome)

    def _send(self, step: Send) -> Generator[Action, Answer, RunOutcome]:
        description = yield Describe(step.point)
        assert isinstance(description, PointDescription)
        begin = Begin(
            generation=self.generation,
            run=self.run,
            point=step.point,
            base=step.base,
            taken_at=told_instant(description.taken_at),
            sizes_bytes=list(description.sizes_bytes),
            replaces=step.replaces,
            keep=step.keep,
        )
        ready = yield from self.asking.request(begin, Ready)
        check_position(ready.watermark, begin.sizes_bytes, f"{self.asking.remote} sent a Ready")
        yield OpenChanges(step, ready)
        digest = yield from self._send_batches(DIGEST_START)
        history = self.history() if step.point == self.run else None
        commit = Commit(generation=self.generation, run=self.run, point=step.point, digest=digest, history=history)
        committed = yield from self.asking.request(commit, Committed)
        return committed.outcome

    def _send_batches(self, digest: bytes) -> Generator[Action, Answer, bytes]:
        """Sends all batches, as fast as they are acknowledged; returns the digest of them all."""
        clock, silence_seconds = self.asking.clock, self.asking.silence_seconds
        in_flight: deque[Sent] = deque()
        in_flight_bytes = sequence = 0
        heard_at = clock.monotonic()
        more = True
        while more or in_flight:
            if more and in_flight_bytes < self.window_bytes:
                sent = yield SendNext(sequence)
                if not in_flight:
                    heard_at = clock.monotonic()  # nothing was due before
                if isinstance(sent, Sent):
                    sequence += 1
                    digest = chain(digest, sent.digest)
                    in_flight.append(sent)
                    in_flight_bytes += sent.payload_bytes
                else:
                    more = False
                answer = yield Poll()
                if answer is None and clock.monotonic() < heard_at + silence_seconds:
                    continue
            else:
                answer = yield Receive(silence_seconds)
            in_flight_bytes -= self._acknowledged(answer, in_flight)
            heard_at = clock.monotonic()
        return digest

    def _acknowledged(self, answer: Answer, in_flight: deque[Sent]) -> int:
        """Takes off the batch that `answer` acknowledges; returns its bytes."""
        message = self.asking.heard(answer)
        if isinstance(message, Working):
            return 0
        if not isinstance(message, Ack) or not in_flight or message.sequence != in_flight[0].sequence:
            due = f"an Ack of {in_flight[0].sequence}" if in_flight else "nothing"
            raise ProtocolError(f"{self.asking.remote} sent {message!r} instead of {due}")
        return in_flight.popleft().payload_bytes
