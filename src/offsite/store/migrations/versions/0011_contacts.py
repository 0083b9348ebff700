"""Outages of peers and skews of clocks that were told."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "peer_contacts",
        sa.Column("peer_id", sa.Integer(), sa.ForeignKey("peers.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("gone_since", sa.Float()),
        sa.Column("skew_seconds", sa.Float()),
        sa.Column("skew_uncertainty_seconds", sa.Float()),
        sa.Column("skew_told", sa.Boolean(), nullable=False, server_default="0"),
    )
