"""How pools of one kind come to be, are found again at a start, and go. Which kinds there are: offsite.pools.registry.

check ──► create ──► in use ──► destroy ──► what cannot be removed at once: clear_remains, now and at each start
                       │  ▲
                close  ▼  │  attach (reads and checks) ──► open ──► Pool.begin
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from offsite.events import Report, ignore
from offsite.pools.protocol import Pool
from offsite.store.database import Database


@dataclass(frozen=True)
class Capabilities:
    """What pools of a backend can, as far as somebody asks."""

    parameters: frozenset[str]  # words of `create pool` that it knows, of those that not every backend does
    joins_transaction: bool  # its images change in the database's transaction; if not, it follows: pools.objects


@dataclass(frozen=True)
class NewPool:
    """What a user wants. What is None was not said."""

    name: str
    size_bytes: int | None = None
    device: str | None = None
    allocation_bytes: int | None = None
    overwrite: bool = False
    overcommit: bool = True


class Attached(Protocol):
    """What holds the data of a pool, taken for this process and checked, and not opened as a pool yet."""

    def close(self) -> None: ...


class PoolBackend(Protocol):
    """One kind of pools."""

    name: str
    capabilities: Capabilities

    def location(self, database: Database, new: NewPool) -> str:
        """Where the pool would be, for people. Raises BadParameter for a pool that cannot be made; changes nothing."""
        ...

    def contents(self, database: Database, new: NewPool) -> str:
        """What making it would overwrite, for people; empty if nothing. Raises InUse, or StateDirectoryError."""
        ...

    def first_size_bytes(self, directory: Path) -> int:
        """The size of the pool that a new system gets, when nobody says it."""
        ...

    def create(self, database: Database, new: NewPool, report: Report = ignore) -> Pool:
        """Makes the pool, and begins to use it. Whatever it raises, nothing is left of it that is in the way."""
        ...

    def private_files(self, directory: Path, row: Mapping[str, Any]) -> list[Path]:
        """Those that only the owner of the state directory may reach. Raises StateDirectoryError if one is missing."""
        ...

    def attach(self, directory: Path, row: Mapping[str, Any], system_uuid: str | None) -> Attached | None:
        """From a row of `pools`, of this version or an older one. Changes nothing. Raises StateDirectoryError."""
        ...

    def open(self, database: Database, name: str, report: Report = ignore, attached: Any = None) -> Pool:
        """Reads and checks the pool, and changes nothing: that is for `begin`. Takes over what was `attached`."""
        ...

    def destroy(self, database: Database, pool_id: int) -> None:
        """The pool is gone with that, durably; abandon it then. Raises InUse when an image is in it."""
        ...

    def clear_remains(self, database: Database) -> list[str]:
        """Removes what destroyed pools have left; returns a sentence for each that cannot be removed now."""
        ...
