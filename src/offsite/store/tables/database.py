"""Which log belongs to the database: see offsite.store.log_check."""

from sqlalchemy import Column, Integer, String, Table

from offsite.store.tables.base import metadata

database_log = Table(
    "database_log",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("round", String, nullable=False),  # drawn anew once all before was written back from the log
    Column("written_back", String),  # the round before, which the database file alone has held since
)
