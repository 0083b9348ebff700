"""Whether peers are there, as their operators are told of it, and what their clocks show.

Whatever a peer says, whoever has connected, is a sign of life. The reconciler visits peers and tells when one does not
answer.

    there ──a visit fails──▶ silent ──for longer than the setting──▶ gone: a WARNING, on record
      ▲                         │                                     │
      └──────── it is heard ────┴────────────── it is heard: RESOLVED ┘

Each outage is told once, also over restarts of this system. So is a skew of the clocks.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from offsite import events
from offsite.clock import Clock
from offsite.events import Report
from offsite.replication.peers import contact_records
from offsite.replication.peers.clock_skew import PeerClock, Skew, better, measure
from offsite.replication.peers.contact_records import ContactRecord
from offsite.replication.records import peer_records
from offsite.replication.records.peer_records import PeerRecord
from offsite.store.database import Database
from offsite.store.settings import CLOCK_SKEW_WARNING, PEER_GONE_AFTER, Settings
from offsite.units import format_instant

KEPT_WITHIN_SECONDS = 1.0  # how far the skew on record may be off

ALIVE_SECONDS = 3.0  # how often what is said over an open connection counts as a sign of life


@dataclass
class _Contact:
    """With one peer, since this start."""

    heard_at: float | None = None  # monotonic: on a connection that was made before, every few seconds
    silent_since: float | None = None  # monotonic: of the first visit that failed since it was heard
    clock: PeerClock | None = None


@dataclass(frozen=True)
class PeerContact:
    """What is shown of a peer. `skew` is None when its clock is not known."""

    gone_since: float | None
    skew: Skew | None


class Contacts:
    """Safe to use from any thread."""

    def __init__(self, database: Database, report: Report, clock: Clock) -> None:
        self._database = database
        self._settings = Settings(database)
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._contacts: dict[str, _Contact] = {}  # by the uuid of the system

    def heard(
        self, peer: PeerRecord, stamp: float | None, waited_seconds: float, arrived_at: float | None = None
    ) -> None:
        """It has said something, and perhaps its time, for which we had waited so long when it came (monotonic)."""
        monotonic = self._clock.monotonic() if arrived_at is None else arrived_at
        with self._database.read() as transaction:
            record = contact_records.contact_record(transaction, peer.id)
            skew_limit_seconds = self._settings.read(transaction, CLOCK_SKEW_WARNING)
        with self._lock:
            contact = self._contacts.setdefault(peer.system_uuid, _Contact())
            contact.silent_since = None
            if stamp is not None:
                contact.clock = better(contact.clock, measure(stamp, waited_seconds, monotonic))
        if record.gone_since is not None:
            self._tell_back(peer)
        if stamp is not None:
            self._note_skew(peer, record, skew_limit_seconds)

    def alive(self, peer: PeerRecord) -> None:
        """It goes on saying something over a connection that was made before: asked with each message, looked at every
        few seconds. A visit may find no place on a link that a run fills."""
        monotonic = self._clock.monotonic()
        with self._lock:
            contact = self._contacts.setdefault(peer.system_uuid, _Contact())
            if contact.heard_at is not None and monotonic < contact.heard_at + ALIVE_SECONDS:
                return
            contact.heard_at = monotonic
        self.heard(peer, None, 0.0)

    def is_silent(self, peer: PeerRecord) -> bool:
        """Whether the last visit failed."""
        with self._lock:
            contact = self._contacts.get(peer.system_uuid)
            return contact is not None and contact.silent_since is not None

    def failed(self, peer: PeerRecord, reason: str) -> None:
        """A visit failed."""
        monotonic = self._clock.monotonic()
        with self._lock:
            contact = self._contacts.setdefault(peer.system_uuid, _Contact())
            if contact.silent_since is None:
                contact.silent_since = monotonic
            silent_seconds = monotonic - contact.silent_since
        if silent_seconds < self._settings.get(PEER_GONE_AFTER):
            return
        since = self._clock.now() - silent_seconds
        with self._database.transaction() as transaction:
            known = contact_records.contact_record(transaction, peer.id).gone_since is not None
            if known or not peer_records.has_peer(transaction, peer.id):
                return
            contact_records.put_contact(transaction, peer.id, gone_since=since)
        self._report(
            events.PEER_GONE,
            f"System {peer.system_name} (peer connection {peer.name}) has been unreachable since "
            f"{format_instant(since)}: {reason}",
        )

    def about(self, peer: PeerRecord) -> PeerContact:
        with self._database.read() as transaction:
            record = contact_records.contact_record(transaction, peer.id)
        clock = self._clock_of(peer, record)
        return PeerContact(record.gone_since, None if clock is None else self._skew(clock))

    def remote_time(self, peer: PeerRecord) -> tuple[float, float] | None:
        """What its clock shows now, and how certain that is. None: nobody knows."""
        with self._database.read() as transaction:
            clock = self._clock_of(peer, contact_records.contact_record(transaction, peer.id))
        return None if clock is None else (clock.time_at(self._clock.monotonic()), clock.uncertainty_seconds)

    def _tell_back(self, peer: PeerRecord) -> None:
        with self._database.transaction() as transaction:
            since = contact_records.contact_record(transaction, peer.id).gone_since
            if since is None:
                return  # another connection has told it
            contact_records.put_contact(transaction, peer.id, gone_since=None)
        self._report(
            events.PEER_BACK,
            f"System {peer.system_name} (peer connection {peer.name}) is reachable again; it was unreachable since "
            f"{format_instant(since)}.",
        )

    # -- clocks ----------------------------------------------------------------------------------------------

    def _clock_of(self, peer: PeerRecord, record: ContactRecord) -> PeerClock | None:
        """As it was measured since this start, else as it was on record then."""
        with self._lock:
            contact = self._contacts.setdefault(peer.system_uuid, _Contact())
            if contact.clock is None and record.skew is not None:
                monotonic = self._clock.monotonic()
                ahead = self._clock.now() + record.skew.seconds - monotonic
                contact.clock = PeerClock(ahead, record.skew.uncertainty_seconds + KEPT_WITHIN_SECONDS, monotonic)
            return contact.clock

    def _skew(self, clock: PeerClock) -> Skew:
        return Skew(clock.time_at(self._clock.monotonic()) - self._clock.now(), clock.uncertainty_seconds)

    def _note_skew(self, peer: PeerRecord, record: ContactRecord, limit_seconds: float) -> None:
        clock = self._clock_of(peer, record)
        assert clock is not None  # it was measured just now
        skew = self._skew(clock)
        begins = not record.skew_told and skew.is_beyond(limit_seconds)
        is_over = record.skew_told and skew.is_over(limit_seconds)
        old = record.skew
        if begins or is_over or old is None or abs(old.seconds - skew.seconds) > KEPT_WITHIN_SECONDS:
            told = begins or (record.skew_told and not is_over)
            with self._database.transaction() as transaction:
                if not peer_records.has_peer(transaction, peer.id):
                    return  # it was deleted just now
                if contact_records.contact_record(transaction, peer.id).skew_told != record.skew_told:
                    return  # another connection has told it
                contact_records.put_contact(transaction, peer.id, skew=skew, skew_told=told)
        if begins:
            self._report(
                events.CLOCKS_DIFFER,
                f"The clock of system {peer.system_name} (peer connection {peer.name}) differs from this system's: it "
                f"is {skew}.",
            )
        elif is_over:
            self._report(
                events.CLOCKS_AGREE,
                f"The clocks of system {peer.system_name} (peer connection {peer.name}) and of this system agree "
                "again.",
            )
