"""What a history keeps: minimums that only this system's users set, when each snapshot came, and which order ended in.

Highest numbers of histories are on record on secondaries, too. What orders runs is a number that rises, not a clock.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

_COLUMNS = (
    "replication_sets ADD COLUMN minimum_snapshot_count INTEGER DEFAULT '1' NOT NULL",
    "replication_sets ADD COLUMN minimum_snapshot_age_hours INTEGER DEFAULT '0' NOT NULL",
    "history_snapshots ADD COLUMN kept_at FLOAT DEFAULT '0' NOT NULL",
    "history_snapshots ADD COLUMN kept_told BOOLEAN DEFAULT '0' NOT NULL",
    "task_snapshots ADD COLUMN kept_told BOOLEAN DEFAULT '0' NOT NULL",
    "runs ADD COLUMN end_order INTEGER",
    "schedules ADD COLUMN starting_after INTEGER",
)


def upgrade() -> None:
    for column in _COLUMNS:
        op.execute(f"ALTER TABLE {column}")
    op.execute(
        "UPDATE history_snapshots SET kept_at = (SELECT created_at FROM images WHERE id = history_snapshots.image_id)"
    )
    op.execute(
        "UPDATE schedules SET starting_after = (SELECT COALESCE(MAX(runs.id), 0) FROM runs "
        "WHERE runs.started_at < schedules.starting_at) WHERE starting_at IS NOT NULL"
    )
    op.execute("UPDATE runs SET end_order = id WHERE ended_at IS NOT NULL")
    op.execute(
        "UPDATE replication_sets SET next_snapshot_number = (SELECT (MAX(number) + 1) % 100000 FROM history_snapshots "
        "WHERE set_id = replication_sets.id) WHERE role = 'secondary' AND id IN (SELECT set_id FROM history_snapshots)"
    )
