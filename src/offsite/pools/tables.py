"""Pools, images and their page tables.

A page table is a tree of three kinds of rows: an image's `nodes` names its nodes, a node its leaves, a
leaf its pages. Rows of nodes and leaves are shared by images and never changed once two images share them.
"""

from sqlalchemy import Boolean, Column, Float, ForeignKey, Integer, LargeBinary, String, Table

from offsite.store.tables import metadata

pools = Table(
    "pools",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String, nullable=False, unique=True),
    Column("name", String, nullable=False, unique=True),
    Column("path", String, nullable=False),  # relative to the state directory unless absolute
    Column("page_bytes", Integer, nullable=False),  # the unit of allocation
    Column("size_bytes", Integer, nullable=False),
    Column("overcommit", Boolean, nullable=False),
    Column("low_threshold_percent", Float, nullable=False),
    Column("middle_threshold_percent", Float, nullable=False),
    Column("high_threshold_percent", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("generation", String),  # of the pair of database and data file; none: not started by this version yet
    Column("previous_generation", String),  # the one before, which the data file may still have
    Column("backend", String, nullable=False, server_default="local"),
)

# Pools that are deleted, and whose files may still be there.
pool_remains = Table(
    "pool_remains",
    metadata,
    Column("uuid", String, primary_key=True),  # of the pool
    Column("path", String, nullable=False),
    Column("backend", String, nullable=False, server_default="local"),
)

# Of backends that keep the content of an image in an object, and cannot join the transaction: see pools.objects.
image_objects = Table(
    "image_objects",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("object", String, nullable=False, unique=True),
)

# Objects that are being made or removed. One that no image has is removed before the pool is used again.
pool_intents = Table(
    "pool_intents",
    metadata,
    Column("object", String, primary_key=True),
    Column("pool_id", ForeignKey("pools.id", ondelete="CASCADE"), nullable=False),
)

images = Table(
    "images",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String, nullable=False, unique=True),
    Column("pool_id", ForeignKey("pools.id"), nullable=False),
    Column("name", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),  # volume, snapshot, internal
    Column("parent_id", Integer),  # image a snapshot was taken of; none once that is deleted
    Column("size_bytes", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    # Of local pools: pairs of (index uint64, node id uint64), little endian.
    Column("nodes", LargeBinary, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Integer, primary_key=True),  # pool id << 48 | number
    Column("leaves", LargeBinary, nullable=False),  # 1024 leaf ids, uint64 little endian, 0 a hole
)

leaves = Table(
    "leaves",
    metadata,
    Column("id", Integer, primary_key=True),  # pool id << 48 | number
    Column("pages", LargeBinary, nullable=False),  # 256 page numbers, uint32 little endian, 0 a hole
)

# Up to 16 volumes of one pool whose snapshots are taken at one instant.
volume_groups = Table(
    "volume_groups",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String, nullable=False, unique=True),
    Column("name", String, nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
)

volume_group_members = Table(
    "volume_group_members",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),  # in one group at most
    Column("group_id", ForeignKey("volume_groups.id", ondelete="CASCADE"), nullable=False),
)

# In which order snapshots may go when space is short; without a row: never.
snapshot_retention = Table(
    "snapshot_retention",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    Column("priority", String, nullable=False),  # low, medium, high
)
