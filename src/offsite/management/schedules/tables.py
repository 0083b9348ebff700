"""Tasks and schedules."""

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, String, Table

from offsite.store.tables import metadata

tasks = Table(
    "tasks",
    metadata,
    Column("name", String, primary_key=True),
    Column("type", String, nullable=False),  # TakeSnapshot, ResetSnapshot, Replicate
    Column("set_id", ForeignKey("replication_sets.id", ondelete="CASCADE")),  # Replicate: which set
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE")),  # of which volume; which snapshot to reset
    Column("last_snapshot", Boolean, nullable=False),  # Replicate: the newest snapshot there is, not a new one
    Column("snapshot_prefix", String),
    Column("retention_count", Integer),
    Column("retention_priority", String),
    Column("next_snapshot_number", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("last_run_at", Float),
    Column("last_error", String),  # of the last start; none: it went well
)


# The snapshots that a TakeSnapshot task has made and still looks after.
task_snapshots = Table(
    "task_snapshots",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("task_name", ForeignKey("tasks.name", ondelete="CASCADE", onupdate="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kept_told", Boolean, nullable=False, server_default="0"),  # that it stays though it ought to have gone
)


schedules = Table(
    "schedules",
    metadata,
    Column("name", String, primary_key=True),
    Column("specification", String, nullable=False),
    Column("task_name", ForeignKey("tasks.name", ondelete="CASCADE", onupdate="CASCADE"), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("next_at", Float),  # seconds since the epoch; none: it has expired, or cannot be read
    Column("starts", Integer, nullable=False),  # how often it has started its task
    Column("error", String),  # why its specification cannot be read
    Column("starting_at", Float),  # the instant whose start is under way; none: none is
    Column("starting_after", Integer),  # the newest run on record when that start began: its own is a newer one
    Index("schedules_by_next_at", "next_at"),
)
