"""The frames of the peer protocol: what goes out comes back, and nothing else gets in."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsite.errors import ProtocolError
from offsite.replication.wire import frames, messages
from offsite.replication.wire.messages import Ack, Batch, Hello, Pair, Ping, Position

UUID = "6f1c2c1e-0000-4000-8000-000000000001"
START = messages.ToldStart(number=1, id="0" * 16)
OUTCOME = messages.RunOutcome(digest=bytes(16), changed_bytes=5, wire_bytes=6)
COMPLETE = messages.RecoveryPoint(point=UUID, taken_at=1.5, completed_at=2.5, digest=bytes(16), data_bytes=7)
EVERY_MESSAGE: list[messages.AnyMessage] = [
    Hello(
        version=1,
        system_uuid=UUID,
        system_name="London",
        software="Offsite 1",
        incarnation=messages.ToldIncarnation(current=START, started_at=1.5, earlier=[START]),
        known=messages.ToldAcquaintance(newest=START, denied=[START]),
    ),
    messages.Failed(error="PoolFull", sentence="pool A is full"),
    messages.Done(),
    messages.Working(),
    Ping(),
    Pair(username="manage", password="secret", certificate=b"\x30", host="", port=7443),
    messages.Unpair(),
    messages.CreateSet(
        set_uuid=UUID,
        settings=messages.SetSettings(name="S", snapshot_basename="S", snapshot_count=16),
        generation=1,
        primary_pool="A",
        secondary_pool="B",
        primary_group="G",
        secondary_group="H",
        members=[messages.NewMember(primary_name="V", secondary_name="W", size_bytes=1 << 47)],
    ),
    messages.ChangeSet(set_uuid=UUID, generation=1, settings=messages.SetSettings(name="S", suspended=True)),
    messages.ChangeSet(
        generation=1,
        set_uuid=UUID,
        settings=messages.SetSettings(name="S", snapshot_basename="S"),
        primary=messages.PrimaryNames(group="G", members=["one", "two"]),
    ),
    messages.DeleteSet(set_uuid=UUID, generation=1),
    messages.ListSets(),
    messages.SetsHeld(sets=[UUID]),
    messages.Ask(set_uuid=UUID, generation=3),
    messages.Holds(
        role="secondary",
        generation=3,
        base=UUID,
        outcome=OUTCOME,
        partial=messages.Partial(point=UUID, base=UUID, watermark=Position(0, 4096)),
    ),
    messages.Begin(generation=1, run=UUID, point=UUID, base=UUID, taken_at=1.5, sizes_bytes=[4096]),
    messages.Ready(watermark=Position(1, 0), changed_bytes=1, wire_bytes=2),
    Batch(
        sequence=0,
        position=Position(0, 1 << 20),
        extents=1,
        data_bytes=1 << 20,
        compression=1,
        digest=bytes(16),
    ),
    Ack(sequence=0, durable=Position(0, 0)),
    messages.Commit(generation=1, run=UUID, point=UUID, digest=bytes(16)),
    messages.Commit(
        generation=1,
        run=UUID,
        point=UUID,
        digest=bytes(16),
        history=messages.HistorySnapshot(basename="S", number=7, count=16, retention_priority="low"),
    ),
    messages.Committed(outcome=OUTCOME),
    messages.Discard(generation=1, run=UUID, sentence="no"),
    messages.Look(set_uuid=UUID, generation=3, diverged=True, primary=COMPLETE),
    messages.Holds(
        role="primary", generation=3, base=UUID, complete=COMPLETE, pending=[UUID, UUID], aborted=[UUID] * 256
    ),
    messages.Begin(
        generation=1, run=UUID, point=UUID, base=None, taken_at=1.5, sizes_bytes=[4096], replaces=UUID, keep=True
    ),
    messages.Keep(base=UUID, generation=1),
    messages.Kept(snapshots=["V-kept"]),
]


def decode(frame: bytes, payload_allowed: bool = True) -> messages.AnyMessage:
    head = frames.decode_head(frame[: frames.HEAD_BYTES], payload_allowed=payload_allowed)
    assert frames.HEAD_BYTES + head.message_bytes == len(frame)
    return frames.decode_message(frame[frames.HEAD_BYTES :], head.payload_bytes)


@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=lambda m: type(m).__name__)
def test_every_message_comes_back_as_it_was_sent(message: messages.AnyMessage) -> None:
    assert decode(frames.encode(message)) == message


def test_every_message_is_in_the_list_above() -> None:
    """A message that is added has to be tested."""
    assert {type(message) for message in EVERY_MESSAGE} == set(messages.Message.__subclasses__())


@given(st.integers(0, 2**63 - 1), st.integers(0, 16), st.integers(0, 128 << 40))
def test_numbers_up_to_their_bounds_survive(sequence: int, member: int, offset: int) -> None:
    ack = Ack(sequence=sequence, durable=Position(member, offset))
    assert decode(frames.encode(ack)) == ack


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_garbage_is_a_protocol_error_and_nothing_else(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        frames.decode_message(garbage)
    if len(garbage) >= frames.HEAD_BYTES and not garbage.startswith(frames.MAGIC):
        with pytest.raises(ProtocolError, match="not a system of Offsite"):
            frames.decode_head(garbage[: frames.HEAD_BYTES], payload_allowed=True)


@given(st.sampled_from(EVERY_MESSAGE), st.data())
def test_a_damaged_message_is_understood_or_refused(message: messages.AnyMessage, data: st.DataObject) -> None:
    """A flipped byte never gets through as another kind of exception."""
    body = bytearray(frames.encode(message)[frames.HEAD_BYTES :])
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        frames.decode_message(bytes(body))
    except ProtocolError:
        return


def test_a_head_with_lengths_over_the_bounds_is_refused() -> None:
    def head(message_bytes: int, payload_bytes: int) -> bytes:
        return frames.MAGIC + message_bytes.to_bytes(4, "little") + payload_bytes.to_bytes(4, "little")

    with pytest.raises(ProtocolError, match="message of 65537 bytes"):
        frames.decode_head(head(65537, 0), payload_allowed=True)
    with pytest.raises(ProtocolError, match="payload of"):
        frames.decode_head(head(10, frames.PAYLOAD_BYTES_MAX + 1), payload_allowed=True)
    with pytest.raises(ProtocolError, match="payload of 1 bytes was announced; at most 0"):
        frames.decode_head(head(10, 1), payload_allowed=False)


def test_what_is_too_large_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="too large to send"):
        frames.encode(Ping(), frames.PAYLOAD_BYTES_MAX + 1)


def test_fields_of_a_newer_version_are_passed_over() -> None:
    body = msgspec.msgpack.encode({"type": "Ping", "colour": "blue"})
    assert frames.decode_message(body) == Ping()


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "Ack", "sequence": -1, "durable": {}},
        {"type": "Ack", "sequence": 0, "durable": {"member": 17}},
        {"type": "Ack", "sequence": "0", "durable": {}},
        {"type": "Ack"},
        {"type": "Nack", "sequence": 0},
        {"type": "Hello", "version": 0, "system_uuid": UUID, "system_name": "x", "software": ""},
        {"type": "DeleteSet", "set_uuid": "short"},
        {"type": "Begin", "run": UUID, "point": UUID, "base": None, "taken_at": 0.0, "sizes_bytes": []},
        {"type": "Begin", "run": UUID, "point": UUID, "base": None, "taken_at": 0.0, "sizes_bytes": [1] * 17},
    ],
)
def test_fields_that_are_missing_or_out_of_bounds_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="cannot decode a message"):
        frames.decode_message(msgspec.msgpack.encode(fields))


def test_only_a_batch_may_have_a_payload() -> None:
    with pytest.raises(ProtocolError, match="none is allowed"):
        frames.decode_message(frames.encode(Ping())[frames.HEAD_BYTES :], payload_bytes=5)


def test_a_password_is_not_shown_where_a_message_is_logged() -> None:
    pair = Pair(username="manage", password="tell-no-one", certificate=b"x", host="", port=1)
    assert "tell-no-one" not in repr(pair)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0, 253_402_300_799.0, 4_102_444_801.0, "now", None])
@pytest.mark.parametrize(
    ("message", "where"),
    [
        (
            messages.Begin(generation=1, run=UUID, point=UUID, base=None, taken_at=1.0, sizes_bytes=[4096]),
            ("taken_at",),
        ),
        (
            Hello(
                version=1,
                system_uuid=UUID,
                system_name="London",
                software="",
                incarnation=messages.ToldIncarnation(current=START, started_at=1.0, earlier=[]),
            ),
            ("incarnation", "started_at"),
        ),
    ],
)
def test_an_instant_from_outside_is_one_that_can_be_shown(
    message: messages.AnyMessage, where: tuple[str, ...], wrong: object
) -> None:
    """No NaN, no infinity, nothing before 1970 or after 2100."""
    told = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    inner = told
    for name in where[:-1]:
        inner = inner[name]
    frames.decode_message(memoryview(msgspec.msgpack.encode(told)), 0)
    inner[where[-1]] = wrong
    with pytest.raises(ProtocolError):
        frames.decode_message(memoryview(msgspec.msgpack.encode(told)), 0)
