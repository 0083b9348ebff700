"""The way out of a diverged set: an operator decides that the primary's content counts, and what the secondary holds is
kept as a snapshot of each volume there.

    diverged ──decided here──▶ asked what it holds ──still that──▶ kept there ──▶ on record ──▶ a run replaces it

Whatever fails on the way, the copy over there is the volume still, or is kept; the command can be repeated. (That the
secondary's content counts needs its roles to change, and comes with that.)
"""

from __future__ import annotations

from dataclasses import dataclass

from offsite import events
from offsite.errors import InUse, NotAllowed, SetDiverged
from offsite.replication.peers.peers import Peers
from offsite.replication.points import other_halves
from offsite.replication.points.internal_images import find_image
from offsite.replication.points.other_halves import OtherHalf, OtherHalves
from offsite.replication.points.plan import Relation, compare
from offsite.replication.records import peer_records, run_records, set_records
from offsite.replication.records.resources import Resources
from offsite.replication.records.set_records import SetRecord
from offsite.replication.runs.dispatcher import Dispatcher
from offsite.replication.transfer.sender.endpoint import SenderEndpoint
from offsite.replication.wire.messages import Ask, Holds, Keep, Kept
from offsite.units import format_size

STILL_SECONDS = 5.0  # for an attempt that is under way to end


@dataclass(frozen=True)
class Resolved:
    snapshots: list[str]  # on the secondary
    peer_name: str
    has_run: bool  # one that stood still goes on


class Resolution:
    def __init__(self, resources: Resources, peers: Peers, dispatcher: Dispatcher) -> None:
        self._resources = resources
        self._peers = peers
        self._dispatcher = dispatcher
        self._other_halves = OtherHalves(resources.database, resources.report, resources.clock)

    def question(self, set_uuid: str) -> str:
        """What is kept, what is replaced, and what it costs. Raises NotAllowed for a set that is not diverged."""
        replication_set, half = self._find(set_uuid)
        with self._resources.database.read() as connection:
            peer = peer_records.peer_name(connection, replication_set.peer_id)
            ours = other_halves.own_recovery_point(connection, replication_set.id)
        here = format_size(
            sum(
                find_image(self._resources.pools, member.image_id)[1].allocated_bytes
                for member in replication_set.members
            )
        )
        return (
            f"Replication set {replication_set.name} is diverged. {peer} holds {other_halves.told_of(half.point)}, "
            f"which this system never had; the newest copy that this system knows has {other_halves.told_of(ours)}. "
            f"Continue with the content of this system? The copy on {peer} is kept there as a snapshot of each volume; "
            f"up to {here} are sent, which require space there."
        )

    def use_primary(self, set_uuid: str) -> Resolved:
        """Keeps what the secondary holds, and lets runs replace it. Raises NotAllowed for a set that is not diverged or
        is suspended, Diverged when the secondary holds yet another copy by now, InUse, and PeerUnreachable."""
        replication_set, half = self.check(set_uuid)
        with (
            self._dispatcher.standing_still(replication_set.uuid, STILL_SECONDS) as still,
            self._resources.locks.settling(replication_set.uuid, STILL_SECONDS) as alone,
        ):
            if not still or not alone:
                raise InUse(
                    f"timeout: a run of replication set {replication_set.name} has not ended within "
                    f"{STILL_SECONDS:.0f} s; try again in a moment"
                )
            kept = self._keep(replication_set, half)
            with self._resources.database.transaction() as connection:
                assert half.base is not None
                other_halves.allow_replacement(connection, replication_set.id, half.base)
                running = run_records.set_run_in(connection, replication_set.id, "running")
                peer = peer_records.peer_name(connection, replication_set.peer_id)
        self._resources.report(
            events.DIVERGENCE_DECIDED,
            f"An operator decided that replication set name: {replication_set.name}, continues with the content of its "
            f"primary; the copy on {peer} is kept there in {', '.join(kept)}.",
        )
        self._dispatcher.retry_now(replication_set.uuid)
        return Resolved(kept, peer, running is not None)

    def check(self, set_uuid: str) -> tuple[SetRecord, OtherHalf]:
        """The set, and what is known of its other half. Raises NotAllowed for a set that is not diverged or is
        suspended."""
        replication_set, half = self._find(set_uuid)
        if replication_set.suspended:
            raise NotAllowed(f"replication set {replication_set.name} is suspended; resume it first")
        return replication_set, half

    def _keep(self, replication_set: SetRecord, half: OtherHalf) -> list[str]:
        with self._peers.connect(self._peers.record_of(replication_set.peer_id)) as connection:
            ask = Ask(set_uuid=replication_set.uuid, generation=replication_set.generation)
            held = connection.channel.ask(connection.asking, ask, Holds)
            end = SenderEndpoint(
                self._resources,
                replication_set,
                "",
            )
            relation = compare(end.side(held), held.base)
            self._other_halves.found(replication_set, relation, held.base, held.complete)
            if relation is not Relation.DIVERGED:
                raise NotAllowed(
                    f"replication set {replication_set.name} is no longer diverged; no decision is required"
                )
            if held.base is None or held.base != half.base:
                raise SetDiverged(
                    f"the secondary of replication set {replication_set.name} now holds another copy; check it again"
                )
            keep = Keep(base=held.base, generation=replication_set.generation)
            return connection.channel.ask(connection.asking, keep, Kept).snapshots

    def _find(self, set_uuid: str) -> tuple[SetRecord, OtherHalf]:
        with self._resources.database.read() as connection:
            replication_set = set_records.find_set(connection, set_uuid)
            half = other_halves.find_other_half(connection, replication_set.id) if replication_set is not None else None
        if replication_set is None:
            raise NotAllowed("the replication set was just deleted")
        self._peers.check_primary(replication_set, "resolved")
        if half is None or half.relation != "diverged":
            raise NotAllowed(f"replication set {replication_set.name} is not diverged; no decision is required")
        return replication_set, half
