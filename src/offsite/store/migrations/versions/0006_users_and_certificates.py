"""Generations of users, certificates of initiators, and rings of events.

Columns are added with plain SQL, for the reason that 0002 gives.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("ALTER TABLE users ADD COLUMN generation VARCHAR DEFAULT '' NOT NULL")
    op.execute("UPDATE users SET generation = lower(hex(randomblob(16)))")
    op.execute("ALTER TABLE events ADD COLUMN ring VARCHAR DEFAULT 'system' NOT NULL")
    op.create_index("events_by_ring", "events", ["ring", "id"])
    op.create_table(
        "initiator_certificates",
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("issued_at", sa.Float(), nullable=True),
        sa.Column("ends_at", sa.Float(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index("initiator_certificates_by_name", "initiator_certificates", ["name"])
    op.create_table(
        "revoked_initiators",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
