"""Peer connections, replication sets, their members, the points they hold, and runs."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from offsite.store.tables.base import metadata


def _image() -> ForeignKey:
    """Held until the commit: a step of a run deletes an image and the row that names it in one transaction."""
    return ForeignKey("images.id", deferrable=True, initially="DEFERRED")


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
    Column("uuid", String, nullable=False, unique=True),  # the same on both systems
    Column("name", String, nullable=False, unique=True),
    Column("role", String, nullable=False),  # primary, secondary
    Column("state", String, nullable=False),  # preparing: the other half may not be there yet; ready
    Column("peer_id", ForeignKey("peers.id"), nullable=False),
    Column("remote_pool", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)

set_members = Table(
    "set_members",
    metadata,
    Column("set_id", ForeignKey("replication_sets.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("image_id", _image(), nullable=False),  # the volume or snapshot on this side
    Column("remote_name", String, nullable=False),  # its other end
)

# A point is an instant of all members of a set: the uuid of the run that took it, and an image for each member.
points = Table(
    "points",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("set_id", ForeignKey("replication_sets.id", ondelete="CASCADE"), nullable=False),
    Column("uuid", String, nullable=False),
    Column("state", String, nullable=False),  # base: both ends hold it; pending: to be sent; partial: being filled
    Column("taken_at", Float, nullable=False),
    Column("based_on", String),  # partial: uuid of the base that it was cloned from; none: from nothing
    # partial: all before this position is durable here, and this is the digest of it
    Column("watermark_member", Integer, nullable=False),
    Column("watermark_offset", BigInteger, nullable=False),
    Column("watermark_digest", String, nullable=False),
    UniqueConstraint("set_id", "uuid"),
)

point_images = Table(
    "point_images",
    metadata,
    Column("point_id", ForeignKey("points.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("image_id", _image(), nullable=False),
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
    Column("changed_bytes", BigInteger, nullable=False),  # data that differed, before compression
    Column("wire_bytes", BigInteger, nullable=False),  # frames of both directions
    Column("digest", String),
    Column("error", String),
)
