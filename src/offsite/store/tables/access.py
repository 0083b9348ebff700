"""Initiators and maps."""

from sqlalchemy import Column, Float, ForeignKey, Integer, String, Table

from offsite.store.tables.base import metadata

initiators = Table(
    "initiators",
    metadata,
    Column("id", String, primary_key=True),  # tls:NAME or nbd:ADDRESS
    Column("nickname", String, unique=True),
    Column("last_seen_at", Float),
)

maps = Table(
    "maps",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("initiator", String, primary_key=True),  # an initiator's id; '' is the default mapping, for everyone
    Column("access", String, nullable=False),  # read-write, read-only, no-access
    Column("lun", Integer),
)
