"""Suspend, resume, abort: what a user does to the runs of a set, on its primary.

             suspend                      resume
    Ready ◀──────────▶ Suspended     Running ◀──▶ Suspended, with a run that stands still
                                        └── abort ──┴──▶ Ready, or Unsynchronized; the queue goes on

A run whose hooks are running is a run like any other: suspended, it stands still once its point is taken.

An abort is on record before anyone else is asked, so it always ends. What is left of it on the secondary, and
the point that the secondary may just have made its base, are settled with the secondary: at once if it
answers, else as soon as it does (see reconciler).
"""

from __future__ import annotations

from collections.abc import Iterable

from offsite import events
from offsite.errors import InUse, NotAllowed, SetDiverged
from offsite.replication.peers.peers import Peers
from offsite.replication.points import other_halves
from offsite.replication.records import run_records, set_records
from offsite.replication.records.resources import Resources
from offsite.replication.records.run_states import RunState
from offsite.replication.records.set_records import SetRecord
from offsite.replication.runs.dispatcher import Dispatcher
from offsite.replication.runs.preparation import Preparation
from offsite.replication.runs.reconciler import Reconciler
from offsite.replication.runs.run_points import RunPoints

ABORT_LOCK_SECONDS = 2.0  # for a step that a slow disk holds up: an abort ends within five
ABORT_WAIT_SECONDS = 1.0  # for the attempt to leave off, before the secondary is asked
_ABORTABLE: tuple[RunState, ...] = ("running", "preparing")


class RunControl:
    def __init__(
        self,
        resources: Resources,
        peers: Peers,
        dispatcher: Dispatcher,
        preparation: Preparation,
        reconciler: Reconciler,
    ) -> None:
        self._resources = resources
        self._peers = peers
        self._dispatcher = dispatcher
        self._preparation = preparation
        self._reconciler = reconciler
        self._run_points = RunPoints(resources)

    def suspend(self, set_uuids: Iterable[str]) -> None:
        """What is under way stands still within a second, and no new run is taken. Raises NotAllowed, with none of
        the sets suspended."""
        for replication_set in self.check_suspend(set_uuids):
            self._set_suspended(replication_set, True)
            self._dispatcher.stop_attempt(replication_set.uuid)
            self._resources.report(
                events.SET_SUSPENDED, f"Replication set name: {replication_set.name}, was suspended."
            )

    def resume(self, set_uuids: Iterable[str]) -> None:
        """Goes on with the runs that stand still, also those that failed and wait to be tried again. Raises
        NotAllowed, or SetDiverged, with none of the sets resumed."""
        for replication_set in self.check_resume(set_uuids):
            self._set_suspended(replication_set, False)
            self._dispatcher.retry_now(replication_set.uuid)
            self._resources.report(events.SET_RESUMED, f"Replication set name: {replication_set.name}, was resumed.")

    def abort(self, set_uuid: str) -> bool:
        """Ends the run, running or suspended, and lifts the suspension. Returns whether the secondary has been
        told; if not, it will be. Raises NotAllowed when there is no run, and InUse when a disk holds it up."""
        replication_set = self._record(set_uuid, "aborted")
        with self._dispatcher.standing_still(replication_set.uuid, 0.0):
            with self._resources.locks.recording(replication_set.uuid, replication_set.name, ABORT_LOCK_SECONDS):
                self._dispatcher.stop_attempt(replication_set.uuid)
                with self._resources.database.read() as connection:
                    run = run_records.set_run_in(connection, replication_set.id, "running")
                if run is not None:
                    may_be_committed = self._dispatcher.may_be_committed(replication_set.uuid, run.uuid)
                    self._run_points.abort(replication_set, run, "aborted by a user", may_be_committed=may_be_committed)
                elif not self._preparation.abort(replication_set):
                    raise _no_run(replication_set)
                self._set_suspended(replication_set, False)
            self._resources.report(
                events.RUN_ABORTED, f"A run of replication set name: {replication_set.name}, was aborted."
            )
            if run is None:
                return True  # the secondary has never heard of it
            with self._dispatcher.standing_still(replication_set.uuid, ABORT_WAIT_SECONDS) as still:
                return still and self._reconciler.settle_now(replication_set)

    # -- checks --------------------------------------------------------------------------------------------

    def check_suspend(self, set_uuids: Iterable[str]) -> list[SetRecord]:
        """The sets. Raises what `suspend` raises."""
        sets = [self._record(each, "suspended") for each in set_uuids]
        for replication_set in sets:
            if replication_set.suspended:
                raise NotAllowed(f"replication set {replication_set.name} is already suspended")
        return sets

    def check_resume(self, set_uuids: Iterable[str]) -> list[SetRecord]:
        """The sets. Raises what `resume` raises."""
        sets = [self._record(each, "resumed") for each in set_uuids]
        for replication_set in sets:
            progress = self._dispatcher.progress(replication_set.uuid)
            self._check_not_diverged(replication_set)
            if not replication_set.suspended and not (progress is not None and progress.in_trouble):
                raise NotAllowed(f"replication set {replication_set.name} is not suspended")
        return sets

    def check_abort(self, set_uuid: str) -> None:
        """Raises NotAllowed when there is no run, or the set is secondary here."""
        replication_set = self._record(set_uuid, "aborted")
        with self._resources.database.read() as connection:
            if not any(run_records.set_run_in(connection, replication_set.id, each) for each in _ABORTABLE):
                raise _no_run(replication_set)

    def _check_not_diverged(self, replication_set: SetRecord) -> None:
        """Of a set that nobody has suspended: resuming it would decide nothing."""
        with self._resources.database.read() as connection:
            half = other_halves.find_other_half(connection, replication_set.id)
            if half is not None and half.is_diverged and not replication_set.suspended:
                raise SetDiverged(other_halves.sentence_of(connection, replication_set, half))

    def _set_suspended(self, replication_set: SetRecord, suspended: bool) -> None:
        with self._resources.database.transaction() as connection:
            set_records.update_set(connection, replication_set.id, suspended=suspended)
        self._reconciler.set_changed()

    def _record(self, set_uuid: str, what: str) -> SetRecord:
        with self._resources.database.read() as connection:
            replication_set = set_records.find_set(connection, set_uuid)
        if replication_set is None:
            raise InUse("the replication set was just deleted")
        self._peers.check_primary(replication_set, what)
        return replication_set


def _no_run(replication_set: SetRecord) -> NotAllowed:
    return NotAllowed(f"replication set {replication_set.name} has no run to abort")
