"""The tables of this floor, and what the tables of all floors share. Each floor above owns its own."""

from sqlalchemy import Column, Float, Integer, MetaData, String, Table

metadata = MetaData()

system = Table(
    "system",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("uuid", String, nullable=False),
    Column("name", String, nullable=False),
    Column("created_at", Float, nullable=False),
)

settings = Table(
    "settings",
    metadata,
    Column("name", String, primary_key=True),  # only those that differ from their default: see store/settings.py
    Column("value", String, nullable=False),
)

# Which log belongs to the database: see offsite.store.log_check.
database_log = Table(
    "database_log",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("round", String, nullable=False),  # drawn anew once all before was written back from the log
    Column("written_back", String),  # the round before, which the database file alone has held since
)
