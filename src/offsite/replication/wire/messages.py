"""What two systems say to each other: every message of the peer protocol, with its types and bounds.

A message is a msgpack map with its name under "type". Fields that are not known are passed over, so that a
newer system can add some; a field that is missing, of another type or out of bounds is a ProtocolError.
docs/wire-protocol.md tells who sends what when.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from offsite.pools.protocol import SIZE_BYTES_MAX

VERSION = 1
VERSION_OLDEST = 1
MEMBERS_MAX = 16
POINTS_MAX = 256  # of each kind that an end tells of a set
EARLIER_MAX = 128  # starts that a system tells, besides the present one and the one that its peer has confirmed
DENIED_MAX = 16  # starts that a system tells it has given up

# Each text has a pattern, or a rule of `message_rules`.
Uuid = Annotated[str, Meta(min_length=36, max_length=36, pattern="^[0-9A-Za-z-]*$")]
Name = Annotated[str, Meta(min_length=1, max_length=32, extra={"rule": "name"})]
Basename = Annotated[str, Meta(min_length=1, max_length=26, extra={"rule": "basename"})]
Host = Annotated[str, Meta(max_length=255, extra={"rule": "host"})]
Sentence = Annotated[str, Meta(max_length=4096, extra={"rule": "sentence"})]
Secret = Annotated[str, Meta(max_length=1024, extra={"rule": "secret"})]
Digest = Annotated[bytes, Meta(min_length=16, max_length=16)]
Certificate = Annotated[bytes, Meta(min_length=1, max_length=16384)]
MemberIndex = Annotated[int, Meta(ge=0, le=MEMBERS_MAX)]
Bytes = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
SizeBytes = Annotated[int, Meta(ge=1, le=SIZE_BYTES_MAX)]
Offset = Annotated[int, Meta(ge=0, le=SIZE_BYTES_MAX)]
Counter = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
StartNumber = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
StartId = Annotated[str, Meta(min_length=16, max_length=16, pattern="^[0-9a-f]*$")]
INSTANT_MAX = 4_102_444_800
Instant = Annotated[float, Meta(ge=0, le=INSTANT_MAX)]
"""Seconds since the epoch, up to the year 2100: no NaN, no infinity, nothing that cannot be shown as a date."""


def told_instant(instant: float) -> float:
    """What is told of an instant. One that a clock has shown when it was wrong would end each connection on which it is
    told, and with that the set, for ever."""
    return min(max(0.0, instant), float(INSTANT_MAX))


SnapshotNumber = Annotated[int, Meta(ge=0, le=99_999)]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True):
    """Base of all messages."""


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in the order in which a point is sent: all members before `member`, and it up to `offset`."""

    member: MemberIndex = 0
    offset: Offset = 0


START = Position(0, 0)


class ToldStart(msgspec.Struct, frozen=True, array_like=True):
    """A start of a system: see incarnation.py."""

    number: StartNumber
    id: StartId


class ToldIncarnation(msgspec.Struct, frozen=True, kw_only=True):
    """The present start of the system that tells it, and starts that it descends from."""

    current: ToldStart
    started_at: Instant
    earlier: Annotated[list[ToldStart], Meta(max_length=EARLIER_MAX + 1)]


class ToldAcquaintance(msgspec.Struct, frozen=True, kw_only=True):
    """What the system that tells it remembers of the starts of the one that it is told to."""

    newest: ToldStart | None = None
    denied: Annotated[list[ToldStart], Meta(max_length=DENIED_MAX)] = []


class Hello(Message, frozen=True, kw_only=True):
    """The first message of each side: who it is. The version is the newest that it speaks. What follows the software
    is told to pinned peers only."""

    version: Annotated[int, Meta(ge=1, le=65535)]
    system_uuid: Uuid
    system_name: Name
    software: Annotated[str, Meta(max_length=64, extra={"rule": "label"})]
    incarnation: ToldIncarnation | None = None
    known: ToldAcquaintance | None = None
    now: Instant | None = None  # by the clock on the wall


class Failed(Message, frozen=True, kw_only=True):
    """The answer to a request that was refused or failed: the name of the error's class and its sentence."""

    error: Annotated[str, Meta(max_length=64, extra={"rule": "label"})]
    sentence: Sentence


