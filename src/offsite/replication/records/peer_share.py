"""What one peer may take of this system: whether it may make sets here, how much these may hold, how often it may ask.

Volumes that a peer has had made stay when it deletes their set, and so do the snapshots that its runs leave: hence what
counts is every image made at its request that is still there, not what its sets consist of now.

A limit is looked at before anything is begun, and again in the transaction that uses it: a peer may ask for two things
at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, func, insert, select

from offsite.clock import Clock
from offsite.errors import PeerLimitReached, SecondarySetsDisabled
from offsite.pools import catalog
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.tables import peer_images, peers
from offsite.store.settings import MAXIMUM_IMAGES_PER_PEER, Settings
from offsite.units import format_size

REQUESTS_AT_ONCE = 200  # of one peer, before they have to wait for their turn
REQUESTS_PER_SECOND = 100.0


def check_may_create(peer: PeerRecord, system_name: str) -> None:
    """Raises SecondarySetsDisabled."""
    if not peer.secondary_sets:
        raise SecondarySetsDisabled(
            f"system {system_name} does not allow system {peer.system_name} to create replication sets there; a user "
            f"of {system_name} can allow it: set peer-connection secondary-sets enabled {peer.name}"
        )


def note_images(connection: Connection, peer_id: int, image_ids: Sequence[int]) -> None:
    """These were made at the peer's request, in this transaction."""
    for image_id in image_ids:
        connection.execute(insert(peer_images).values(image_id=image_id, peer_id=peer_id))


def has_room_for_images(connection: Connection, peer_id: int, more: int) -> bool:
    mine = select(func.count()).where(peer_images.c.peer_id == peer_id)
    most = Settings.read(connection, MAXIMUM_IMAGES_PER_PEER)
    return bool(connection.execute(mine).scalar_one() + more <= most)


def check_images(connection: Connection, peer_id: int, more: int, system_name: str) -> None:
    """Raises PeerLimitReached."""
    if not has_room_for_images(connection, peer_id, more):
        most = Settings.read(connection, MAXIMUM_IMAGES_PER_PEER)
        raise PeerLimitReached(
            f"{more} more volumes or snapshots exceed the maximum: {system_name} allows {most} for one peer; delete "
            f"some there, or raise its setting {MAXIMUM_IMAGES_PER_PEER.name}"
        )


def check_size(
    connection: Connection, peer_id: int, sizes_bytes: Sequence[int], in_place_of: Sequence[int] = ()
) -> None:
    """Whether the peer's volumes may have these sizes, together with its others. `in_place_of` are the ids of those
    that get another size. Raises PeerLimitReached."""
    limit = connection.execute(select(peers.c.secondary_size_limit).where(peers.c.id == peer_id)).scalar()
    if limit is None:
        return
    others = select(peer_images.c.image_id).where(
        peer_images.c.peer_id == peer_id, peer_images.c.image_id.not_in(in_place_of)
    )
    total = catalog.volume_bytes(connection, others) + sum(sizes_bytes)
    if total > limit:
        raise PeerLimitReached(
            f"the volumes of this peer would have {format_size(total)} in total; its peer connection there has a "
            f"secondary-size-limit of {format_size(limit)}"
        )


class PeerPace:
    """How fast the requests of each peer come. Safe to use from any thread."""

    def __init__(self, clock: Clock, wait: Callable[[float], None]) -> None:
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._free_at: dict[int, float] = {}  # when all that a peer has asked for so far is paid for, by its id

    def take_turn(self, peer: PeerRecord) -> None:
        """Before each request of the peer: waits when they come too fast."""
        with self._lock:
            now = self._clock.monotonic()
            free_at = max(self._free_at.get(peer.id, 0.0), now) + 1.0 / REQUESTS_PER_SECOND
            self._free_at[peer.id] = free_at
        wait_seconds = free_at - now - REQUESTS_AT_ONCE / REQUESTS_PER_SECOND
        if wait_seconds > 0.001:
            self._wait(wait_seconds)
