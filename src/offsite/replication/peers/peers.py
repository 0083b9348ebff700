"""Peer connections, as this system asks for them: query, create, show, change, delete."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from offsite import events
from offsite.clock import Clock
from offsite.errors import BadParameter, InUse, NameInUse, NotAllowed, ObjectNotFound, OffsiteError
from offsite.events import Report
from offsite.names import check_name
from offsite.replication.bandwidth.calendar import parse_calendar
from offsite.replication.bandwidth.rate_limiter import Bandwidths, BandwidthTerms, Flow
from offsite.replication.link.dialer import DialedConnection, Dials
from offsite.replication.link.identity import Certificates, SystemIdentity, fingerprint_of
from offsite.replication.link.pinning import check_pinnable
from offsite.replication.naming.addresses import format_address
from offsite.replication.peers.contacts import Contacts, PeerContact
from offsite.replication.peers.incarnation_records import PeerIncarnation
from offsite.replication.peers.introductions import Introductions
from offsite.replication.peers.modification import PeerChange, PeerChanges
from offsite.replication.peers.pairing import Login, ask_to_pair, check_fingerprint, ping
from offsite.replication.peers.reachability import Reachability
from offsite.replication.records import peer_records, set_records
from offsite.replication.records.limits import Limits
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.set_records import SetRecord
from offsite.replication.wire.errors import NotPaired
from offsite.replication.wire.messages import Done, Unpair
from offsite.store.database import Database
from offsite.store.settings import TIME_ZONE, Settings
from offsite.store.system_zone import zone_of


@dataclass(frozen=True)
class Peer:
    """A peer connection. `fingerprint` is that of the certificate pinned for the other system. Limits are bytes a
    second, None for none; `limit_now` is what the calendar and the plain limit come to at this instant."""

    name: str
    system_uuid: str
    system_name: str
    address: str
    fingerprint: str
    created_at: float
    bandwidth_limit: int | None
    bandwidth_calendar: str
    limit_now: int | None
    secondary_sets: bool  # whether it may make sets here
    secondary_size_limit: int | None  # bytes
    incarnation: PeerIncarnation
    contact: PeerContact


@dataclass(frozen=True)
class RemoteSystem:
    """What a system tells to anyone who asks."""

    name: str
    uuid: str
    fingerprint: str
    version: str
    address: str
    error: str = ""  # of a system that is a peer: why it is refused, or refuses us


class Peers:
    """`own_address` is where others reach this system's peer port, as far as it knows itself. `wait` is how runs wait
    for their bandwidth: so that a simulator with a clock of its own need not sleep."""

    def __init__(
        self,
        database: Database,
        dialer: Dials,
        certificates: Certificates,
        system: SystemIdentity,
        introductions: Introductions,
        contacts: Contacts,
        own_address: tuple[str, int],
        limits: Limits,
        report: Report,
        clock: Clock,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._database = database
        self._dialer = dialer
        self._certificates = certificates
        self._system = system
        self._introductions = introductions
        self.contacts = contacts
        self.own_address = own_address
        self.when_start_chosen: Callable[[int], None] = lambda _peer_id: None
        self._report = report
        self._clock = clock
        self.reachability = Reachability(dialer, clock)
        self._changes = PeerChanges(database, dialer.dial, certificates, report)
        self._settings = Settings(database)
        self._limits = limits
        self._bandwidths = Bandwidths(self._load_terms, clock, wait, self._local_time)

    def query(self, address: str) -> RemoteSystem:
        """Who is there? Shows nothing of us but to a peer, and trusts nothing yet. Raises PeerUnreachable."""
        with self._dialer.dial(address) as connection:
            found = RemoteSystem(
                name=connection.hello.system_name,
                uuid=connection.hello.system_uuid,
                fingerprint=fingerprint_of(connection.certificate),
                version=connection.hello.software,
                address=format_address(connection.host, connection.port),
            )
        if any(peer.certificate == connection.certificate for peer in self._records()):
            return replace(found, error=self._error_of(found.address, connection.certificate))
        return found

    def _error_of(self, address: str, certificate: bytes) -> str:
        """Why the peer at this address and we do not speak with each other; empty: we do."""
        try:
            with self._dialer.dial(address, certificate) as connection:
                ping(connection)
        except OffsiteError as error:
            return str(error)
        return ""

    def create(
        self,
        name: str,
        address: str,
        username: str,
        password: str,
        fingerprint: str | None = None,
        *,
        secondary_sets: bool = True,
    ) -> Peer:
        """Pairs with the system at `address`: it is shown a manage user's name and password, once, and both
        pin each other's certificates. With a fingerprint, nothing is shown to a system with another one.
        `secondary_sets` tells whether the other system may make sets here; that we may make sets there is granted by
        its user, whose password it is.

        Raises NameInUse, BadParameter, PeerUnreachable, CertificateChanged, AuthenticationFailed, or what
        else the other system says. It can be repeated after any of them, or a crash.
        """
        check_name(name, "peer connection name")
        self._check_new_name(name)
        with self._database.read() as view:
            self._limits.check_new_peer(view)
        login = Login(username, password, fingerprint)
        with self._dialer.dial(address) as connection:
            self._check_stranger(connection, address, login)
            ask_to_pair(connection, login, self._certificates.certificate_der, self.own_address)
            hello, certificate = connection.hello, connection.certificate
            address = format_address(connection.host, connection.port)
        with self._dialer.dial(address, certificate) as connection:
            ping(connection)
        values = {
            "name": name,
            "system_uuid": hello.system_uuid,
            "system_name": hello.system_name,
            "address": address,
            "certificate": certificate,
            "created_at": self._clock.now(),
            "secondary_sets": secondary_sets,
        }
        with self._database.transaction() as transaction:
            self._limits.check_new_peer(transaction)
            peer_records.insert_peer(transaction, values)
        self._report(
            events.PEER_CREATED, f"Peer connection {name} to system {hello.system_name} at {address} was created."
        )
        return self.get(name)

    def _check_new_name(self, name: str) -> None:
        if any(peer.name == name for peer in self._records()):
            raise NameInUse(f"peer connection {name!r} already exists; delete it first, or choose another name")

    def _check_stranger(self, connection: DialedConnection, address: str, login: Login) -> None:
        if connection.hello.system_uuid == self._system.uuid:
            raise BadParameter(f"address {address!r} is this system's own; a peer is another system")
        check_pinnable(connection.certificate, f"the system at {address}")
        check_fingerprint(connection, address, login)
        for peer in self._records():
            if peer.system_uuid == connection.hello.system_uuid:
                raise InUse(f"system {peer.system_name} is already connected as peer connection {peer.name}")

    def all(self) -> list[Peer]:
        return [self._shown(peer) for peer in self._records()]

    def get(self, name: str) -> Peer:
        return self._shown(self.record(name))

    def record(self, name: str) -> PeerRecord:
        """Raises ObjectNotFound."""
        peer = next((peer for peer in self._records() if peer.name == name), None)
        if peer is None:
            raise ObjectNotFound(f"peer connection {name!r} does not exist")
        return peer

    def record_of(self, peer_id: int) -> PeerRecord:
        return next(peer for peer in self._records() if peer.id == peer_id)

    def change(self, name: str, change: PeerChange) -> Peer:
        """See PeerChanges.change. Runs that are under way are not disturbed, and keep to a new limit at once."""
        peer = self.record(name)
        self._changes.change(peer, change, self.own_address)
        self._bandwidths.reload(peer.id)
        self.reachability.forget()
        return self.get(change.name or name)

    def accept(self, name: str, start: str) -> Peer:
        """Which of two starts of the peer is to live: see Introductions.accept."""
        peer = self.record(name)
        self._introductions.accept(peer, start)
        self.when_start_chosen(peer.id)
        self.reachability.forget()
        return self.get(name)

    def pacing(self, peer_id: int) -> Flow:
        """When a run to this peer may send: one for each attempt."""
        return self._bandwidths.flow(peer_id)

    def delete(self, name: str, local_only: bool = False) -> None:
        """On both systems, or with `local_only` here alone. Raises InUse while a set needs it, and
        PeerUnreachable."""
        peer = self.check_deletable(name)
        if not local_only:
            self._unpair(peer)
        with self._database.transaction() as transaction:
            peer_records.delete_peer(transaction, peer.id)
        self._bandwidths.forget(peer.id)
        self._report(events.PEER_DELETED, f"Peer connection {name} was deleted.")

    def check_deletable(self, name: str) -> PeerRecord:
        """The peer. Raises ObjectNotFound, or InUse while a set needs it."""
        peer = self.record(name)
        with self._database.read() as transaction:
            needed = [each.name for each in set_records.all_sets(transaction) if each.peer_id == peer.id]
        if needed:
            raise InUse(f"peer connection {name} is used by replication sets {', '.join(needed)}; delete those first")
        return peer

    def _unpair(self, peer: PeerRecord) -> None:
        try:
            with self.connect(peer) as connection:
                connection.channel.ask(connection.asking, Unpair(), Done)
        except NotPaired:
            return  # it has forgotten us before

    def connect(self, peer: PeerRecord, patience_seconds: float | None = None) -> DialedConnection:
        """A connection on which both have shown the pinned certificates."""
        return self._dialer.dial(peer.address, peer.certificate, patience_seconds)

    def online(self, name: str) -> bool:
        """Whether the peer answers, and knows us. The answer may be a few seconds old."""
        return self.reachability.is_online(self.record(name))

    def online_by_id(self, peer_id: int) -> bool:
        return self.reachability.is_online(self.record_of(peer_id))

    def _local_time(self, instant: float) -> datetime:
        """In the system's time zone, in which calendars are written."""
        return datetime.fromtimestamp(instant, zone_of(self._settings.get(TIME_ZONE)))

    def _load_terms(self, peer_id: int) -> BandwidthTerms:
        return next((_terms(peer) for peer in self._records() if peer.id == peer_id), BandwidthTerms())

    def check_primary(self, replication_set: SetRecord, what: str) -> None:
        """What changes or sends a set is done on its primary. Raises NotAllowed, which names the system to do it on."""
        if replication_set.role != "primary":
            raise NotAllowed(
                f"replication set {replication_set.name} is secondary here and cannot be {what}; do it on system "
                f"{self.record_of(replication_set.peer_id).system_name}"
            )

    def _records(self) -> list[PeerRecord]:
        with self._database.read() as transaction:
            return peer_records.all_peers(transaction)

    def _shown(self, peer: PeerRecord) -> Peer:
        return Peer(
            name=peer.name,
            system_uuid=peer.system_uuid,
            system_name=peer.system_name,
            address=peer.address,
            fingerprint=fingerprint_of(peer.certificate),
            created_at=peer.created_at,
            bandwidth_limit=peer.bandwidth_limit,
            bandwidth_calendar=peer.bandwidth_calendar,
            secondary_sets=peer.secondary_sets,
            secondary_size_limit=peer.secondary_size_limit,
            limit_now=_terms(peer).limit_at(self._clock.now(), self._local_time),
            incarnation=self._introductions.about(peer),
            contact=self.contacts.about(peer),
        )


def _terms(peer: PeerRecord) -> BandwidthTerms:
    return BandwidthTerms(peer.bandwidth_limit, parse_calendar(peer.bandwidth_calendar))
