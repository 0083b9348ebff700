"""Digests: the proof that two images hold the same."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from offsite.errors import Busy
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Role, Subject, positional
from offsite.management.command_table.object_types import ObjectType
from offsite.management.command_table.reply import Reply
from offsite.management.images.digest import digest
from offsite.management.images.point_in_time_reader import Frozen
from offsite.management.system import Context
from offsite.pools.protocol import ImageInfo

COMMANDS = Subject("Digests")

AT_ONCE_MAX = 4  # each keeps a core busy, and anyone who monitors may ask
_places = threading.BoundedSemaphore(AT_ONCE_MAX)


@dataclass(frozen=True, slots=True)
class DigestView:
    image: ImageInfo
    digest: str


DIGEST = ObjectType[DigestView](
    "digests",
    "digest",
    (
        properties.text("volume-name", lambda view: view.image.name, "Volume", key=True, of_type="volumes"),
        properties.size("size", lambda view: view.image.size_bytes, "Size"),
        properties.size("allocated-size", lambda view: view.image.allocated_bytes, "Allocated"),
        properties.text("digest", lambda view: view.digest, "Digest"),
    ),
)


@COMMANDS.command(
    "show digest",
    "Computes the digest of a volume's or snapshot's current content. Equal content has an equal digest on any system.",
    positional("name", values.reference("volume", "snapshot"), "Name of the volume or snapshot."),
    role=Role.MONITOR,
    examples=("show digest Sales-Monday",),
    slow=True,
    returns=(DIGEST,),
)
def show_digest(context: Context, name: str) -> Reply:
    found = context.system.image(name)
    if not _places.acquire(blocking=False):
        raise Busy(f"{AT_ONCE_MAX} digests are being computed, which is the maximum; try again later")
    try:
        with Frozen(found.pool, found.image) as content:
            value = digest(content, context.system.check_stopping)
    finally:
        _places.release()
    return Reply(rows=(DIGEST.row(DigestView(found.image, value)),))
