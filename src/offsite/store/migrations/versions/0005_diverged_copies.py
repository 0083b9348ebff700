"""What both ends of a set once held, what its other half holds now, and what was kept of a copy that was replaced.

The points that a set is known to have had are its base and those of the runs on record that went well.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "recovery_points",
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(), nullable=False),
        sa.Column("taken_at", sa.Float(), nullable=False),
        sa.Column("completed_at", sa.Float(), nullable=False),
        sa.Column("digest", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["set_id"], ["replication_sets.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("set_id", "number"),
        sa.UniqueConstraint("set_id", "uuid"),
    )
    op.create_table(
        "other_halves",
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("relation", sa.String(), nullable=False),
        sa.Column("base", sa.String(), nullable=True),
        sa.Column("taken_at", sa.Float(), nullable=True),
        sa.Column("completed_at", sa.Float(), nullable=True),
        sa.Column("digest", sa.String(), nullable=True),
        sa.Column("data_bytes", sa.BigInteger(), nullable=True),
        sa.Column("found_at", sa.Float(), nullable=False),
        sa.Column("may_be_replaced", sa.Boolean(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["set_id"], ["replication_sets.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("set_id"),
    )
    op.create_table(
        "kept_contents",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["set_id"], ["replication_sets.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image_id"),
    )
    # The base comes last: it is the newest, though the run that took it may have begun before another one did.
    op.execute(
        "INSERT INTO recovery_points (set_id, number, uuid, taken_at, completed_at, digest) "
        "SELECT set_id, row_number() OVER (PARTITION BY set_id ORDER BY is_base, id), "
        "uuid, taken_at, completed_at, digest "
        "FROM (SELECT r.set_id, r.uuid, coalesce(p.taken_at, r.started_at) AS taken_at, "
        "coalesce(r.ended_at, r.started_at) AS completed_at, r.digest, p.state = 'base' AS is_base, r.id AS id "
        "FROM runs r LEFT JOIN points p ON p.set_id = r.set_id AND p.uuid = r.uuid "
        "WHERE r.state = 'success' "
        "UNION ALL "
        "SELECT p.set_id, p.uuid, p.taken_at, p.taken_at, NULL, 1, 0 FROM points p WHERE p.state = 'base' "
        "AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.uuid = p.uuid AND r.state = 'success'))"
    )
