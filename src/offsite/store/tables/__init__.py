"""The tables of the state database, a module for each floor that owns some."""

from offsite.store.tables import access, management, pools, replication
from offsite.store.tables.base import metadata

__all__ = ["access", "management", "metadata", "pools", "replication"]
