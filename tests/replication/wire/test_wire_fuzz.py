"""Whatever comes over the peer wire: a message or a ProtocolError, an answer or an end, and nothing of anyone else's.

Bytes go through the real codec; conversations through a real peer port, by a paired system that means no good. The
seed of a failure is in its message: give it as OFFSITE_FUZZ_SEED to see that one alone.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from offsite.errors import OffsiteError, ProtocolError
from offsite.replication.sets.settings import ChosenSettings
from offsite.replication.wire import frames
from offsite.replication.wire.batch import EXTENT, unpack
from offsite.replication.wire.messages import AnyMessage, Batch, Message
from tests.replication.sites import Site, pair, random_bytes
from tests.replication.wire.test_wire import EVERY_MESSAGE

MIB = 1 << 20
FRAMES, CONVERSATIONS, WORDS = 4_000, 60, 10
BYTES_MAX = 64 * MIB  # that a system may take for all that a peer says here


def seeds(count: int) -> list[int]:
    given = os.environ.get("OFFSITE_FUZZ_SEED")
    return [int(given)] if given else list(range(count))


def mutated(chance: random.Random, data: bytes) -> bytes:
    """A few bytes changed, taken out, put in, or the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0 if at < len(changed):
                changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xC1, 0xCB, 0xDF, 0xFF, chance.randrange(256)))
            case 1:
                del changed[at : at + chance.randint(1, 8)]
            case 2:
                changed[at:at] = chance.randbytes(chance.randint(1, 8))
            case 3:
                del changed[max(at, 1) :]
    return bytes(changed)


def forged(chance: random.Random, value: Any, uuids: list[str]) -> Any:
    """A message as msgpack has it, with values of the right type but of another mind."""
    if isinstance(value, dict):
        return {key: each if key == "type" else forged(chance, each, uuids) for key, each in value.items()}
    if isinstance(value, list):
        return [forged(chance, each, uuids) for each in value] * chance.choice((1, 1, 1, 2))
    if chance.random() < 0.6:
        return value
    if isinstance(value, bool):
        return chance.random() < 0.5
    if isinstance(value, int):
        return chance.choice((0, 1, 2, 7, 4096, MIB, (1 << 31) - 1, 1 << 47, (1 << 63) - 1))
    if isinstance(value, float):
        return chance.choice((0.0, 1.5, 1e9, 4e9, float("inf"), float("nan"), -1.0))
    if isinstance(value, bytes):
        return chance.randbytes(len(value))
    if isinstance(value, str):
        return chance.choice(uuids) if len(value) == 36 else chance.choice(("A", "Sales", "SalesDR", "Loot", "\x1b[2J"))
    return value


def as_sent(message: Message) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message))


def test_bytes_are_a_message_or_a_protocol_error() -> None:
    for seed in seeds(FRAMES):
        chance = random.Random(seed)
        body = mutated(chance, msgspec.msgpack.encode(chance.choice(EVERY_MESSAGE)))
        head = mutated(chance, frames.encode(EVERY_MESSAGE[2])[: frames.HEAD_BYTES]).ljust(frames.HEAD_BYTES, b"\xff")
        with contextlib.suppress(ProtocolError):
            frames.decode_head(head[: frames.HEAD_BYTES], payload_allowed=chance.random() < 0.5)
        try:
            message = frames.decode_message(body, chance.choice((0, 0, 16)))
        except ProtocolError as error:
            assert str(error), seed
        else:
            assert isinstance(message, Message), seed
            frames.encode(message)


def test_a_payload_is_a_batch_or_a_protocol_error() -> None:
    extents = 3
    for seed in seeds(FRAMES):
        chance = random.Random(seed)
        table = mutated(chance, bytes(extents * EXTENT.itemsize))
        payload = memoryview(mutated(chance, table + chance.randbytes(chance.choice((0, 64, 4096)))))
        sample = next(message for message in EVERY_MESSAGE if isinstance(message, Batch))
        batch = msgspec.structs.replace(
            sample, extents=chance.randint(0, 4), data_bytes=len(payload), compression=chance.randrange(2)
        )
        try:
            arrived = unpack(batch, payload, [MIB, 4096])
        except ProtocolError:
            continue
        assert len(arrived.data) == batch.data_bytes, seed


