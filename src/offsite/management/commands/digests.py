"""Digests: the proof that two images hold the same."""

from __future__ import annotations

import threading
from typing import Any

from offsite.errors import InUse
from offsite.management.command_table import values
from offsite.management.command_table.command import Role, Subject, positional
from offsite.management.command_table.reply import Kind, ObjectType, Property, Reply, row
from offsite.management.images.digest import digest
from offsite.management.images.point_in_time_reader import Frozen
from offsite.management.system import Context

COMMANDS = Subject("Digests")

AT_ONCE_MAX = 4  # each keeps a core busy, and anyone who monitors may ask
_places = threading.BoundedSemaphore(AT_ONCE_MAX)

DIGEST = ObjectType[Any](
    "digests",
    "digest",
    (
        Property("volume-name", "Volume"),
        Property("size", "Size", Kind.SIZE),
        Property("allocated-size", "Allocated", Kind.SIZE),
        Property("digest", "Digest"),
    ),
)


@COMMANDS.command(
    "show digest",
    "Reads a volume or snapshot, as it is at this instant, and tells the digest of its content. Equal content has an "
    "equal digest, on any system.",
    positional("name", values.reference("volume"), "The volume or snapshot."),
    role=Role.MONITOR,
    examples=("show digest Sales-Monday",),
)
def show_digest(context: Context, name: str) -> Reply:
    found = context.system.image(name)
    if not _places.acquire(blocking=False):
        raise InUse(f"{AT_ONCE_MAX} digests are being computed, and no more may be at once; try again later")
    try:
        with Frozen(found.pool, found.image) as content:
            value = digest(content, context.system.check_stopping)
    finally:
        _places.release()
    return Reply(
        rows=(
            row(
                DIGEST,
                {
                    "volume-name": found.image.name,
                    "size": found.image.size_bytes,
                    "allocated-size": found.image.allocated_bytes,
                    "digest": value,
                },
            ),
        )
    )
