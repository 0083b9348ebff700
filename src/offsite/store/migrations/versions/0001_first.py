"""The first version of the state database."""

from alembic import op

from offsite.store.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    metadata.create_all(op.get_bind())
