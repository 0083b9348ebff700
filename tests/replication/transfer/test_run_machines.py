"""Both sides' state machines alone: what they make of messages that come too early, too late or not at all."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from offsite.errors import DigestMismatch, OffsiteError, PeerUnreachable, PoolFull, ProtocolError
from offsite.replication.points.plan import Adopt, PrimarySide, Send
from offsite.replication.transfer.receiver.machine import Filled, ReceiverMachine
from offsite.replication.transfer.sender.machine import (
    Action,
    Answer,
    Describe,
    Do,
    OpenChanges,
    PointDescription,
    Poll,
    SenderMachine,
    SendNext,
    Sent,
)
from offsite.replication.wire.batch import DIGEST_START, EXTENT, Arrived, chain, digest_of
from offsite.replication.wire.exchange import Asking, Receive, Transmit
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
    Failed,
    Holds,
    Keep,
    Kept,
    Position,
    Ready,
    RunOutcome,
    Working,
)
from tests.replication.lockstep import VirtualClock

R, P, S = "r" * 36, "p" * 36, "s" * 36
READY = Ready(watermark=START, changed_bytes=0, wire_bytes=0)
EMPTY = Holds(role="secondary", generation=1, base=None)
OUTCOME = RunOutcome(digest=bytes(16), changed_bytes=1, wire_bytes=2)


# -- primary ---------------------------------------------------------------------------------------------------


class Primary:
    """Drives the machine by hand, up to where it sends."""

    def __init__(self, window_bytes: int = 100) -> None:
        self.clock = VirtualClock()
        asking = Asking("Newark", self.clock, silence_seconds=30.0)
        self.machine = SenderMachine(P, S, 1, asking, window_bytes=window_bytes).steps(
            lambda _theirs: PrimarySide(Holds(role="primary", generation=1, base=None, pending=[P]), P)
        )
        self.action: Action = next(self.machine)

    def tell(self, answer: Answer) -> Action:
        self.action = self.machine.send(answer)
        return self.action

    def to_sending(self) -> Primary:
        assert self.action == Transmit(Ask(set_uuid=S, generation=1))
        assert self.tell(None) == Receive(30.0)
        assert self.tell(EMPTY) == Describe(P)
        begin = Begin(generation=1, run=P, point=P, base=None, taken_at=5.0, sizes_bytes=[4096])
        assert self.tell(PointDescription(5.0, (4096,))) == Transmit(begin)
        assert isinstance(self.tell(None), Receive)
        assert self.tell(READY) == OpenChanges(Send(P, None, START), READY)
        assert self.tell(None) == SendNext(0)
        return self

    def sent(self, sequence: int) -> Action:
        return self.tell(Sent(sequence, 60, bytes([sequence]) * 16))


def ack(sequence: int) -> Ack:
    return Ack(sequence=sequence, durable=START)


def test_the_window_bounds_what_is_on_its_way() -> None:
    primary = Primary(window_bytes=100).to_sending()
    assert isinstance(primary.sent(0), Poll)
    assert primary.tell(None) == SendNext(1)
    assert isinstance(primary.sent(1), Poll)
    assert isinstance(primary.tell(None), Receive), "120 bytes are on their way: wait"
    assert primary.tell(ack(0)) == SendNext(2), "60 are: go on"


def test_a_whole_run_ends_with_the_digest_of_all_batches() -> None:
    primary = Primary().to_sending()
    primary.sent(0)
    primary.tell(ack(0))
    assert isinstance(primary.tell(None), Poll), "no batch is left"
    digest = chain(DIGEST_START, bytes(16))
    assert primary.tell(None) == Transmit(Commit(generation=1, run=P, point=P, digest=digest))
    primary.tell(None)
    assert primary.tell(Committed(outcome=OUTCOME)) == Do(Adopt(P), OUTCOME)
    with pytest.raises(StopIteration):
        primary.tell(None)


def test_a_lost_committed_is_made_up_for_by_the_next_ask() -> None:
    primary = Primary()
    primary.tell(None)
    assert primary.tell(Holds(role="secondary", generation=1, base=P, outcome=OUTCOME)) == Do(Adopt(P), OUTCOME)


@pytest.mark.parametrize("answer", [ack(1), ack(7), Done(), READY])
def test_an_answer_out_of_turn_is_refused(answer: AnyMessage) -> None:
    primary = Primary().to_sending()
    primary.sent(0)
    with pytest.raises(ProtocolError, match="instead of an Ack of 0"):
        primary.tell(answer)


@pytest.mark.parametrize("watermark", [Position(1, 4096), Position(0, 8192), Position(2, 0)])
def test_a_secondary_that_is_ready_beyond_the_end_is_refused(watermark: Position) -> None:
    primary = Primary()
    primary.tell(None)
    primary.tell(EMPTY)
    primary.tell(PointDescription(5.0, (4096,)))
    primary.tell(None)
    with pytest.raises(ProtocolError, match="Newark sent a Ready: position"):
        primary.tell(Ready(watermark=watermark, changed_bytes=0, wire_bytes=0))


def test_an_ack_of_nothing_is_refused() -> None:
    primary = Primary().to_sending()
    assert isinstance(primary.tell(None), Poll), "there was nothing to send"
    with pytest.raises(ProtocolError, match="instead of nothing"):
        primary.tell(ack(0))


def test_a_secondary_that_acknowledges_nothing_is_given_up_although_we_could_send_on() -> None:
    primary = Primary(window_bytes=10_000).to_sending()
    primary.sent(0)
    primary.clock.time += 29
    assert primary.tell(None) == SendNext(1)
    primary.sent(1)
    primary.clock.time += 2
    with pytest.raises(PeerUnreachable, match="received nothing from Newark for 30 s"):
        primary.tell(None)


def test_time_in_which_nothing_was_due_is_no_silence() -> None:
    """Reading a slow disk for a minute is not the other side's fault."""
    primary = Primary(window_bytes=10_000).to_sending()
    primary.clock.time += 60
    primary.sent(0)
    assert primary.tell(None) == SendNext(1)


