"""What a peer may take here: whether it may make sets, how large its volumes may be, and which images were made for it.

Peers that are connected already could make sets until now, and go on to. What their sets have here counts from now on;
volumes of sets that were deleted before do not.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.execute("ALTER TABLE peers ADD COLUMN secondary_sets BOOLEAN DEFAULT '1' NOT NULL")
    op.execute("ALTER TABLE peers ADD COLUMN secondary_size_limit BIGINT")
    op.create_table(
        "peer_images",
        sa.Column("image_id", sa.Integer(), sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("peer_id", sa.Integer(), sa.ForeignKey("peers.id", ondelete="CASCADE"), nullable=False, index=True),
    )
    for table in ("set_members", "history_snapshots"):
        op.execute(
            f"INSERT INTO peer_images (image_id, peer_id) SELECT {table}.image_id, replication_sets.peer_id "
            f"FROM {table} JOIN replication_sets ON replication_sets.id = {table}.set_id "
            "WHERE replication_sets.role = 'secondary'"
        )
