"""Pairing, as another system asks for it: a peer connection made, its certificate replaced, or ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from offsite import events
from offsite.clock import Clock
from offsite.errors import (
    AuthenticationFailed,
    BadParameter,
    CertificateChanged,
    InUse,
    NameInUse,
)
from offsite.events import Report
from offsite.replication.inbound.common_sets import CommonSets
from offsite.replication.link.identity import SystemIdentity, fingerprint_of
from offsite.replication.link.pinning import check_pinnable
from offsite.replication.naming.addresses import format_address
from offsite.replication.records import peer_records
from offsite.replication.records.limits import Limits
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.wire.messages import (
    Hello,
    Pair,
)
from offsite.store.database import Database

Authenticate = Callable[[str, str, str], bool]
"""Whether a name and a password are those of a user who may manage this system."""


class PairingService:
    def __init__(
        self,
        database: Database,
        system: SystemIdentity,
        authenticate: Authenticate,
        common: CommonSets,
        limits: Limits,
        report: Report,
        clock: Clock,
    ) -> None:
        self._database = database
        self._system = system
        self._authenticate = authenticate
        self._common = common
        self._limits = limits
        self._report = report
        self._clock = clock

    def pair(self, pair: Pair, hello: Hello, host: str) -> None:
        self._log_in(pair, host)
        check_pinnable(pair.certificate, f"system {hello.system_name}")
        if hello.system_uuid == self._system.uuid:
            raise BadParameter(
                f"system {hello.system_name} has the same uuid as {self._system.name}; it is a copy of it"
            )
        address = format_address(pair.host or host, pair.port)
        same = next((peer for peer in self._peers() if peer.system_uuid == hello.system_uuid), None)
        if same is None:
            self._add_peer(pair, hello, address)
        elif pair.replace:
            self._replace_certificate(same, pair, hello, host)
        else:
            _check_same(same, pair.certificate)
            with self._database.transaction() as transaction:
                values = {"system_name": hello.system_name, "address": address}
                peer_records.update_peer(transaction, same.id, values)

    def _add_peer(self, pair: Pair, hello: Hello, address: str) -> None:
        values: dict[str, Any] = {
            "name": hello.system_name,
            "system_uuid": hello.system_uuid,
            "system_name": hello.system_name,
            "address": address,
            "certificate": pair.certificate,
            "created_at": self._clock.now(),
        }
        with self._database.transaction() as transaction:
            self._check_new_peer(hello.system_name, pair.certificate)
            self._limits.check_new_peer(transaction)
            peer_records.insert_peer(transaction, values)
        self._report(
            events.PEER_CREATED,
            f"Peer connection {hello.system_name} was created by user {pair.username} of system "
            f"{hello.system_name} at {address}.",
        )

    def _replace_certificate(self, peer: PeerRecord, pair: Pair, hello: Hello, host: str) -> None:
        """Asked for by a user of the other system who has just shown a password of ours: it lost its certificate,
        or ours. Its address stays as it is here: our own user may have set it."""
        values = {"system_name": hello.system_name, "certificate": pair.certificate}
        with self._database.transaction() as transaction:
            self._check_certificate_of_no_other(pair.certificate, peer)
            peer_records.update_peer(transaction, peer.id, values)
        if pair.certificate != peer.certificate:
            self._report(
                events.PEER_CERTIFICATE_REPLACED,
                f"The certificate of system {peer.system_name} (peer connection {peer.name}) was replaced from {host} "
                f"with the password of user {pair.username}: its fingerprint was {fingerprint_of(peer.certificate)} "
                f"and is now {fingerprint_of(pair.certificate)}.",
            )

    def _log_in(self, pair: Pair, host: str) -> None:
        if self._authenticate(pair.username, pair.password, host):
            return
        raise AuthenticationFailed(
            f"user {pair.username!r} does not exist, has another password, or does not have the role manage"
        )

    def _check_new_peer(self, name: str, certificate: bytes) -> None:
        for peer in self._peers():
            if peer.name == name:
                raise NameInUse(
                    f"the peer connection {name!r} there is to another system of the same name. If that one replaced "
                    "this system, delete what is left here: `delete replication-set local-only SET`, then `delete "
                    "peer-connection local-only NAME`. To keep both, rename the peer connection there: `set "
                    f"peer-connection name NEW {name}`"
                )
        self._check_certificate_of_no_other(certificate)

    def _check_certificate_of_no_other(self, certificate: bytes, own: PeerRecord | None = None) -> None:
        for peer in self._peers():
            if peer.certificate == certificate and (own is None or peer.id != own.id):
                raise InUse(f"peer connection {peer.name} already has this certificate")

    def unpair(self, peer: PeerRecord) -> None:
        needed = [each.name for each in self._common.all(peer)]
        if needed:
            raise InUse(f"replication sets {', '.join(needed)} use the peer connection; delete those first")
        with self._database.transaction() as transaction:
            peer_records.delete_peer(transaction, peer.id)
        self._report(events.PEER_DELETED, f"Peer connection {peer.name} was deleted by system {peer.system_name}.")

    def _peers(self) -> list[PeerRecord]:
        with self._database.read() as transaction:
            return peer_records.all_peers(transaction)


def _check_same(peer: PeerRecord, certificate: bytes) -> None:
    if peer.certificate != certificate:
        raise CertificateChanged(
            f"system {peer.system_name} shows a certificate with the fingerprint {fingerprint_of(certificate)}, but "
            f"{fingerprint_of(peer.certificate)} is pinned for it; delete peer connection {peer.name} first, or, if "
            "the certificate was replaced on purpose, use set peer-connection remote-username"
        )
