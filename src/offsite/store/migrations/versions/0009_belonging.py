"""What tells that data files, database and its log belong together; files of deleted pools.

Pools of an older version get their generation at the first start. Columns are added with plain SQL, for the reason
that 0002 gives.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("ALTER TABLE pools ADD COLUMN generation VARCHAR")
    op.execute("ALTER TABLE pools ADD COLUMN previous_generation VARCHAR")
    op.create_table(
        "pool_remains",
        sa.Column("uuid", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("uuid"),
    )
    op.create_table(
        "database_log",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("round", sa.String(), nullable=False),
        sa.Column("written_back", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.execute("INSERT INTO database_log (id, round) VALUES (1, lower(hex(randomblob(16))))")
