"""The start that a schedule is just making, and an index of what is due.

The column is added with plain SQL, for the reason that 0002 gives.
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("ALTER TABLE schedules ADD COLUMN starting_at FLOAT")
    op.create_index("schedules_by_next_at", "schedules", ["next_at"])
