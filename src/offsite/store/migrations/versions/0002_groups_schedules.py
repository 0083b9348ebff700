"""Volume groups, queue and history of replication sets, tasks and schedules, settings.

Columns are added with plain SQL: Alembic would make the table anew, and dropping the old one takes along
the rows that refer to it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_COLUMNS = (
    "peers ADD COLUMN bandwidth_limit BIGINT",
    "peers ADD COLUMN bandwidth_calendar VARCHAR DEFAULT '' NOT NULL",
    "replication_sets ADD COLUMN group_id INTEGER REFERENCES volume_groups (id)",
    "replication_sets ADD COLUMN remote_group VARCHAR",
    "replication_sets ADD COLUMN queue_policy VARCHAR DEFAULT 'queue-latest' NOT NULL",
    "replication_sets ADD COLUMN snapshot_history VARCHAR DEFAULT 'disabled' NOT NULL",
    "replication_sets ADD COLUMN snapshot_basename VARCHAR",
    "replication_sets ADD COLUMN snapshot_count INTEGER",
    "replication_sets ADD COLUMN snapshot_retention_priority VARCHAR DEFAULT 'never-delete' NOT NULL",
    "replication_sets ADD COLUMN next_snapshot_number INTEGER DEFAULT '0' NOT NULL",
    "replication_sets ADD COLUMN suspended BOOLEAN DEFAULT '0' NOT NULL",
    "replication_sets ADD COLUMN before_snapshot VARCHAR",
    "replication_sets ADD COLUMN after_snapshot VARCHAR",
    "replication_sets ADD COLUMN hook_timeout_seconds INTEGER DEFAULT '60' NOT NULL",
    "runs ADD COLUMN snapshot_number INTEGER",
    "runs ADD COLUMN source VARCHAR",
)


def upgrade() -> None:
    op.create_table(
        "volume_groups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sa.UniqueConstraint("uuid"),
    )
    op.create_table(
        "volume_group_members",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["group_id"], ["volume_groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image_id"),
    )
    op.create_table(
        "snapshot_retention",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("priority", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image_id"),
    )
    for column in _COLUMNS:
        op.execute(f"ALTER TABLE {column}")
    op.create_table(
        "history_snapshots",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["set_id"], ["replication_sets.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image_id"),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "tasks",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("set_id", sa.Integer(), nullable=True),
        sa.Column("image_id", sa.Integer(), nullable=True),
        sa.Column("last_snapshot", sa.Boolean(), nullable=False),
        sa.Column("snapshot_prefix", sa.String(), nullable=True),
        sa.Column("retention_count", sa.Integer(), nullable=True),
        sa.Column("retention_priority", sa.String(), nullable=True),
        sa.Column("next_snapshot_number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("last_run_at", sa.Float(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["set_id"], ["replication_sets.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "task_snapshots",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("task_name", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["task_name"], ["tasks.name"], ondelete="CASCADE", onupdate="CASCADE"),
        sa.PrimaryKeyConstraint("image_id"),
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("specification", sa.String(), nullable=False),
        sa.Column("task_name", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=True),
        sa.Column("starts", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["task_name"], ["tasks.name"], ondelete="CASCADE", onupdate="CASCADE"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("runs_by_state", "runs", ["set_id", "state"])
