"""Initiators and maps."""

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, String, Table

from offsite.store.tables import metadata

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

initiator_certificates = Table(
    "initiator_certificates",
    metadata,
    Column("serial", String, primary_key=True),  # hexadecimal
    Column("name", String, nullable=False),  # of the initiator tls:NAME
    Column("issued_at", Float),  # none: by a version that kept no record; it was seen when a host came with it
    Column("ends_at", Float, nullable=False),
    Column("revoked_at", Float),
    Index("initiator_certificates_by_name", "name"),
)

# Initiators whose certificates are good only while they are on record and not revoked.
revoked_initiators = Table(
    "revoked_initiators",
    metadata,
    Column("name", String, primary_key=True),
    Column("revoked_at", Float, nullable=False),
)
