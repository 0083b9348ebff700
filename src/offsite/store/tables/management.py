"""The system itself, its users and its events."""

from sqlalchemy import Column, Float, Integer, String, Table

from offsite.store.tables.base import metadata

system = Table(
    "system",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("uuid", String, nullable=False),
    Column("name", String, nullable=False),
    Column("created_at", Float, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("name", String, primary_key=True),
    Column("password_hash", String, nullable=False),  # argon2id
    Column("role", String, nullable=False),  # monitor, manage
    Column("created_at", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("code", Integer, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("message", String, nullable=False),
    Column("recommended_action", String, nullable=False),
)
