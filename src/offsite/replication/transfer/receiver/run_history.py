"""What the secondary keeps of a run: history snapshots, taken in the step that makes the run's point its volumes."""

from __future__ import annotations

import structlog

from offsite import events
from offsite.errors import (
    OffsiteError,
)
from offsite.pools.protocol import Pool
from offsite.replication.naming.snapshot_names import check_basename
from offsite.replication.naming.snapshot_numbers import later_number
from offsite.replication.points.history_rotation import HISTORY_MAX, has_place, rotate, terms_of
from offsite.replication.points.snapshot_history import Keeping, KeptHistory, history_of
from offsite.replication.records import peer_share, set_records
from offsite.replication.records.resources import Resources
from offsite.replication.records.set_records import SetRecord
from offsite.replication.wire.messages import (
    Commit,
)

_log = structlog.get_logger(__name__)


class RunHistory:
    def __init__(self, resources: Resources, pool: Pool, replication_set: SetRecord) -> None:
        self._resources = resources
        self._pool = pool
        self._set = replication_set

    def keeping(self, commit: Commit, taken_at: float) -> Keeping | None:
        """The history snapshots to take of the volumes once they are what the run has sent. Their number is the one
        that the primary has given, unless a later one has been used here: before a restore of the primary, say."""
        wanted = commit.history
        if wanted is None:
            return None
        check_basename(wanted.basename, of_group=len(self._set.members) > 1)
        with self._resources.database.read() as connection:
            replication_set = set_records.find_set(connection, self._set.uuid) or self._set
            is_first = replication_set.next_snapshot_number == 0 and not history_of(connection, replication_set.id)
        number = wanted.number if is_first else later_number(wanted.number, replication_set.next_snapshot_number)
        priority, now = wanted.retention_priority, self._resources.clock.now()
        return Keeping(replication_set.id, commit.run, wanted.basename, number, priority, taken_at, now)

    def find(self, keeping: Keeping | None) -> KeptHistory | None:
        if keeping is None:
            return None
        with self._resources.database.read() as connection:
            if not has_place(history_of(connection, self._set.id)) or not self._may_have_snapshots():
                return None
            return keeping.find(connection, len(self._set.members))

    def _may_have_snapshots(self) -> bool:
        with self._resources.database.read() as connection:
            return peer_share.has_room_for_images(connection, self._set.peer_id, len(self._set.members))

    def end(self, commit: Commit, keeping: Keeping | None, kept: KeptHistory | None) -> None:
        """Never raises what a disk may do: the run is committed by now."""
        try:
            self._tell(commit, keeping, kept)
        except (OffsiteError, OSError) as error:
            _log.error("cannot update the history of a set", set=self._set.name, reason=str(error))

    def _tell(self, commit: Commit, keeping: Keeping | None, kept: KeptHistory | None) -> None:
        if commit.history is None or keeping is None:
            return
        with self._resources.database.read() as connection:
            replication_set = set_records.find_set(connection, self._set.uuid) or self._set
            is_full = not has_place(history_of(connection, replication_set.id))
        if kept is None and is_full:
            self._resources.report(
                events.SNAPSHOT_KEPT,
                f"A run of replication set name: {replication_set.name}, kept no snapshot: the history already has "
                f"{HISTORY_MAX}, the oldest because of minimum-snapshot-age "
                f"{replication_set.minimum_snapshot_age_hours} or because they are in use.",
            )
        elif kept is None and not self._may_have_snapshots():
            self._resources.report(
                events.PEER_LIMIT_REACHED,
                f"A run of replication set name: {replication_set.name}, kept no snapshot: its peer already has as "
                "many volumes and snapshots here as the setting maximum-images-per-peer allows.",
            )
        elif kept is None or kept.number != keeping.number:
            self._resources.report(events.HISTORY_NAME_IN_USE, keeping.sentence(replication_set.name, kept))
        elif kept.number != commit.history.number:
            self._resources.report(
                events.HISTORY_NAME_IN_USE,
                f"A run of replication set name: {replication_set.name}, kept {', '.join(kept.names)} instead of "
                f"number {commit.history.number}, because a later number is already used here.",
            )
        terms = terms_of(replication_set, commit.history.count)
        rotate(
            self._resources.database,
            self._pool,
            self._resources.needs,
            replication_set,
            terms,
            self._resources.clock.now(),
            self._resources.report,
        )
