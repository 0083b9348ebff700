"""What one system gives to all parts of its replication."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from offsite.clock import Clock
from offsite.events import Report
from offsite.pools.needs import Needs
from offsite.pools.protocol import Pool
from offsite.replication.records.set_locks import SetLocks
from offsite.store.database import Database


@dataclass(frozen=True, slots=True)
class Resources:
    database: Database
    pools: Mapping[str, Pool]  # the system's own, which come and go
    needs: Needs
    locks: SetLocks
    report: Report
    clock: Clock
