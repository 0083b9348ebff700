"""Events."""

from sqlalchemy import Column, Float, Index, Integer, String, Table

from offsite.store.tables import metadata

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("code", Integer, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("message", String, nullable=False),
    Column("recommended_action", String, nullable=False),
    Column("ring", String, nullable=False),  # each keeps its own newest: see management/events/event_log.py
    Index("events_by_ring", "ring", "id"),
)
