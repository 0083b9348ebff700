"""Asking for a run: from the request, over hooks and queue policy, to a point that is to be sent.

A request is told at once what becomes of it: it runs, it is queued behind the run that is under way, or it is
dropped. Whatever becomes of it, it takes a number of the snapshot history.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass

from offsite import events
from offsite.errors import NotAllowed, OffsiteError, SetDiverged, SnapshotNotFound
from offsite.pools.ancestry import is_snapshot_of
from offsite.pools.protocol import ImageInfo, Pool
from offsite.replication.peers.peers import Peers
from offsite.replication.points import other_halves
from offsite.replication.points.internal_images import find_image
from offsite.replication.points.snapshot_history import history_of
from offsite.replication.records import run_records, set_records
from offsite.replication.records.resources import Resources
from offsite.replication.records.run_states import RunEvent, RunState
from offsite.replication.records.run_writer import request_run
from offsite.replication.records.set_records import SetRecord
from offsite.replication.runs.dispatcher import Dispatcher
from offsite.replication.runs.preparation import Preparation
from offsite.replication.runs.run_points import RunPoints, RunSource


@dataclass(frozen=True)
class Requested:
    """`state` is running, queued or dropped."""

    run: str
    state: RunState


class RunRequests:
    def __init__(self, resources: Resources, peers: Peers, dispatcher: Dispatcher, preparation: Preparation) -> None:
        self._resources = resources
        self._peers = peers
        self._dispatcher = dispatcher
        self._preparation = preparation
        self._run_points = RunPoints(resources, resources.report)

    def replicate(self, set_uuid: str, snapshot: str | None = None, last_snapshot: bool = False) -> Requested:
        """Takes the point of a run, durably. `snapshot` sends that snapshot's data instead of the volume's, and
        `last_snapshot` that of the newest there is.

        Raises NotAllowed on the secondary and for a suspended set, SetDiverged, SnapshotNotFound, and what
        Preparation.prepare does.
        """
        replication_set = self._find(set_uuid)
        with self._resources.locks.requesting(replication_set.uuid, replication_set.name):
            replication_set = self.check(set_uuid)
            check_snapshot_allowed(replication_set, wanted=snapshot is not None or last_snapshot)
            # A name that is wrong is no request: it takes no number, and the last run stays the one that it was.
            named = None if snapshot is None else self._source(replication_set, snapshot)
            run = str(uuid.uuid4())
            number = replication_set.next_snapshot_number
            if self._drops(replication_set, run, number):
                self._resources.report(
                    events.RUN_DROPPED,
                    f"A request to replicate set name: {replication_set.name}, was dropped: a run is in progress, and "
                    "the queue policy is discard.",
                )
                return Requested(run, "dropped")
            try:
                source = named or self._source(replication_set, last_snapshot=last_snapshot)
            except (OffsiteError, OSError) as error:
                self._preparation.fail(replication_set, run, number, str(error))
                raise
            state = self._preparation.prepare(replication_set, run, number, source)
        self._tell(replication_set, state)
        self._dispatcher.wake()
        return Requested(run, state)

    def clear_queue(self, set_uuid: str) -> bool:
        """Drops the queued run; returns whether there was one. Raises NotAllowed on the secondary."""
        replication_set = self.check_clear_queue(set_uuid)
        with self._resources.locks.recording(replication_set.uuid, replication_set.name):
            dropped = self._run_points.drop_queued(replication_set, "the queue was cleared")
        if dropped:
            self._resources.report(
                events.RUN_DROPPED, f"The queued run of replication set name: {replication_set.name}, was dropped."
            )
        return dropped

    # -- checks --------------------------------------------------------------------------------------------

    def check_clear_queue(self, set_uuid: str) -> SetRecord:
        """The set. Raises NotAllowed on the secondary."""
        replication_set = self._find(set_uuid)
        self._peers.check_primary(replication_set, "cleared of queued runs")
        return replication_set

    def check(self, set_uuid: str) -> SetRecord:
        """The set, if a run of it may be asked for. Raises NotAllowed, or SetDiverged."""
        replication_set = self._find(set_uuid)
        self._peers.check_primary(replication_set, "replicated")
        if replication_set.state != "ready":
            raise NotAllowed(f"replication set {replication_set.name} is Not Ready; create it again, or delete it")
        if replication_set.suspended:
            raise NotAllowed(f"replication set {replication_set.name} is suspended; resume it first")
        with self._resources.database.read() as connection:
            half = other_halves.find_other_half(connection, replication_set.id)
            if half is not None and half.is_diverged:
                raise SetDiverged(other_halves.sentence_of(connection, replication_set, half))
        return replication_set

    def _find(self, set_uuid: str) -> SetRecord:
        with self._resources.database.read() as connection:
            replication_set = set_records.find_set(connection, set_uuid)
        if replication_set is None:
            raise NotAllowed("the replication set was deleted just now")
        return replication_set

    # -- the point -----------------------------------------------------------------------------------------

    def _drops(self, replication_set: SetRecord, run: str, number: int) -> bool:
        if replication_set.queue_policy != "discard":
            return False
        with self._resources.locks.recording(replication_set.uuid, replication_set.name):
            with self._resources.database.read() as connection:
                busy = run_records.set_run_in(connection, replication_set.id, "running") or run_records.set_run_in(
                    connection, replication_set.id, "queued"
                )
            if busy:
                why = "a run was in progress, and the queue policy is discard"
                now = self._resources.clock.now()
                with self._resources.database.transaction() as connection:
                    request_run(connection, replication_set.id, run, number, RunEvent.DROP, now, error=why)
        return busy is not None

    def _source(
        self, replication_set: SetRecord, snapshot: str | None = None, last_snapshot: bool = False
    ) -> RunSource:
        ids = tuple(member.image_id for member in replication_set.members)
        if snapshot is None and not last_snapshot:
            return RunSource(ids)
        pool, primary = find_image(self._resources.pools, ids[0])
        if last_snapshot:
            with self._resources.database.read() as connection:
                own = {each.image_id for each in history_of(connection, replication_set.id)}
            found = _last_snapshot(pool, primary, own)
        else:
            found = _snapshot(pool, primary, snapshot or "")
        return RunSource((found.id,), found.name, found.created_at)

    def _tell(self, replication_set: SetRecord, state: RunState) -> None:
        if state == "queued":
            self._resources.report(
                events.RUN_QUEUED, f"A run of replication set name: {replication_set.name}, was queued."
            )
        else:
            self._resources.report(
                events.RUN_STARTED, f"A run of replication set name: {replication_set.name}, was started."
            )


def check_snapshot_allowed(replication_set: SetRecord, *, wanted: bool) -> None:
    """Raises NotAllowed for a set of a group: one snapshot is not the instant of all its members."""
    if wanted and replication_set.group_id is not None:
        raise NotAllowed(
            f"replication set {replication_set.name} replicates a volume group; only a set of one volume can send a "
            "snapshot"
        )


def _snapshot(pool: Pool, primary: ImageInfo, name: str) -> ImageInfo:
    images = pool.images()
    found = next((image for image in images if name in (image.name, image.uuid)), None)
    if found is None or found.kind != "snapshot":
        raise SnapshotNotFound(f"snapshot {name[:100]!r} does not exist in pool {pool.name}")
    if not is_snapshot_of(images, found, primary):
        raise NotAllowed(f"{found.name} is not a snapshot of {primary.name}, the primary of the set")
    return found


def _last_snapshot(pool: Pool, primary: ImageInfo, own_history: Collection[int]) -> ImageInfo:
    """Ids rise with each new image; a clock may be put back. What runs of the set have left behind was sent already,
    and is taken later than its data when the run was queued."""
    mine = [image for image in pool.images() if image.kind == "snapshot" and image.parent_id == primary.id]
    mine = [image for image in mine if image.id not in own_history]
    if not mine:
        raise SnapshotNotFound(f"{primary.name} has no snapshot to replicate; take one first")
    return max(mine, key=lambda image: image.id)
