"""Users."""

from sqlalchemy import Column, Float, String, Table

from offsite.store.tables import metadata

users = Table(
    "users",
    metadata,
    Column("name", String, primary_key=True),
    Column("password_hash", String, nullable=False),  # argon2id
    Column("role", String, nullable=False),  # monitor, manage
    Column("created_at", Float, nullable=False),
    Column("generation", String, nullable=False),  # new at every change: see management.accounts.users
)
