"""The records of starts: this system's own, and what is known of its peers'.

As in `records`, every function works within the transaction of the connection that it is given.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from offsite.replication.peers.incarnation import NOBODY, Acquaintance, Start, Verdict
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.tables import incarnations, peer_incarnations, peers
from offsite.replication.wire.messages import EARLIER_MAX


@dataclass(frozen=True)
class RefusedStart:
    """A start that was taken for an older or a second copy."""

    start: Start
    started_at: float  # by the clock of that system
    verdict: Verdict
    since: float
    at: float  # when it came last


@dataclass(frozen=True)
class OwnRefusal:
    """A peer takes this system for an older or a second copy of itself."""

    verdict: Verdict
    since: float
    taken: str  # the start that it takes instead


@dataclass(frozen=True)
class PeerIncarnation:
    """What is known of a peer's starts, and what it has told of those of this system."""

    known: Acquaintance = NOBODY
    started_at: float | None = None  # of the newest start that is known, by its clock
    met_at: float | None = None  # when that was met first
    refused: RefusedStart | None = None
    confirmed: Start | None = None  # the start of this system that the peer remembers
    own_refusal: OwnRefusal | None = None


# This system's


def begin_start(connection: Connection, now: float) -> list[Start]:
    """A new start: one more than the last. Returns the newest ones with it, oldest first."""
    last = connection.execute(select(incarnations.c.number).order_by(incarnations.c.number.desc()).limit(1)).scalar()
    number = (last or 0) + 1
    connection.execute(insert(incarnations).values(number=number, id=uuid.uuid4().hex[:16], started_at=now))
    connection.execute(delete(incarnations).where(incarnations.c.number < number - EARLIER_MAX))
    rows = connection.execute(select(incarnations.c.number, incarnations.c.id).order_by(incarnations.c.number))
    return [Start(number, id) for number, id in rows]


# Peers'


# Asked with every connection: to put it together anew would take as long as SQLite does.
_OF_PEER = select(peer_incarnations).where(peer_incarnations.c.peer_id == bindparam("peer"))


def peer_incarnation(connection: Connection, peer_id: int) -> PeerIncarnation:
    row = connection.execute(_OF_PEER, {"peer": peer_id}).mappings().first()
    if row is None:
        return PeerIncarnation()
    newest = None if row["number"] is None else Start(row["number"], row["start_id"])
    denied = tuple(Start(number, id) for number, id in json.loads(row["denied"]))
    refused = own_refusal = confirmed = None
    if row["refused_number"] is not None:
        refused = RefusedStart(
            Start(row["refused_number"], row["refused_id"]),
            row["refused_started_at"],
            Verdict(row["refused_as"]),
            row["refused_since"],
            row["refused_at"],
        )
    if row["own_refused_as"] is not None:
        own_refusal = OwnRefusal(Verdict(row["own_refused_as"]), row["own_refused_since"], row["own_refused_for"])
    if row["confirmed_number"] is not None:
        confirmed = Start(row["confirmed_number"], row["confirmed_id"])
    return PeerIncarnation(
        Acquaintance(newest, denied), row["started_at"], row["met_at"], refused, confirmed, own_refusal
    )


# With every message but batches: hence one question for both.
_PEER_AND_START = (
    select(peers, peer_incarnations.c.number.label("start_number"), peer_incarnations.c.start_id)
    .join(peer_incarnations, peer_incarnations.c.peer_id == peers.c.id, isouter=True)
    .where(peers.c.certificate == bindparam("certificate"))
)


def find_peer_and_start(connection: Connection, certificate: bytes) -> tuple[PeerRecord, Start | None] | None:
    """The peer, and the newest start of it that was met."""
    row = connection.execute(_PEER_AND_START, {"certificate": certificate}).mappings().first()
    if row is None:
        return None
    values = dict(row)
    number, start_id = values.pop("start_number"), values.pop("start_id")
    return PeerRecord(**values), None if number is None else Start(number, start_id)


def put_known(connection: Connection, peer_id: int, known: Acquaintance, started_at: float, met_at: float) -> None:
    newest = known.newest
    assert newest is not None  # what is put on record is one that was met
    values = {"number": newest.number, "start_id": newest.id, "started_at": started_at, "met_at": met_at}
    denied = json.dumps([[start.number, start.id] for start in known.denied])
    _put(connection, peer_id, {**values, "denied": denied})


def put_refused(connection: Connection, peer_id: int, refused: RefusedStart | None) -> None:
    values: dict[str, Any] = dict.fromkeys(
        ("refused_number", "refused_id", "refused_started_at", "refused_as", "refused_since", "refused_at")
    )
    if refused is not None:
        values |= {
            "refused_number": refused.start.number,
            "refused_id": refused.start.id,
            "refused_started_at": refused.started_at,
            "refused_as": refused.verdict.value,
            "refused_since": refused.since,
            "refused_at": refused.at,
        }
    _put(connection, peer_id, values)


def put_confirmed(connection: Connection, peer_id: int, start: Start) -> None:
    _put(connection, peer_id, {"confirmed_number": start.number, "confirmed_id": start.id})


def put_own_refusal(connection: Connection, peer_id: int, refusal: OwnRefusal | None) -> None:
    values: dict[str, Any] = dict.fromkeys(("own_refused_as", "own_refused_since", "own_refused_for"))
    if refusal is not None:
        values = {
            "own_refused_as": refusal.verdict.value,
            "own_refused_since": refusal.since,
            "own_refused_for": refusal.taken,
        }
    _put(connection, peer_id, values)


def _put(connection: Connection, peer_id: int, values: dict[str, Any]) -> None:
    of = peer_incarnations.c.peer_id == peer_id
    if not connection.execute(update(peer_incarnations).where(of).values(values)).rowcount:
        connection.execute(insert(peer_incarnations).values(peer_id=peer_id, **values))
