"""Messages as a peer that lies would send them: right by type and bounds, and false.

Who a system is, and that a set or a peer is to be made or to end, is left alone: what those messages say is decided
before, by certificates and users, and tested with a third system.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

from offsite.replication.wire.messages import (
    Ack,
    AnyMessage,
    Ask,
    Batch,
    Begin,
    ChangeSet,
    Commit,
    Committed,
    CreateSet,
    DeleteSet,
    Discard,
    Done,
    Failed,
    Hello,
    Holds,
    Keep,
    Kept,
    ListSets,
    Look,
    Pair,
    Partial,
    Ping,
    Position,
    Ready,
    RecoveryPoint,
    RunOutcome,
    SetSettings,
    SetsHeld,
    Unpair,
    Working,
)

MIB = 1 << 20
MOST = (1 << 63) - 1
HONEST = Hello | Pair | Unpair | CreateSet | DeleteSet
REQUESTS = Ping | ChangeSet | ListSets | Ask | Begin | Batch | Commit | Discard | Look | Keep
FAILURES = ("PeerRefused", "NotReplaced", "DigestMismatch", "PoolFull", "NotAllowed", "ObjectNotFound", "NoSuchClass")


class Lies:
    """Drawn from `chance`. Of uuids it knows `uuids`, to which others may be added."""

    def __init__(self, chance: Random, uuids: Sequence[str]) -> None:
        self._chance = chance
        self._uuids = uuids

    def in_place_of(self, message: AnyMessage) -> AnyMessage:
        """Mostly the same kind of message with another content, now and then another kind."""
        if isinstance(message, HONEST):
            return message
        if self._chance.random() < 0.2:
            return self._chance.choice(self._requests if isinstance(message, REQUESTS) else self._answers)()
        return self._forged(message)

    @property
    def _answers(self) -> list[Callable[[], AnyMessage]]:
        return [Done, Working, self._holds, self._ready, self._committed, self._ack, self._failed, self._sets_held]

    @property
    def _requests(self) -> list[Callable[[], AnyMessage]]:
        return [Ping, ListSets, self._discard, self._keep, self._commit, self._look]

    def _forged(self, message: AnyMessage) -> AnyMessage:
        change = msgspec.structs.replace
        match message:
            case Holds():
                return self._holds(message)
            case Ready():
                return self._ready()
            case Committed():
                return self._committed()
            case Ack():
                return self._ack()
            case SetsHeld():
                return self._sets_held()
            case Kept():
                return Kept(snapshots=["nothing"])
            case ChangeSet():
                return change(message, settings=self._settings(message.settings))
            case Ask() | Look():
                return change(message, **self._one_of(set_uuid=self._uuid(), generation=self._number()))
            case Begin():
                return self._begin(message)
            case Batch():
                false = {"sequence": self._number(), "position": self._position(), "digest": self._digest()}
                return change(message, **self._one_of(**false))
            case Commit():
                return change(message, **self._one_of(run=self._uuid(), point=self._uuid(), digest=self._digest()))
            case Discard():
                return self._discard()
            case Keep():
                return self._keep()
            case _:
                return message

    def _one_of(self, **false: Any) -> dict[str, Any]:
        name = self._chance.choice(sorted(false))
        return {name: false[name]}

    def _uuid(self) -> str:
        return self._chance.choice([*self._uuids[-8:], str(uuid.UUID(int=self._chance.getrandbits(128)))])

    def _maybe(self, value: Any) -> Any:
        return self._chance.choice([None, value])

    def _number(self) -> int:
        return self._chance.choice([0, 1, 7, MOST])

    def _digest(self) -> bytes:
        return self._chance.randbytes(16)

    def _position(self) -> Position:
        return Position(
            self._chance.choice([0, 1, 2, 3, 16]), self._chance.choice([0, 4096, 65536, MIB, 2 * MIB, 1 << 47])
        )

    def _outcome(self) -> RunOutcome:
        most = self._chance.choice([0, 7, MOST])
        number = self._maybe(self._chance.choice([0, 7, 99_999]))
        return RunOutcome(digest=self._digest(), changed_bytes=most, wire_bytes=most, snapshot_number=number)

    def _recovery_point(self) -> RecoveryPoint:
        instant = self._chance.choice([0.0, 1_700_000_000.0, 4_102_444_800.0])
        return RecoveryPoint(point=self._uuid(), taken_at=instant, completed_at=instant, digest=self._digest())

    def _holds(self, told: Holds | None = None) -> Holds:
        """Mostly by who it has to be by, or nobody would look at what it says else."""
        partial = Partial(point=self._uuid(), base=self._maybe(self._uuid()), watermark=self._position())
        number = self._chance.randrange(20)
        return Holds(
            role="primary" if number == 0 else "secondary",
            generation=self._number() if number == 1 else told.generation if told else 1,
            base=self._maybe(self._uuid()),
            outcome=self._maybe(self._outcome()),
            partial=self._maybe(partial),
            complete=self._maybe(self._recovery_point()),
            pending=self._maybe([self._uuid()]) or [],
        )

    def _ready(self) -> Ready:
        most = self._chance.choice([0, MOST])
        return Ready(watermark=self._position(), changed_bytes=most, wire_bytes=most)

    def _committed(self) -> Committed:
        return Committed(outcome=self._outcome())

    def _ack(self) -> Ack:
        return Ack(sequence=self._number(), durable=self._position())

    def _failed(self) -> Failed:
        return Failed(error=self._chance.choice(FAILURES), sentence="it is not so")

    def _sets_held(self) -> SetsHeld:
        return SetsHeld(sets=[self._uuid() for _ in range(self._chance.choice([0, 0, 3]))])

    def _settings(self, told: SetSettings) -> SetSettings:
        name = f"L{self._chance.getrandbits(32)}"
        kept = {"snapshot_basename": f"l{self._chance.getrandbits(32)}", "snapshot_count": 1}
        false: list[dict[str, Any]] = [
            {"name": name},
            {"suspended": not told.suspended},
            {"queue_policy": self._chance.choice(["discard", "queue-latest"])},
            {"snapshot_history": "disabled"},
            {"snapshot_history": "both", **kept},
        ]
        return msgspec.structs.replace(told, **self._chance.choice(false))

    def _begin(self, told: Begin) -> Begin:
        if self._chance.random() < 0.4:  # as if the primary knew of no copy there
            return msgspec.structs.replace(told, base=None, replaces=None)
        # 16 MiB is more than any volume here has; of much more the simulator could not read back what is in it.
        sizes = self._chance.choice([told.sizes_bytes[:-1] or [1], [*told.sizes_bytes, 4096], [1 << 24]])
        false = self._one_of(
            run=self._uuid(),
            point=self._uuid(),
            base=self._maybe(self._uuid()),
            replaces=self._maybe(self._uuid()),
            sizes_bytes=sizes[:16],
            taken_at=0.0,
            keep=not told.keep,
        )
        return msgspec.structs.replace(told, **false)

    def _discard(self) -> Discard:
        return Discard(generation=1, run=self._uuid(), sentence="it was never asked for")

    def _keep(self) -> Keep:
        return Keep(generation=1, base=self._uuid())

    def _commit(self) -> Commit:
        return Commit(generation=1, run=self._uuid(), point=self._uuid(), digest=self._digest())

    def _look(self) -> Look:
        point = self._maybe(self._recovery_point())
        return Look(set_uuid=self._uuid(), generation=1, diverged=True, primary=point)