class Done(Message, frozen=True, kw_only=True):
    """The answer to a request that has nothing to tell but that it is done, durably."""


class Working(Message, frozen=True, kw_only=True):
    """Sent every few seconds instead of an answer that takes long: the other end is alive."""


class Ping(Message, frozen=True, kw_only=True):
    """Answered by Done."""


class Pair(Message, frozen=True, kw_only=True):
    """Asks to be pinned as a peer. Answered by Done. The only request of someone without a certificate."""

    username: Annotated[str, Meta(max_length=256, extra={"rule": "label"})]
    password: Secret
    certificate: Certificate  # of the one who asks, DER
    host: Host  # where it can be reached; '': where this connection comes from
    port: Annotated[int, Meta(ge=1, le=65535)]
    replace: bool = False  # a certificate that is pinned for the one who asks gives way to this one

    def __repr__(self) -> str:
        return f"Pair(username={self.username!r}, password=…)"


class Unpair(Message, frozen=True, kw_only=True):
    """Asks to be forgotten as a peer. Answered by Done."""


class SetSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the primary tells of a set so that both systems show it alike."""

    name: Name
    queue_policy: Literal["discard", "queue-latest"] = "queue-latest"
    snapshot_history: Literal["disabled", "secondary", "both"] = "disabled"
    snapshot_basename: Basename | None = None
    snapshot_count: Annotated[int, Meta(ge=1, le=16)] | None = None
    snapshot_retention_priority: Literal["never-delete", "low", "medium", "high"] = "never-delete"
    suspended: bool = False


class PrimaryNames(msgspec.Struct, frozen=True, kw_only=True):
    """What the primary's volumes are called, in the order of the members, and their group if they are one."""

    group: Name | None = None
    members: Annotated[list[Name], Meta(min_length=1, max_length=MEMBERS_MAX)]


class NewMember(msgspec.Struct, frozen=True, kw_only=True):
    primary_name: Name
    secondary_name: Name
    size_bytes: SizeBytes


class CreateSet(Message, frozen=True, kw_only=True):
    """Asks for the secondary half of a set: its volumes and its record. Answered by Done."""

    set_uuid: Uuid
    settings: SetSettings
    generation: Counter
    primary_pool: Name
    secondary_pool: Name
    primary_group: Name | None = None  # with a group on either side there is one on both
    secondary_group: Name | None = None
    members: Annotated[list[NewMember], Meta(min_length=1, max_length=MEMBERS_MAX)]


class ChangeSet(Message, frozen=True, kw_only=True):
    """Tells the secondary what the set is like now. Answered by Done."""

    set_uuid: Uuid
    generation: Counter
    settings: SetSettings
    primary: PrimaryNames | None = None  # none: as they were


class DeleteSet(Message, frozen=True, kw_only=True):
    """Asks that the other half of a set end; a set that is not there has ended. Answered by Done."""

    set_uuid: Uuid
    generation: Counter


class ListSets(Message, frozen=True, kw_only=True):
    """Asks which halves of the two systems' common sets there are. Answered by SetsHeld."""


class SetsHeld(Message, frozen=True, kw_only=True):
    sets: Annotated[list[Uuid], Meta(max_length=1024)]


class RecoveryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A point that one end of a set holds complete."""

    point: Uuid
    taken_at: Instant
    completed_at: Instant  # since when it is complete there
    digest: Digest | None = None  # of the run that sent it
    data_bytes: Bytes = 0  # of all members


class Ask(Message, frozen=True, kw_only=True):
    """Opens a run: what does the secondary hold of this set? Answered by Holds."""

    set_uuid: Uuid
    generation: Counter


class Partial(msgspec.Struct, frozen=True, kw_only=True):
    """A point that the secondary holds in part: all before `watermark` is durable there."""

    point: Uuid
    base: Uuid | None
    watermark: Position


class RunOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What both ends put on record about a run: the digest of all its batches, and the bytes of all its attempts."""

    digest: Digest
    changed_bytes: Bytes
    wire_bytes: Bytes
    snapshot_number: SnapshotNumber | None = None  # of what the secondary has kept of it; none: it has kept nothing


Points = Annotated[list[Uuid], Meta(max_length=POINTS_MAX)]
"""Oldest first."""


