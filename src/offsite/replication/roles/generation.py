"""The generation of a set: it rises with each change of roles, and every message about a set tells it.

So what a primary of before asks for is told from what the primary of now asks for, however late it comes, and two
primaries of one generation cannot be.
"""

from __future__ import annotations

from offsite.errors import NotAllowed
from offsite.replication.records.set_records import SetRecord


def check_generation(replication_set: SetRecord, generation: int) -> None:
    """Both ends know of the same changes of roles. Raises NotAllowed."""
    if generation != replication_set.generation:
        raise NotAllowed(
            f"replication set {replication_set.name} is of generation {replication_set.generation} here, of "
            f"{generation} there: its roles have changed"
        )
