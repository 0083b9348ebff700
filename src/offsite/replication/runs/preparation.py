"""A run between its request and its first byte: its hooks, and the snapshot between them.

    preparing ──before-snapshot hook──▶ snapshot: running or queued ──after-snapshot hook──▶ may be sent
        │                                   │
        ├──hook or snapshot fails──▶ failed ├──after-snapshot hook fails──▶ failed, and the point is taken back
        └──abort──▶ aborted                 └──abort, clear queue──▶ aborted, dropped

Whatever becomes of the run, the after-snapshot hook follows the before-snapshot one: what was frozen must thaw. That
it is due is on record until it has ended, so that it also follows a crash. An abort ends the before-snapshot hook,
which nothing needs any more; the after-snapshot hook it leaves alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from offsite import events
from offsite.errors import ErrorClass, OffsiteError
from offsite.replication.records import run_records, set_records
from offsite.replication.records.resources import Resources
from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.run_states import RunEvent, RunState
from offsite.replication.records.run_writer import RunFacts, change_run, note_run, request_run
from offsite.replication.records.set_records import SetRecord
from offsite.replication.runs.hooks import Cut, HookFailed, Hooks
from offsite.replication.runs.run_points import RunPoints, RunSource
from offsite.return_codes import ReturnCode

_STOPPING = "the system is stopping"
_STOPPED = "the system was stopped before its snapshot was taken"

_log = structlog.get_logger(__name__)


class RunEnded(OffsiteError):
    """Somebody has ended the run while its hooks ran."""

    code = ReturnCode.RUN_ENDED
    error_class = ErrorClass.OPERATOR


class Preparation:
    def __init__(self, resources: Resources, hooks: Hooks) -> None:
        self._resources = resources
        self._hooks = hooks
        self._run_points = RunPoints(resources, resources.report)
        self._lock = threading.Lock()
        self._cuts: dict[str, Cut] = {}  # of the before-snapshot hooks that are running, by their runs
        self._stopping = False

    def prepare(self, replication_set: SetRecord, run: str, number: int, source: RunSource) -> RunState:
        """Takes the point of a run, between its hooks. The caller holds the set's requesting lock.

        Raises RunEnded, HookFailed, PoolFull, and what else the pool raises. The run has ended then, on record.
        """
        if replication_set.before_snapshot or replication_set.after_snapshot:
            return self._take_between_hooks(replication_set, run, number, source)
        try:
            return self._take(replication_set, run, number, source)
        except (OffsiteError, OSError) as error:
            self.fail(replication_set, run, number, str(error))
            raise

    def fail(self, replication_set: SetRecord, run: str, number: int, sentence: str) -> None:
        """Puts on record that a request came to nothing."""
        self._record(replication_set, run, number, RunEvent.FAIL, RunFacts(error=sentence))
        self._tell_failure(replication_set, sentence)

    def abort(self, replication_set: SetRecord) -> bool:
        """Ends the run that is being prepared; returns whether there was one. The caller holds the recording lock."""
        with self._resources.database.transaction() as connection:
            run = run_records.set_run_in(connection, replication_set.id, "preparing")
            if run is None:
                return False
            now = self._resources.clock.now()
            change_run(connection, replication_set.id, run.uuid, RunEvent.ABORT, now, error="aborted by a user")
        with self._lock:
            cut = self._cuts.get(run.uuid)
        if cut is not None:
            cut.now("the run was aborted")
        return True

    def stop(self) -> None:
        """Ends the before-snapshot hooks, and begins none any more: their runs fail."""
        with self._lock:
            self._stopping = True
            cuts = list(self._cuts.values())
        for cut in cuts:
            cut.now(_STOPPING)

    def recover(self) -> None:
        """After a start: runs that had no snapshot yet have failed."""
        with self._resources.database.read() as connection:
            sets = {replication_set.id: replication_set for replication_set in set_records.all_sets(connection)}
            cut = [run for run in run_records.unfinished_runs(connection) if run.state == "preparing"]
        for run in cut:
            self.fail(sets[run.set_id], run.uuid, run.snapshot_number or 0, _STOPPED)

    def thaw(self, ended: Callable[[], None]) -> list[threading.Thread]:
        """After a start: the after-snapshot hooks that a stop has kept from ending run again, so that no database stays
        frozen. Each in a thread of its own, for hosts and users cannot wait for that; `ended` is called after each,
        for what may be sent now."""
        with self._resources.database.read() as connection:
            sets = {replication_set.id: replication_set for replication_set in set_records.all_sets(connection)}
            due = run_records.runs_with_hook_due(connection)
        threads = [
            threading.Thread(
                target=self._thaw, args=(sets[run.set_id], run, ended), name=f"thaw-{run.uuid}", daemon=True
            )
            for run in due
        ]
        for thread in threads:
            thread.start()
        return threads

    # -- steps ---------------------------------------------------------------------------------------------

    def _thaw(self, replication_set: SetRecord, run: RunRecord, ended: Callable[[], None]) -> None:
        try:
            with self._resources.locks.requesting(replication_set.uuid, replication_set.name):
                self._settle(replication_set, run.uuid, None)
        except (OffsiteError, OSError) as error:
            _log.error(
                "cannot finish the hooks of a run; they are due again at the next start of the system",
                set=replication_set.name,
                run=run.uuid,
                reason=str(error),
            )
        ended()

    def _take_between_hooks(self, replication_set: SetRecord, run: str, number: int, source: RunSource) -> RunState:
        due = replication_set.after_snapshot is not None
        facts = RunFacts(after_snapshot_due=due, source=source.name)
        self._record(replication_set, run, number, RunEvent.PREPARE, facts)
        failure: OffsiteError | OSError | None = None
        try:
            self._before_snapshot(replication_set, run)
            self._take(replication_set, run, number, source)
        except (OffsiteError, OSError) as error:
            failure = error
        # An error without a word is one, too.
        ended = self._settle(replication_set, run, None if failure is None else str(failure) or repr(failure))
        if ended.state in ("running", "queued"):
            return ended.state
        if ended.state != "failed":
            raise RunEnded(
                f"the run of replication set {replication_set.name} was {ended.state} while its hooks ran: "
                f"{ended.error}"
            )
        if failure is not None and str(failure) == ended.error:
            raise failure
        raise HookFailed(str(ended.error)) from failure

    def _before_snapshot(self, replication_set: SetRecord, run: str) -> None:
        cut = Cut()
        with self._lock:
            self._cuts[run] = cut
            stopping = self._stopping
        try:
            if stopping:
                cut.now(_STOPPING)
            self._check_preparing(run)  # only from here on an abort finds the cut
            self._run_hook(replication_set, replication_set.before_snapshot, run, cut)
        finally:
            with self._lock:
                del self._cuts[run]

    def _take(self, replication_set: SetRecord, run: str, number: int, source: RunSource) -> RunState:
        with self._resources.locks.recording(replication_set.uuid, replication_set.name):
            if replication_set.before_snapshot or replication_set.after_snapshot:
                self._check_preparing(run)
            return self._run_points.take(replication_set, run, number, source)

    def _check_preparing(self, run: str) -> None:
        known = self._find(run)
        if known.state != "preparing":
            raise RunEnded(str(known.error))

    def _settle(self, replication_set: SetRecord, run: str, failure: str | None) -> RunRecord:
        """Runs the after-snapshot hook, if it is due, and puts on record what has become of the run: it goes on, or has
        failed, or is what somebody else has made of it."""
        thaw_failure = self._after_snapshot(replication_set, run)
        with self._resources.locks.recording(replication_set.uuid, replication_set.name):
            known = self._find(run)
            is_over = known.state not in ("preparing", "running", "queued")
            told = [known.error if is_over else failure, thaw_failure]
            sentence = "; then ".join(each for each in told if each)
            if sentence and not is_over:
                self._run_points.take_back(replication_set, run, sentence)
            else:
                with self._resources.database.transaction() as connection:
                    note_run(connection, run, after_snapshot_due=False, error=sentence or None)
        if sentence and (thaw_failure or not is_over):
            self._tell_failure(replication_set, sentence)
        return self._find(run)

    def _after_snapshot(self, replication_set: SetRecord, run: str) -> str | None:
        """What it failed with, if it was due."""
        if not self._find(run).after_snapshot_due:
            return None
        try:
            self._run_hook(replication_set, replication_set.after_snapshot, run, Cut())
        except HookFailed as error:
            return str(error)
        return None

    def _run_hook(self, replication_set: SetRecord, name: str | None, run: str, cut: Cut) -> None:
        if name:
            self._hooks.run(
                name,
                replication_set.hook_timeout_seconds,
                {"OFFSITE_SET": replication_set.name, "OFFSITE_RUN": run},
                cut,
            )

    # -- records -------------------------------------------------------------------------------------------

    def _find(self, run: str) -> RunRecord:
        with self._resources.database.read() as connection:
            known = run_records.find_run(connection, run)
        if known is None:  # whoever deletes the set waits for whoever prepares a run of it
            raise RunEnded("the run no longer exists")
        return known

    def _record(self, replication_set: SetRecord, run: str, number: int, event: RunEvent, facts: RunFacts) -> None:
        with self._resources.database.transaction() as connection:
            request_run(connection, replication_set.id, run, number, event, self._resources.clock.now(), **facts)

    def _tell_failure(self, replication_set: SetRecord, sentence: str) -> None:
        self._resources.report(
            events.RUN_FAILED, f"A run of replication set name: {replication_set.name}, failed: {sentence}"
        )
