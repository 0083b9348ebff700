"""Peer connections, replication sets, their members, the points they hold, and runs."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from offsite.store.tables import metadata


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
    Column("bandwidth_limit", BigInteger),  # bytes a second that runs may send to it; none: no limit
    Column("bandwidth_calendar", String, nullable=False, server_default=""),  # other limits at certain hours
    Column("secondary_sets", Boolean, nullable=False, server_default="1"),  # whether it may make sets here
    Column("secondary_size_limit", BigInteger),  # of all its volumes here together; none: no limit
)

# The newest starts of this system: see replication/peers/incarnation.py.
incarnations = Table(
    "incarnations",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String, nullable=False),
    Column("started_at", Float, nullable=False),
)

# What is known of a peer's starts, and what it has told of those of this system.
peer_incarnations = Table(
    "peer_incarnations",
    metadata,
    Column("peer_id", ForeignKey("peers.id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger),  # the newest start of it that was met; none: none yet
    Column("start_id", String),
    Column("started_at", Float),  # by its clock
    Column("met_at", Float),
    Column("denied", String, nullable=False, server_default="[]"),  # JSON: starts that an operator has given up
    Column("refused_number", BigInteger),  # an older or second copy of it that has come; none: none
    Column("refused_id", String),
    Column("refused_started_at", Float),
    Column("refused_as", String),  # older, twin, denied
    Column("refused_since", Float),
    Column("refused_at", Float),  # when it came last
    Column("confirmed_number", BigInteger),  # the start of this system that the peer is known to remember
    Column("confirmed_id", String),
    Column("own_refused_as", String),  # as what the peer refuses this system: older, twin, denied; none: it does not
    Column("own_refused_since", Float),
    Column("own_refused_for", String),  # which start of this system the peer takes instead
)

# What was told of the contact with a peer: see replication/peers/contacts.py.
peer_contacts = Table(
    "peer_contacts",
    metadata,
    Column("peer_id", ForeignKey("peers.id", ondelete="CASCADE"), primary_key=True),
    Column("gone_since", Float),  # it was told that the peer is gone; none: it is there
    Column("skew_seconds", Float),  # how far its clock was ahead of ours when that was put on record
    Column("skew_uncertainty_seconds", Float),
    Column("skew_told", Boolean, nullable=False, server_default="0"),
)

# Volumes and snapshots that were made here at a peer's request. They count for it until they are deleted.
peer_images = Table(
    "peer_images",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("peer_id", ForeignKey("peers.id", ondelete="CASCADE"), nullable=False, index=True),
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
    Column("group_id", ForeignKey("volume_groups.id")),  # of its members here
    Column("remote_group", String),  # name of its other end
    Column("queue_policy", String, nullable=False, server_default="queue-latest"),  # discard, queue-latest
    Column("snapshot_history", String, nullable=False, server_default="disabled"),  # disabled, secondary, both
    Column("snapshot_basename", String),
    Column("snapshot_count", Integer),
    Column("snapshot_retention_priority", String, nullable=False, server_default="never-delete"),
    # Every request takes one; on the secondary: the one after the highest that it has used.
    Column("next_snapshot_number", Integer, nullable=False, server_default="0"),
    Column("suspended", Boolean, nullable=False, server_default="0"),  # by a user, until a user resumes it
    Column("before_snapshot", String),  # commands in the directory of hooks
    Column("after_snapshot", String),
    Column("hook_timeout_seconds", Integer, nullable=False, server_default="60"),
    # What the users of this system want to be kept of the history here, whatever the other system says.
    Column("minimum_snapshot_count", Integer, nullable=False, server_default="1"),
    Column("minimum_snapshot_age_hours", Integer, nullable=False, server_default="0"),
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
    # partial: all before this position is durable here
    Column("watermark_member", Integer, nullable=False),
    Column("watermark_offset", BigInteger, nullable=False),
    UniqueConstraint("set_id", "uuid"),
)

point_images = Table(
    "point_images",
    metadata,
    Column("point_id", ForeignKey("points.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("image_id", _image(), nullable=False),
)

# What both ends of a set once held complete, oldest first: how a system knows an older copy for one of its own.
recovery_points = Table(
    "recovery_points",
    metadata,
    Column("set_id", ForeignKey("replication_sets.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),  # rises with each
    Column("uuid", String, nullable=False),  # of the point
    Column("taken_at", Float, nullable=False),
    Column("completed_at", Float, nullable=False),  # when it was known on this side
    Column("digest", String),  # of the run that sent it
    UniqueConstraint("set_id", "uuid"),
)

# What the other half of a set was last seen to hold, while that is not what this half holds.
other_halves = Table(
    "other_halves",
    metadata,
    Column("set_id", ForeignKey("replication_sets.id", ondelete="CASCADE"), primary_key=True),
    Column("relation", String, nullable=False),  # older: a point of ours, or nothing; diverged: one we never had
    Column("base", String),  # uuid of the point; none: it holds nothing complete
    Column("taken_at", Float),
    Column("completed_at", Float),
    Column("digest", String),
    Column("data_bytes", BigInteger),
    Column("found_at", Float, nullable=False),
    Column("may_be_replaced", Boolean, nullable=False, server_default="0"),  # an operator has said so of this base
)

# Snapshots of what a secondary held before an operator had it replaced. Nothing rotates them.
kept_contents = Table(
    "kept_contents",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("set_id", ForeignKey("replication_sets.id", ondelete="CASCADE"), nullable=False),
    Column("base", String, nullable=False),  # uuid of the point that was kept
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String, nullable=False, unique=True),
    Column("set_id", ForeignKey("replication_sets.id", ondelete="CASCADE"), nullable=False),
    # preparing: its hooks run; queued: behind another; running; success, failed, aborted, dropped: ended
    Column("state", String, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("changed_bytes", BigInteger, nullable=False),  # data that differed, before compression
    Column("wire_bytes", BigInteger, nullable=False),  # frames of both directions
    Column("digest", String),
    Column("error", String),
    Column("snapshot_number", Integer),  # for the names of its history snapshots
    Column("end_order", Integer),  # rises with each run of the set that ends; a clock may be put back
    Column("source", String),  # name of the snapshot that it sends; none: the volumes as they were
    Column("after_snapshot_due", Boolean, nullable=False, server_default="0"),  # that hook has not ended
    Index("runs_by_state", "set_id", "state"),  # counted for metrics, and asked for wherever a set is shown
)

# The snapshots of a set's history on this side; when the set is deleted they stay, as ordinary snapshots.
history_snapshots = Table(
    "history_snapshots",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("set_id", ForeignKey("replication_sets.id", ondelete="CASCADE"), nullable=False),
    Column("run", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("kept_at", Float, nullable=False, server_default="0"),  # when it was taken, by the clock of this system
    Column("kept_told", Boolean, nullable=False, server_default="0"),  # that it stays though it ought to have gone
)
