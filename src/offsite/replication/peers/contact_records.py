"""The records of contacts with peers: an outage and a skew of clocks that were told.

As in `records`, every function works within the transaction of the connection that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from offsite.replication.peers.clock_skew import Skew
from offsite.replication.records.tables import peer_contacts

_OF_PEER = select(peer_contacts).where(peer_contacts.c.peer_id == bindparam("peer"))


@dataclass(frozen=True)
class ContactRecord:
    gone_since: float | None = None  # told as gone, and not as back
    skew: Skew | None = None
    skew_told: bool = False


def contact_record(connection: Connection, peer_id: int) -> ContactRecord:
    row = connection.execute(_OF_PEER, {"peer": peer_id}).mappings().first()
    if row is None:
        return ContactRecord()
    seconds = row["skew_seconds"]
    skew = None if seconds is None else Skew(seconds, row["skew_uncertainty_seconds"])
    return ContactRecord(row["gone_since"], skew, row["skew_told"])


def put_contact(connection: Connection, peer_id: int, *, skew: Skew | None = None, **values: Any) -> None:
    """What is given; all else stays."""
    if skew is not None:
        values |= {"skew_seconds": skew.seconds, "skew_uncertainty_seconds": skew.uncertainty_seconds}
    of = peer_contacts.c.peer_id == peer_id
    if not connection.execute(update(peer_contacts).where(of).values(values)).rowcount:
        connection.execute(insert(peer_contacts).values(peer_id=peer_id, **values))
