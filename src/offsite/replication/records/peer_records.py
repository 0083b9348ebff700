"""The records of peer connections.

Every function works within the transaction of the connection that it is given, so that a step of a run can be one
transaction with what it does to images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from offsite.replication.records.tables import peers


@dataclass(frozen=True)
class PeerRecord:
    id: int
    name: str
    system_uuid: str
    system_name: str
    address: str
    certificate: bytes
    created_at: float
    bandwidth_limit: int | None  # bytes a second; None: no limit
    bandwidth_calendar: str
    secondary_sets: bool  # whether it may make sets here
    secondary_size_limit: int | None  # bytes, of all its volumes here together; None: no limit


# Asked all the time: to put a statement together anew would take as long as SQLite does.
_ALL_PEERS = select(peers).order_by(peers.c.name)
_PEER_OF_CERTIFICATE = select(peers).where(peers.c.certificate == bindparam("certificate"))
_PEER_OF_ID = select(peers.c.id).where(peers.c.id == bindparam("peer"))


def all_peers(connection: Connection) -> list[PeerRecord]:
    return [PeerRecord(**row) for row in connection.execute(_ALL_PEERS).mappings()]


def find_peer(connection: Connection, certificate: bytes) -> PeerRecord | None:
    row = connection.execute(_PEER_OF_CERTIFICATE, {"certificate": certificate}).mappings().first()
    return PeerRecord(**row) if row else None


def has_peer(connection: Connection, peer_id: int) -> bool:
    """Asked before what is known of a peer is put on record: its peer connection may have been deleted just now."""
    return connection.execute(_PEER_OF_ID, {"peer": peer_id}).first() is not None


def insert_peer(connection: Connection, values: dict[str, Any]) -> None:
    connection.execute(insert(peers).values(values))


def update_peer(connection: Connection, peer_id: int, values: dict[str, Any]) -> None:
    connection.execute(update(peers).where(peers.c.id == peer_id).values(values))


def delete_peer(connection: Connection, peer_id: int) -> None:
    connection.execute(delete(peers).where(peers.c.id == peer_id))


def peer_name(connection: Connection, peer_id: int) -> str:
    """What the system at the other end calls itself."""
    return str(connection.execute(select(peers.c.system_name).where(peers.c.id == peer_id)).scalar_one())
