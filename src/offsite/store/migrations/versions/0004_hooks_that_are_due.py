"""Runs whose after-snapshot hook has not ended.

The column is added with plain SQL, for the reason that 0002 gives.
"""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("ALTER TABLE runs ADD COLUMN after_snapshot_due BOOLEAN DEFAULT '0' NOT NULL")
    op.execute("UPDATE runs SET after_snapshot_due = 1 WHERE state = 'preparing'")
