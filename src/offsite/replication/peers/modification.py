"""Changes of a peer connection: its name, address, certificates and bandwidth.

    checked here ──▶ address or login given: asked over there ──▶ checked again and stored, in one transaction

Whatever is refused, here or there, changes nothing on this side. A login that the other system has taken, and
that could not be stored here, is harmless: the command can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection as Transaction

from offsite import events
from offsite.errors import BadParameter, InUse, NameInUse, ObjectNotFound
from offsite.events import Report
from offsite.names import check_name
from offsite.replication.bandwidth.calendar import BandwidthCalendar, format_rate
from offsite.replication.link.dialer import DialedConnection
from offsite.replication.link.identity import Certificates, fingerprint_of
from offsite.replication.link.pinning import check_pinnable
from offsite.replication.naming.addresses import format_address, parse_address
from offsite.replication.peers.pairing import Login, ask_to_pair, check_fingerprint, ping
from offsite.replication.records import peer_records, set_records
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.wire.errors import NotPaired
from offsite.store.database import Database
from offsite.units import format_size

NO_LIMIT = 0

Dial = Callable[[str, bytes | None], DialedConnection]
"""Opens a connection to an address, with the certificate that is pinned for it if one is: see Dialer.dial."""


@dataclass(frozen=True)
class PeerChange:
    """What is to be changed; None stays as it is."""

    name: str | None = None
    address: str | None = None
    login: Login | None = None
    bandwidth_limit: int | None = None  # bytes a second, or NO_LIMIT
    bandwidth_calendar: BandwidthCalendar | None = None
    secondary_sets: bool | None = None
    secondary_size_limit: int | None = None  # bytes, or NO_LIMIT


@dataclass(frozen=True)
class _Reached:
    """The other system, as it answers now."""

    address: str
    system_name: str
    certificate: bytes
    knew_us: bool  # before it was logged in to


class PeerChanges:
    def __init__(self, database: Database, dial: Dial, certificates: Certificates, report: Report) -> None:
        self._database = database
        self._dial = dial
        self._certificates = certificates
        self._report = report

    def change(self, peer: PeerRecord, change: PeerChange, own_address: tuple[str, int]) -> None:
        """Raises BadParameter, NameInUse, InUse while a run uses the address that is to change, PeerUnreachable,
        CertificateChanged, AuthenticationFailed, or what else the other system says."""
        if change == PeerChange():
            raise BadParameter(f"no change specified for peer connection {peer.name}")
        with self._database.read() as transaction:
            self._check(transaction, peer, change)
        reached = None
        if change.login is not None:
            reached = self._log_in(peer, change.address or peer.address, change.login, own_address)
        elif change.address is not None:
            reached = self._find_again(peer, change.address)
        with self._database.transaction() as transaction:
            self._check(transaction, peer, change)
            peer_records.update_peer(transaction, peer.id, _values(change, reached))
        self._tell(peer, change, reached)

    def _check(self, transaction: Transaction, peer: PeerRecord, change: PeerChange) -> None:
        there = peer_records.all_peers(transaction)
        if not any(each.id == peer.id for each in there):
            raise ObjectNotFound(f"peer connection {peer.name} was just deleted")
        if change.name is not None:
            check_name(change.name, "peer connection name")
            if any(each.name == change.name and each.id != peer.id for each in there):
                raise NameInUse(f"peer connection {change.name!r} already exists; choose another name")
        if change.address is not None and format_address(*parse_address(change.address)) != peer.address:
            _check_no_run(transaction, peer)

    def _find_again(self, peer: PeerRecord, address: str) -> _Reached:
        """The same system at a new address: it shows the pinned certificate, and knows us."""
        with self._dial(address, peer.certificate) as connection:
            ping(connection)
            return _reached(connection, knew_us=True)

    def _log_in(self, peer: PeerRecord, address: str, login: Login, own_address: tuple[str, int]) -> _Reached:
        """Both pin the certificates that they show now. It is the same system when it has the same uuid."""
        with self._dial(address, None) as connection:
            hello = connection.hello
            if hello.system_uuid != peer.system_uuid:
                raise BadParameter(
                    f"{address} is system {hello.system_name} with the serial number {hello.system_uuid}, and peer "
                    f"connection {peer.name} is to {peer.system_name} with {peer.system_uuid}: that is another system; "
                    "create a separate peer connection for it. The password was not sent"
                )
            check_pinnable(connection.certificate, f"the system at {address}")
            check_fingerprint(connection, address, login)
            self._check_no_one_elses(peer, connection.certificate)
            knew_us = self._knows_us(address, connection.certificate)
            ask_to_pair(connection, login, self._certificates.certificate_der, own_address, replace=True)
            reached = _reached(connection, knew_us)
        with self._dial(address, reached.certificate) as connection:
            ping(connection)
        return reached

    def _check_no_one_elses(self, peer: PeerRecord, certificate: bytes) -> None:
        with self._database.read() as transaction:
            for other in peer_records.all_peers(transaction):
                if other.id != peer.id and other.certificate == certificate:
                    raise InUse(f"peer connection {other.name} already has this certificate")

    def _knows_us(self, address: str, certificate: bytes) -> bool:
        try:
            with self._dial(address, certificate) as connection:
                ping(connection)
        except NotPaired:
            return False
        return True

    def _tell(self, peer: PeerRecord, change: PeerChange, reached: _Reached | None) -> None:
        said = _sentences(peer, change, reached)
        if said:
            self._report(events.PEER_CHANGED, f"Peer connection {peer.name} was changed: {', '.join(said)}.")
        if reached is None or change.login is None:
            return
        if reached.certificate != peer.certificate:
            self._report(
                events.PEER_CERTIFICATE_REPLACED,
                f"The certificate of system {peer.system_name} was replaced: the fingerprint pinned here was "
                f"{fingerprint_of(peer.certificate)} and is now {fingerprint_of(reached.certificate)}.",
            )
        if not reached.knew_us:
            self._report(
                events.PEER_CERTIFICATE_REPLACED,
                f"System {peer.system_name} did not know this system's certificate and has now pinned it: its "
                f"fingerprint is {fingerprint_of(self._certificates.certificate_der)}.",
            )


def _check_no_run(transaction: Transaction, peer: PeerRecord) -> None:
    """Runs of sets that are primary here use the address; those that come from the peer do not."""
    busy = set_records.busy_sets(transaction, peer.id)
    if busy:
        raise InUse(
            f"the address of peer connection {peer.name} cannot change while runs use it: replication sets "
            f"{', '.join(busy)} are replicating; wait for the runs to end, or suspend the sets"
        )


def _reached(connection: DialedConnection, knew_us: bool) -> _Reached:
    address = format_address(connection.host, connection.port)
    return _Reached(address, connection.hello.system_name, connection.certificate, knew_us)


def _values(change: PeerChange, reached: _Reached | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if change.name is not None:
        values["name"] = change.name
    if reached is not None:
        values |= {
            "address": reached.address,
            "system_name": reached.system_name,
            "certificate": reached.certificate,
        }
    if change.bandwidth_limit is not None:
        values["bandwidth_limit"] = change.bandwidth_limit or None
    if change.bandwidth_calendar is not None:
        values["bandwidth_calendar"] = str(change.bandwidth_calendar)
    if change.secondary_sets is not None:
        values["secondary_sets"] = change.secondary_sets
    if change.secondary_size_limit is not None:
        values["secondary_size_limit"] = change.secondary_size_limit or None
    return values


def _sentences(peer: PeerRecord, change: PeerChange, reached: _Reached | None) -> list[str]:
    """What was changed, but for certificates, as parts of a sentence."""
    said = []
    if change.name is not None:
        said.append(f"its name is {change.name}")
    if reached is not None and reached.address != peer.address:
        said.append(f"its address is {reached.address} (it was {peer.address})")
    if change.login is not None:
        said.append(f"user {change.login.username} logged in to system {peer.system_name} again")
    if change.bandwidth_limit is not None:
        said.append(f"its bandwidth limit is {format_rate(change.bandwidth_limit or None)}")
    if change.bandwidth_calendar is not None:
        said.append(f"its bandwidth calendar is {str(change.bandwidth_calendar) or 'none'}")
    if change.secondary_sets is not None:
        said.append(f"it {'may' if change.secondary_sets else 'may not'} create replication sets here")
    if change.secondary_size_limit is not None:
        limit = format_size(change.secondary_size_limit) if change.secondary_size_limit else "none"
        said.append(f"the size limit of its volumes here is {limit}")
    return said
