"""The starts of this system, and what is known of those of its peers."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "incarnations",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
    )
    op.create_table(
        "peer_incarnations",
        sa.Column("peer_id", sa.Integer(), sa.ForeignKey("peers.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.BigInteger()),
        sa.Column("start_id", sa.String()),
        sa.Column("started_at", sa.Float()),
        sa.Column("met_at", sa.Float()),
        sa.Column("denied", sa.String(), nullable=False, server_default="[]"),
        sa.Column("refused_number", sa.BigInteger()),
        sa.Column("refused_id", sa.String()),
        sa.Column("refused_started_at", sa.Float()),
        sa.Column("refused_as", sa.String()),
        sa.Column("refused_since", sa.Float()),
        sa.Column("refused_at", sa.Float()),
        sa.Column("confirmed_number", sa.BigInteger()),
        sa.Column("confirmed_id", sa.String()),
        sa.Column("own_refused_as", sa.String()),
        sa.Column("own_refused_since", sa.Float()),
        sa.Column("own_refused_for", sa.String()),
    )