@pytest.fixture
def unhandled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What threads of this process died of meanwhile."""
    died: list[str] = []
    monkeypatch.setattr(
        threading, "excepthook", lambda what: died.append(f"{what.exc_type.__name__}: {what.exc_value}")
    )
    return died


class Scene:
    """London's set on Newark is honest; Mallory, who has a set of its own there, is not."""

    def __init__(self, london: Site, newark: Site, mallory: Site) -> None:
        self.newark, self.mallory = newark, mallory
        for site in (london, mallory):
            pair(site, newark)
        volume = london.create_volume("Sales", MIB)
        london.write(volume, 0, random_bytes(65536, 1))
        history = ChosenSettings(snapshot_history="secondary", snapshot_basename="keep", snapshot_count=3)
        london.create_set("SalesDR", volume, "Newark", settings=history)
        self.run = london.run_to_end("SalesDR").run
        mallory.create_set("Loot", mallory.create_volume("Loot", MIB), "Newark")
        self.loot = mallory.run_to_end("Loot").run
        self.set, self.own = (newark.replication.sets.record(name) for name in ("SalesDR", "Loot"))
        self.uuids = [self.set.uuid, self.own.uuid, self.run, self.loot, "0" * 36, "f" * 36]

    def honest(self) -> Any:
        with self.newark.database.read() as connection:
            rows = [
                [
                    tuple(row)
                    for row in connection.exec_driver_sql(f"SELECT * FROM {table} WHERE set_id = {self.set.id}")
                ]
                for table in ("set_members", "points", "runs", "history_snapshots", "recovery_points")
            ]
        return (
            rows,
            self.newark.replication.sets.record("SalesDR"),
            self.newark.content("Sales"),
            self.newark.content("keep_0000"),
        )

    def converse(self, seed: int) -> None:
        chance = random.Random(seed)
        peers = self.mallory.replication.peers
        with peers.connect(peers.record("Newark")) as connection:
            channel = connection.channel
            plain = [as_sent(message) for message in EVERY_MESSAGE]
            opening = {"type": "Ask", "set_uuid": self.own.uuid, "generation": 1}
            words = [opening] if chance.random() < 0.7 else []
            words += [forged(chance, chance.choice(plain), self.uuids) for _ in range(chance.randint(1, WORDS))]
            for word in words:
                if word["type"] in ("Unpair", "DeleteSet"):
                    continue  # done, Mallory could say nothing any more: tried by test_third_system
                body = msgspec.msgpack.encode(word)
                if chance.random() < 0.1:
                    body = mutated(chance, body)
                payload = chance.randbytes(chance.choice((0, 16, 48, 4112))) if word["type"] == "Batch" else b""
                head = frames.MAGIC + len(body).to_bytes(4, "little") + len(payload).to_bytes(4, "little")
                try:
                    channel._socket.sendall(head + body + payload)
                    answer = channel.receive(30.0)
                except (OffsiteError, OSError):
                    return
                assert answer is not None, f"seed {seed}: no answer to {word}"
                if type(answer[0]).__name__ == "Failed":
                    return


@pytest.fixture
def scene(london: Site, newark: Site, tmp_path: Path) -> Iterator[Scene]:
    mallory = Site(tmp_path / "mallory", "Mallory").start()
    yield Scene(london, newark, mallory)
    mallory.stop()


def test_conversations_that_are_not_meant_well_end_and_harm_nobody(scene: Scene, unhandled: list[str]) -> None:
    before = scene.honest()
    tracemalloc.start()
    try:
        for seed in seeds(CONVERSATIONS):
            scene.converse(seed)
            assert unhandled == [], f"seed {seed}"
            assert tracemalloc.get_traced_memory()[1] < BYTES_MAX, f"seed {seed}"
    finally:
        tracemalloc.stop()
    assert scene.honest() == before
    assert scene.mallory.replication.peers.online("Newark")


def test_bytes_that_are_no_conversation_end_it(scene: Scene, unhandled: list[str]) -> None:
    before = scene.honest()
    peers = scene.mallory.replication.peers
    hello = frames.encode(next(iter(EVERY_MESSAGE)))
    for seed in seeds(30):
        chance = random.Random(seed)
        with peers.connect(peers.record("Newark")) as connection:
            sock = connection.channel._socket
            try:
                sock.sendall(mutated(chance, hello + chance.randbytes(200)))
                socket.socket.shutdown(sock, socket.SHUT_WR)
                sock.settimeout(30)
                while sock.recv(65536):
                    pass
            except TimeoutError:
                pytest.fail(f"seed {seed}: it does not end")
            except OSError:
                pass  # it ended with an alert, or a reset
        assert unhandled == [], f"seed {seed}"
    assert scene.honest() == before


def test_the_fuzzer_knows_every_message() -> None:
    assert {type(message) for message in EVERY_MESSAGE} == set(AnyMessage.__args__)
