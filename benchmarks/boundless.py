"""Pools whose pages count as written and are not: their disk has no room for all that they would hold, and needs none.

As a program it is `offsite` with all pools so.
"""

from __future__ import annotations

import sys
from pathlib import Path

from offsite.pools.local import free_space
from offsite.pools.local.room import Room
from offsite.store.free_space import UNLIMITED_BYTES


class Boundless(Room):
    """Asks nobody."""

    def bytes_left(self, promised_bytes: int, unsynced_bytes: int) -> int:
        del promised_bytes, unsynced_bytes
        return UNLIMITED_BYTES


def mark(state: Path) -> Path:
    """A file that is there once a system has such pools: then it has to be served by this program."""
    return state.with_name(f"{state.name}.boundless")


if __name__ == "__main__":
    from offsite.__main__ import main

    vars(free_space)["Room"] = Boundless
    sys.exit(main())
