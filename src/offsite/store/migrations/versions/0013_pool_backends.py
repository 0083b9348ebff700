"""Of which backend each pool is (until now, all were local); objects of backends that cannot join a transaction.

Columns are added with plain SQL, for the reason that 0002 gives.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    for table in ("pools", "pool_remains"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN backend VARCHAR DEFAULT 'local' NOT NULL")
    op.create_table(
        "image_objects",
        sa.Column("image_id", sa.Integer(), sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("object", sa.String(), nullable=False, unique=True),
    )
    op.create_table(
        "pool_intents",
        sa.Column("object", sa.String(), primary_key=True),
        sa.Column("pool_id", sa.Integer(), sa.ForeignKey("pools.id", ondelete="CASCADE"), nullable=False),
    )