class Holds(Message, frozen=True, kw_only=True):
    """What an end of a set is, and what it holds of the set: either end tells it so, and plans are made of it."""

    role: Literal["primary", "secondary"]
    generation: Counter
    base: Uuid | None  # the newest point that both ends have, as far as this one knows
    complete: RecoveryPoint | None = None  # the base, as there is to tell of it
    outcome: RunOutcome | None = None  # of the run that sent the base, in case that its Committed was lost
    partial: Partial | None = None  # the point that it is being filled with
    pending: Points = []  # those that it has taken, and is to send
    aborted: Points = []  # those of aborted runs, kept until it is known whether the other end has one for its base


class Begin(Message, frozen=True, kw_only=True):
    """Asks the secondary to be ready to be filled with `point`, starting from `base`. Answered by Ready."""

    generation: Counter
    run: Uuid
    point: Uuid
    base: Uuid | None
    taken_at: Instant
    sizes_bytes: Annotated[list[SizeBytes], Meta(min_length=1, max_length=MEMBERS_MAX)]
    replaces: Uuid | None = None  # the base that the secondary holds, when it is another one than `base`
    keep: bool = False  # as a snapshot of each volume there: for what the primary has never had


class Ready(Message, frozen=True, kw_only=True):
    """Send from `watermark` on, then have compared what lies below it. The bytes are those of the whole run so far."""

    watermark: Position
    changed_bytes: Bytes
    wire_bytes: Bytes


class Batch(Message, frozen=True, kw_only=True):
    """Some extents of a point, in the payload of the frame: the table of extents, then their data.

    `position` is how far the point is sent once this batch is in. Answered by Ack.

    One that `compares` is of what an earlier connection has sent, and has no data: what is stored is read again.
    `position` is then how far that is done.
    """

    sequence: Counter
    position: Position
    extents: Annotated[int, Meta(ge=0, le=8192)]
    data_bytes: Annotated[int, Meta(ge=0, le=1 << 21)]  # before compression
    compression: Annotated[int, Meta(ge=0, le=1)]  # 0 none, 1 zstd
    digest: Digest  # xxh3_128 of the table and the data before compression
    compares: bool = False


class Ack(Message, frozen=True, kw_only=True):
    """What was stored reads back with the batch's digest; all before `durable` survives a crash."""

    sequence: Counter
    durable: Position


class HistorySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the secondary is to keep of this run, and how many of such at least before it lets older ones go."""

    basename: Basename
    number: SnapshotNumber  # or a later one, which the outcome tells
    count: Annotated[int, Meta(ge=1, le=16)]
    retention_priority: Literal["never-delete", "low", "medium", "high"]


class Commit(Message, frozen=True, kw_only=True):
    """All of `point` is sent, with this digest: make it the secondary volumes. Answered by Committed."""

    generation: Counter
    run: Uuid
    point: Uuid
    digest: Digest
    history: HistorySnapshot | None = None  # to be taken in the same step


class Committed(Message, frozen=True, kw_only=True):
    outcome: RunOutcome


class Look(Message, frozen=True, kw_only=True):
    """What does the other end hold of this set? Answered by Holds, whatever its role and generation are: it tells them.
    Unlike Ask it opens no run and cuts none off. What follows the generation is for a secondary of that generation."""

    set_uuid: Uuid
    generation: Counter
    diverged: bool = False  # the primary has found that it never had the secondary's base
    primary: RecoveryPoint | None = None  # what the primary holds then


class Keep(Message, frozen=True, kw_only=True):
    """Within a run: `base` is to be replaced; it is to stay as a snapshot of each volume. Answered by Kept."""

    base: Uuid
    generation: Counter


class Kept(Message, frozen=True, kw_only=True):
    snapshots: Annotated[list[Name], Meta(min_length=1, max_length=MEMBERS_MAX)]


class Discard(Message, frozen=True, kw_only=True):
    """Tells that a run was aborted: what there is of its point goes. Answered by Done."""

    generation: Counter
    run: Uuid
    sentence: Sentence


AnyMessage = (
    Hello | Failed | Done | Working | Ping | Pair | Unpair
    | CreateSet | ChangeSet | DeleteSet | ListSets | SetsHeld
    | Ask | Holds | Begin | Ready | Batch | Ack | Commit | Committed | Discard
    | Look | Keep | Kept
)  # fmt: skip
