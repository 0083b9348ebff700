"""What a system does about its sets when nobody asks: it looks whether its peers are there, and brings both halves
of each set into line again.

On each visit to a peer:
  - sets whose runs failed because the peer was gone are tried again at once;
  - the peer is told what primary sets are like now: their names and their volumes', policy, history, suspended or not;
  - what the secondary holds is compared with what it is known to hold: what is shown of a set is never a copy that is
    no longer there, and one that the primary never had stops the set (see other_halves);
  - what is left of aborted runs is settled: the secondary's partial point goes, and the primary's point with it,
    unless the secondary had made it its base before the abort came;
  - a set whose other half is gone over there is told to the operator, who may delete it here.

A peer that something waits for, or that did not answer, is visited every few seconds, any other once a minute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from offsite import events
from offsite.errors import IncarnationRefused, OffsiteError, PeerUnreachable, StateDirectoryError
from offsite.replication.link.dialer import DialedConnection
from offsite.replication.peers.peers import Peers
from offsite.replication.peers.refusals import Refusals
from offsite.replication.points import other_halves, point_records
from offsite.replication.points.other_halves import OtherHalves
from offsite.replication.points.plan import Adopt, DiscardThere, Relation, compare, settle
from offsite.replication.records import peer_records, set_records
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.resources import Resources
from offsite.replication.records.set_records import SetRecord
from offsite.replication.runs.dispatcher import Dispatcher
from offsite.replication.transfer.sender.endpoint import SenderEndpoint
from offsite.replication.wire.errors import NotPaired
from offsite.replication.wire.messages import (
    Ask,
    ChangeSet,
    Discard,
    Done,
    Holds,
    ListSets,
    Look,
    PrimaryNames,
    SetSettings,
    SetsHeld,
)

SOON_SECONDS = 5.0
SELDOM_SECONDS = 60.0
SETTLING_SECONDS = 2.0  # that an abort waits for a visit that settles the same
PATIENCE_SECONDS = 1.0  # for each word of a visit: an abort waits for it
VISIT_SECONDS = 5.0  # for a whole visit, and so much more for each set: one thread visits all peers
SET_SECONDS = 2.0

_FAILURES = OffsiteError, OSError, SQLAlchemyError

_log = structlog.get_logger(__name__)


class Reconciler:
    def __init__(self, resources: Resources, peers: Peers, dispatcher: Dispatcher) -> None:
        self._resources = resources
        self._peers = peers
        self._dispatcher = dispatcher
        self._other_halves = OtherHalves(resources.database, resources.report, resources.clock)
        self._lock = threading.Lock()
        self._due: dict[int, float] = {}  # when to visit a peer, by its id
        self._told: dict[str, ChangeSet] = {}  # what the peer was told of a set last, by the set's uuid
        self._half_missing: set[str] = set()
        self._refusals = Refusals(resources.report)
        self._changes = 0  # how often a set has changed
        self._failures = 0  # how often a run has failed because its peer was gone
        self.wake: Callable[[], None] = lambda: None

    def step(self) -> float | None:
        """Visits the peers whose time has come. Returns when the next one's comes."""
        with self._lock:
            before = self._changes, self._failures  # what comes after this may not be in the records that are read
        try:
            with self._resources.database.read() as connection:
                peers = peer_records.all_peers(connection)
                sets = set_records.all_sets(connection)
                owing = point_records.sets_with_aborted(connection)
        except OffsiteError as error:
            _log.error("cannot contact peers: cannot read the database", reason=str(error))
            return self._resources.clock.monotonic() + SELDOM_SECONDS
        for peer in peers:
            mine = [
                replication_set
                for replication_set in sets
                if replication_set.peer_id == peer.id and replication_set.state == "ready"
            ]
            if self._resources.clock.monotonic() >= self._due.get(peer.id, 0.0):
                self._visit(peer, mine)
                waited_for = self._peers.contacts.is_silent(peer) or any(
                    self._dispatcher.waits_for_peer(replication_set.uuid) or self._owes(replication_set, owing)
                    for replication_set in mine
                )
                with self._lock:
                    self._due[peer.id] = self._resources.clock.monotonic() + self._interval_seconds(before, waited_for)
        self._refusals.keep_only({peer.id for peer in peers}.__contains__)
        with self._lock:
            # Not of a peer that was deleted: what is not visited would be due for ever.
            visited = {peer.id for peer in peers}
            self._due = {peer_id: at for peer_id, at in self._due.items() if peer_id in visited}
            return min(self._due.values(), default=self._resources.clock.monotonic() + SELDOM_SECONDS)

    def _interval_seconds(self, before: tuple[int, int], waited_for: bool) -> float:
        """Until the next visit of a peer that was visited with what was known at `before`."""
        changes, failures = before
        if self._changes != changes:
            return 0.0
        return SOON_SECONDS if waited_for or self._failures != failures else SELDOM_SECONDS

    def set_changed(self) -> None:
        """The peer is told soon."""
        with self._lock:
            self._changes += 1
            self._due.clear()
        self.wake()

    def peer_failed(self) -> None:
        """A run has failed: whether its peer is back is looked at every few seconds from now on."""
        with self._lock:
            self._failures += 1
            soon = self._resources.clock.monotonic() + SOON_SECONDS
            self._due = {peer_id: min(at, soon) for peer_id, at in self._due.items()}
        self.wake()

    def half_missing(self, set_uuid: str) -> bool:
        """Whether the peer said that it has no other half of this set."""
        return set_uuid in self._half_missing

    def refusal(self, peer_id: int) -> str | None:
        """Why the peer refused this system, or was refused, when it was visited last; none if it was not."""
        return self._refusals.reason(peer_id)

    def settle_now(self, replication_set: SetRecord) -> bool:
        """What is left of the set's aborted runs, with the peer, if it answers at once. Nothing is sent meanwhile:
        the caller sees to that. Returns whether it is settled."""
        with self._resources.locks.settling(replication_set.uuid, SETTLING_SECONDS) as alone:
            if not alone:
                return False
            try:
                with self._peers.connect(
                    self._peers.record_of(replication_set.peer_id), PATIENCE_SECONDS
                ) as connection:
                    self._settle(connection, replication_set)
            except _FAILURES as error:
                _log.info("an abort will be completed later", set=replication_set.name, reason=str(error))
                self.peer_failed()
                return False
            return True

    # -- a visit -------------------------------------------------------------------------------------------

    def _visit(self, peer: PeerRecord, sets: Sequence[SetRecord]) -> None:
        """Never raises what may be expected to happen, and ends in bounded time whatever the peer does."""
        left, compared = list(sets), False
        until = self._resources.clock.monotonic() + VISIT_SECONDS + SET_SECONDS * len(left)
        while left or not compared:
            try:
                connection = self._peers.connect(peer, PATIENCE_SECONDS)
            except _FAILURES as error:
                self._not_visited(peer, error)
                return
            connection.channel.end_within(until - self._resources.clock.monotonic())
            try:
                with connection:
                    if not compared:
                        self._dispatcher.peer_is_back(peer.id)
                        self._refusals.accepted(peer)
                        self._compare(connection, peer, sets)
                        compared = True
                    while left:
                        replication_set = left.pop(0)
                        if replication_set.role == "primary" and replication_set.uuid not in self._half_missing:
                            self._tell(connection, replication_set)
                            self._attend_if_idle(connection, replication_set)
            except _FAILURES as error:
                if isinstance(error, PeerUnreachable) or not compared:
                    self._not_visited(peer, error)
                    return
                # What one set is refused ends the connection, and is no reason to leave the others alone.
                _log.warning("cannot contact peer", peer=peer.name, reason=str(error))

    def _not_visited(self, peer: PeerRecord, error: Exception) -> None:
        if isinstance(error, PeerUnreachable):
            _log.debug("peer is unreachable", peer=peer.name, reason=str(error))
        else:
            _log.warning("cannot contact peer", peer=peer.name, reason=str(error))
        if not isinstance(error, OffsiteError) or isinstance(error, StateDirectoryError):
            return  # it failed here, whatever the peer is like
        if not isinstance(error, PeerUnreachable):
            self._refusals.refused(peer, error)
        if isinstance(error, IncarnationRefused | NotPaired):
            return  # it is there, and was told by an event of its own
        try:
            self._peers.contacts.failed(peer, str(error))
        except _FAILURES as trouble:
            _log.error("cannot record that a peer is unreachable", peer=peer.name, reason=str(trouble))

    def _owes(self, replication_set: SetRecord, with_aborted: set[int]) -> bool:
        """Whether the peer is still to hear of something."""
        if replication_set.role != "primary" or replication_set.uuid in self._half_missing:
            return False
        told = self._told.get(replication_set.uuid)
        return replication_set.id in with_aborted or told is None or told.settings != settings_of(replication_set)

    def _tell(self, connection: DialedConnection, replication_set: SetRecord) -> None:
        """Also what was told before: what an older connection had on its way may have come after it."""
        change = self._change_to_tell(replication_set)
        connection.channel.ask(connection.asking, change, Done)
        self._told[replication_set.uuid] = change

    def _change_to_tell(self, replication_set: SetRecord) -> ChangeSet:
        with self._resources.database.read() as transaction:
            group, names = set_records.own_names(transaction, replication_set)
        primary = PrimaryNames(group=group, members=names) if names else None
        return ChangeSet(
            set_uuid=replication_set.uuid,
            generation=replication_set.generation,
            settings=settings_of(replication_set),
            primary=primary,
        )

    def _attend_if_idle(self, connection: DialedConnection, replication_set: SetRecord) -> None:
        """An attempt that is under way does all this by itself, as a part of its plan."""
        with (
            self._dispatcher.standing_still(replication_set.uuid, 0.0) as still,
            self._resources.locks.settling(replication_set.uuid, 0.0) as alone,
        ):
            if still and alone and self._is_still_there(replication_set):
                self._compare_bases(connection, replication_set)
                self._settle(connection, replication_set)

    def _compare_bases(self, connection: DialedConnection, replication_set: SetRecord) -> None:
        """Nothing is sent meanwhile, so what the two sides say of themselves is of one time."""
        held = connection.channel.ask(connection.asking, self._look_at(replication_set), Holds)
        end = SenderEndpoint(
            self._resources,
            replication_set,
            "",
        )
        relation = compare(end.side(held), held.base)
        is_new = self._other_halves.found(replication_set, relation, held.base, held.complete)
        if is_new and relation is not Relation.OLDER:
            # So that the operator of the secondary hears of it.
            connection.channel.ask(connection.asking, self._look_at(replication_set), Holds)
            if relation is Relation.SAME:
                self._dispatcher.retry_now(replication_set.uuid)

    def _look_at(self, replication_set: SetRecord) -> Look:
        with self._resources.database.read() as transaction:
            half = other_halves.find_other_half(transaction, replication_set.id)
            ours = other_halves.own_recovery_point(transaction, replication_set.id)
        diverged = half is not None and half.relation == "diverged"
        return Look(
            set_uuid=replication_set.uuid,
            generation=replication_set.generation,
            diverged=diverged,
            primary=ours if diverged else None,
        )

    def _settle(self, connection: DialedConnection, replication_set: SetRecord) -> None:
        end = SenderEndpoint(
            self._resources,
            replication_set,
            "",
            self._resources.report,
        )
        if not end.has_aborted():
            return
        ask = Ask(set_uuid=replication_set.uuid, generation=replication_set.generation)
        held = connection.channel.ask(connection.asking, ask, Holds)
        for step in settle(end.side(held), held.base):
            if isinstance(step, DiscardThere):
                sentence = "aborted by a user of the primary"
                discard = Discard(generation=replication_set.generation, run=step.point, sentence=sentence)
                connection.channel.ask(connection.asking, discard, Done)
            elif end.do(step, held.outcome) and isinstance(step, Adopt):
                self._resources.report(
                    events.RUN_SETTLED,
                    f"The aborted run of replication set name: {replication_set.name}, completed on the secondary "
                    "before the abort and counts as a success.",
                )

    def _compare(self, connection: DialedConnection, peer: PeerRecord, sets: Sequence[SetRecord]) -> None:
        there = set(connection.channel.ask(connection.asking, ListSets(), SetsHeld).sets)
        for replication_set in sets:
            if replication_set.uuid in there:
                self._half_missing.discard(replication_set.uuid)
            elif replication_set.uuid not in self._half_missing:
                # Unless somebody is at it, who is perhaps just deleting it on both.
                with self._resources.locks.requesting_now(replication_set.uuid) as alone:
                    if alone and self._is_still_there(replication_set):
                        self._tell_half_missing(replication_set, peer)

    def _tell_half_missing(self, replication_set: SetRecord, peer: PeerRecord) -> None:
        self._half_missing.add(replication_set.uuid)
        self._resources.report(
            events.SET_HALF_MISSING,
            f"Replication set name: {replication_set.name}, does not exist on system {peer.system_name}.",
        )

    def _is_still_there(self, replication_set: SetRecord) -> bool:
        """It may have been deleted on both systems while we were asking."""
        with self._resources.database.read() as connection:
            return set_records.find_set(connection, replication_set.uuid) is not None


def settings_of(replication_set: SetRecord) -> SetSettings:
    return SetSettings(
        name=replication_set.name,
        queue_policy=replication_set.queue_policy,
        snapshot_history=replication_set.snapshot_history,
        snapshot_basename=replication_set.snapshot_basename,
        snapshot_count=replication_set.snapshot_count,
        snapshot_retention_priority=replication_set.snapshot_retention_priority,
        suspended=replication_set.suspended,
    )
