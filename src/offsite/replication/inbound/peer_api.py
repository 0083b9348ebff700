"""What other systems ask of this one, and who answers it."""

from __future__ import annotations

import time
from collections.abc import Callable

from offsite.errors import IncarnationRefused
from offsite.replication.inbound.common_sets import CommonSets
from offsite.replication.inbound.pairing_service import Authenticate, PairingService
from offsite.replication.inbound.secondary_half import SecondaryHalves
from offsite.replication.link.identity import SystemIdentity
from offsite.replication.peers import incarnation_records
from offsite.replication.peers.incarnation import Start
from offsite.replication.points.holdings import told_holds
from offsite.replication.points.other_halves import OtherHalves
from offsite.replication.points.plan import Relation
from offsite.replication.records import peer_records, peer_share
from offsite.replication.records.limits import Limits
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.resources import Resources
from offsite.replication.transfer.receiver.endpoint import ReceiverEndpoint
from offsite.replication.transfer.receiver.fence import Fences
from offsite.replication.transfer.receiver.partial_point import BackgroundWork
from offsite.replication.wire.errors import NotPaired
from offsite.replication.wire.messages import (
    Ask,
    ChangeSet,
    CreateSet,
    DeleteSet,
    Hello,
    Holds,
    Look,
    Pair,
    SetsHeld,
    ToldStart,
)


class PeerApi:
    """See session.Requests. Every request may come twice."""

    def __init__(
        self,
        resources: Resources,
        system: SystemIdentity,
        authenticate: Authenticate,
        fences: Fences,
        limits: Limits,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._resources = resources
        self._fences = fences
        self._common = CommonSets(resources.database)
        self._other_halves = OtherHalves(resources.database, resources.report, resources.clock)
        self._pairing = PairingService(
            resources.database, system, authenticate, self._common, limits, resources.report, resources.clock
        )
        self._halves = SecondaryHalves(resources, system, self._common, fences, limits)
        self.pace = peer_share.PeerPace(resources.clock, wait)

    def pinned_certificates(self) -> list[bytes]:
        with self._resources.database.read() as connection:
            return [peer.certificate for peer in peer_records.all_peers(connection)]

    def find_peer(self, certificate: bytes) -> PeerRecord | None:
        with self._resources.database.read() as connection:
            return peer_records.find_peer(connection, certificate)

    def check_still_peer(self, certificate: bytes, told: ToldStart | None) -> PeerRecord:
        with self._resources.database.read() as connection:
            found = incarnation_records.find_peer_and_start(connection, certificate)
        if found is None:
            raise NotPaired("the peer connection was deleted here")
        peer, newest = found
        if newest is not None and (told is None or Start(told.number, told.id) != newest):
            raise IncarnationRefused(
                f"this connection is from another start of system {peer.system_name} than the accepted one, {newest}"
            )
        return peer

    def pair(self, pair: Pair, hello: Hello, host: str) -> None:
        self._pairing.pair(pair, hello, host)

    def unpair(self, peer: PeerRecord) -> None:
        self._pairing.unpair(peer)

    def create_set(self, peer: PeerRecord, request: CreateSet) -> None:
        self._halves.create(peer, request)

    def change_set(self, peer: PeerRecord, request: ChangeSet) -> None:
        self._halves.change(peer, request)

    def delete_set(self, peer: PeerRecord, request: DeleteSet) -> None:
        self._halves.delete(peer, request)

    def list_sets(self, peer: PeerRecord) -> SetsHeld:
        """The halves that are here of sets with this peer, in whatever state."""
        return SetsHeld(sets=[each.uuid for each in self._common.all(peer)])

    def look(self, peer: PeerRecord, request: Look) -> Holds:
        """What there is here, for whoever has the other half; and what its primary thinks of it, for our operator."""
        replication_set = self._common.get(peer, request.set_uuid)
        if replication_set.role == "secondary" and replication_set.generation == request.generation:
            relation = Relation.DIVERGED if request.diverged else Relation.SAME
            base = request.primary.point if request.primary is not None else None
            self._other_halves.found(replication_set, relation, base, request.primary)
        return told_holds(self._resources.database, self._resources.pools, replication_set)

    def open_run(
        self, peer: PeerRecord, ask: Ask, background: BackgroundWork, wire_bytes: Callable[[], int]
    ) -> ReceiverEndpoint:
        replication_set = self._common.secondary(peer, ask.set_uuid, ask.generation)
        fence = self._fences.of(replication_set.uuid)
        return ReceiverEndpoint(self._resources, replication_set, fence, background, wire_bytes)
