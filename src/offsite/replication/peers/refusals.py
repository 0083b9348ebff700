"""Which peers answer, but refuse this system or are refused by it: no status may claim a good copy there.

refused at a visit ──▶ known, with the reason (that the peer has forgotten us is told) ──▶ answers as a peer: over
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from offsite import events
from offsite.errors import ErrorClass, OffsiteError
from offsite.events import Report
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.wire.errors import NotPaired


class Refusals:
    """Kept in memory: after a start the first visit finds out again. Safe to use from any thread."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._reasons: dict[int, str] = {}  # by the peer's id
        self._told: set[int] = set()

    def reason(self, peer_id: int) -> str | None:
        with self._lock:
            return self._reasons.get(peer_id)

    def refused(self, peer: PeerRecord, error: OffsiteError) -> None:
        """Of errors that pass by themselves nothing is kept."""
        if error.error_class is not ErrorClass.OPERATOR:
            return
        with self._lock:
            self._reasons[peer.id] = str(error)
            tell = isinstance(error, NotPaired) and peer.id not in self._told
            if tell:
                self._told.add(peer.id)
        if tell:
            self._report(events.PEER_FORGOT_SYSTEM, f"Peer connection {peer.name}: {error}.")

    def accepted(self, peer: PeerRecord) -> None:
        with self._lock:
            self._reasons.pop(peer.id, None)
            tell = peer.id in self._told
            self._told.discard(peer.id)
        if tell:
            self._report(
                events.PEER_KNOWS_SYSTEM_AGAIN,
                f"Peer connection {peer.name} recovered: the peer accepts this system again.",
            )

    def keep_only(self, is_peer: Callable[[int], bool]) -> None:
        """Forgets peers that were deleted."""
        with self._lock:
            self._reasons = {peer_id: reason for peer_id, reason in self._reasons.items() if is_peer(peer_id)}
            self._told = {peer_id for peer_id in self._told if is_peer(peer_id)}
