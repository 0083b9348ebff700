"""Peer connections, replication sets, their members and runs."""

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Integer, LargeBinary, String, Table

from offsite.store.tables.base import metadata

peers = Table(
    "peers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("system_uuid", String, nullable=False, unique=True),
    Column("system_name", String, nullable=False),
    Column("address", String, nullable=False),  # HOST:PORT of its peer port
    Column("certificate", LargeBinary, nullable=False),  # DER, pinned
    Column("created_at", Float, nullable=False),
)

replication_sets = Table(
    "replication_sets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String, nullable=False, unique=True),
    Column("name", String, nullable=False, unique=True),
    Column("role", String, nullable=False),  # primary, secondary
    Column("peer_id", ForeignKey("peers.id"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)

set_members = Table(
    "set_members",
    metadata,
    Column("set_id", ForeignKey("replication_sets.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("image_id", ForeignKey("images.id"), nullable=False),  # the volume or snapshot on this side
    Column("remote_name", String, nullable=False),  # its other end
    Column("base_id", ForeignKey("images.id")),  # newest snapshot that both ends hold complete
    Column("target_id", ForeignKey("images.id")),  # primary: snapshot being sent; secondary: hidden clone being filled
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String, nullable=False, unique=True),
    Column("set_id", ForeignKey("replication_sets.id", ondelete="CASCADE"), nullable=False),
    Column("state", String, nullable=False),  # running, success, failed, aborted
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("watermark", BigInteger, nullable=False),  # secondary: bytes of the plan that are durable here
    Column("changed_bytes", BigInteger, nullable=False),
    Column("wire_bytes", BigInteger, nullable=False),
    Column("digest", String),
    Column("error", String),
)