def test_a_secondary_that_works_is_waited_for() -> None:
    primary = Primary().to_sending()
    primary.sent(0)
    primary.clock.time += 29
    assert primary.tell(Working()) == SendNext(1)
    primary.clock.time += 29
    primary.sent(1)
    assert isinstance(primary.tell(None), Receive)


def test_a_failure_over_there_ends_the_run_with_its_error() -> None:
    primary = Primary().to_sending()
    primary.sent(0)
    with pytest.raises(PoolFull, match="Newark: pool A is full"):
        primary.tell(Failed(error="PoolFull", sentence="pool A is full"))


# -- secondary -------------------------------------------------------------------------------------------------


class EndStub:
    """Says what is asked of it."""

    def __init__(self, ready: Ready = READY) -> None:
        self.calls: list[str] = []
        self.ready = ready

    def look(self, _ask: Ask) -> Holds:
        self.calls.append("look")
        return EMPTY

    def prepare(self, _begin: Begin) -> Ready:
        self.calls.append("prepare")
        return self.ready

    def store(self, arrived: Arrived, filled: Filled) -> Position:
        self.calls.append(f"store {arrived.batch.sequence} to {filled.position.offset}")
        return filled.position

    def compare(self, arrived: Arrived, done: Position) -> Position:
        self.calls.append(f"compare {done.offset} to {arrived.batch.position.offset}")
        return self.ready.watermark

    def commit(self, _commit: Commit) -> Committed:
        self.calls.append("commit")
        return Committed(outcome=OUTCOME)

    def discard(self, _discard: Discard) -> None:
        self.calls.append("discard")

    def keep(self, _keep: Keep) -> Kept:
        self.calls.append("keep")
        return Kept(snapshots=["V-kept"])


END = Position(1, 0)
BEGIN = Begin(generation=1, run=R, point=P, base=None, taken_at=0.0, sizes_bytes=[1 << 20])
NOTHING = memoryview(b"")
EMPTY_DIGEST = digest_of(np.empty(0, EXTENT), NOTHING)


def batch(sequence: int, position: Position) -> Batch:
    return Batch(sequence=sequence, position=position, extents=0, data_bytes=0, compression=0, digest=EMPTY_DIGEST)


def commit(batches: int, point: str = P) -> Commit:
    digest = DIGEST_START
    for _ in range(batches):
        digest = chain(digest, EMPTY_DIGEST)
    return Commit(generation=1, run=R, point=point, digest=digest)


