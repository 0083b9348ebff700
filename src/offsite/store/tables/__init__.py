"""The tables of the state database, a module for each floor that owns some."""

from offsite.store.tables import access, database, management, pools, replication
from offsite.store.tables.base import metadata

__all__ = ["access", "database", "management", "metadata", "pools", "replication"]