def test_a_point_is_filled_in_order_and_then_committed() -> None:
    end = EndStub()
    run = ReceiverMachine(end)
    assert isinstance(run.answer(Ask(set_uuid=S, generation=1), NOTHING), Holds)
    assert run.answer(BEGIN, NOTHING) == READY
    assert run.answer(batch(0, Position(0, 4096)), NOTHING) == Ack(sequence=0, durable=Position(0, 4096))
    run.answer(batch(1, Position(1, 0)), NOTHING)
    assert run.answer(commit(2), NOTHING) == Committed(outcome=OUTCOME)
    assert run.answer(Discard(generation=1, run=R, sentence=""), NOTHING) == Done()
    assert end.calls == ["look", "prepare", "store 0 to 4096", "store 1 to 0", "commit", "discard"]


RESUMED = Ready(watermark=Position(0, 8192), changed_bytes=0, wire_bytes=0)


def comparison(sequence: int, offset: int) -> Batch:
    return msgspec.structs.replace(batch(sequence, Position(0, offset)), compares=True)


def test_what_lies_below_the_watermark_is_compared_before_the_commit() -> None:
    end = EndStub(RESUMED)
    run = ReceiverMachine(end)
    run.answer(BEGIN, NOTHING)
    run.answer(batch(0, END), NOTHING)
    run.answer(comparison(1, 4096), NOTHING)
    run.answer(comparison(2, 8192), NOTHING)
    assert run.answer(commit(3), NOTHING) == Committed(outcome=OUTCOME)
    assert end.calls == ["prepare", "store 0 to 0", "compare 0 to 4096", "compare 4096 to 8192", "commit"]


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([batch(0, END), commit(1)], "the data before .*offset=0.* instead of .*offset=8192.* were compared"),
        ([batch(0, END), comparison(1, 4096), commit(2)], "the data before .*offset=4096"),
        ([batch(0, END), comparison(1, 8193)], "compares up to .*8193"),
        ([batch(0, END), comparison(1, 4096), comparison(2, 0)], "compares up to .*offset=0.*4096"),
    ],
)
def test_a_primary_that_does_not_have_it_compared_cannot_commit(messages: list[Batch | Commit], sentence: str) -> None:
    run = ReceiverMachine(EndStub(RESUMED))
    run.answer(BEGIN, NOTHING)
    for message in messages[:-1]:
        run.answer(message, NOTHING)
    with pytest.raises(ProtocolError, match=sentence):
        run.answer(messages[-1], NOTHING)


def test_after_a_discard_nothing_more_is_stored() -> None:
    """R8: what was aborted must not come back by a batch that was on its way."""
    run = after(BEGIN)
    run.answer(Discard(generation=1, run=R, sentence=""), NOTHING)
    with pytest.raises(ProtocolError, match="before a Begin"):
        run.answer(batch(0, Position(0, 4096)), NOTHING)


def after(*messages: Begin | Batch | Commit) -> ReceiverMachine:
    run = ReceiverMachine(EndStub())
    for message in messages:
        run.answer(message, NOTHING)
    return run


@pytest.mark.parametrize(
    ("run", "message", "error", "sentence"),
    [
        (after(), batch(0, START), ProtocolError, "before a Begin"),
        (after(BEGIN), batch(1, START), ProtocolError, "received batch 1 instead of 0"),
        (after(BEGIN, batch(0, END)), batch(0, END), ProtocolError, "received batch 0 instead of 1"),
        (after(BEGIN, batch(0, END)), batch(1, START), ProtocolError, "goes back"),
        (after(BEGIN), batch(0, Position(1, 4096)), ProtocolError, "beyond the end"),
        (after(BEGIN), batch(0, Position(0, (1 << 20) + 4096)), ProtocolError, "beyond the end"),
        (after(), commit(0), ProtocolError, "without its Begin"),
        (after(BEGIN, batch(0, END)), commit(1, "q" * 36), ProtocolError, "without its Begin"),
        (after(BEGIN, batch(0, Position(0, 4096))), commit(1), ProtocolError, "instead of the end"),
        (after(BEGIN, batch(0, END)), commit(2), DigestMismatch, "the stored batches have the digest"),
        (after(BEGIN, batch(0, END), commit(1)), commit(1), ProtocolError, "without its Begin"),
    ],
)
def test_what_is_out_of_order_is_refused(
    run: ReceiverMachine, message: Batch | Commit, error: type[OffsiteError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        run.answer(message, NOTHING)


def test_a_second_begin_starts_anew() -> None:
    run = after(BEGIN, batch(0, Position(0, 4096)), BEGIN)
    assert run.answer(batch(0, END), NOTHING) == Ack(sequence=0, durable=END)
