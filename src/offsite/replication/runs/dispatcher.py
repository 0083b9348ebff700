"""Which runs of this system's primary sets are sent when: their turn, their retries, the queue.

             a slot is free, and it is this set's turn
    waiting ─────────────────────────────────────────▶ attempt ──success──▶ the queued run's turn, or idle
       ▲                                                  ├── diverged ──▶ stands still until an operator has decided
       └── after 1 s … 10 min, or when the peer is back ──┴ failure (the set is Suspended meanwhile)

What there is to do is read from the records each time; only attempts under way and times to wait for are kept
here. `step` does all that is due, in the thread that calls it, but for the attempts themselves, which `start`
is handed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import structlog

from offsite import events
from offsite.errors import OffsiteError, SetDiverged, VolumeNotFound
from offsite.replication.peers.peers import Peers
from offsite.replication.points import other_halves
from offsite.replication.records import run_records, set_records
from offsite.replication.records.resources import Resources
from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.set_records import SetRecord
from offsite.replication.runs.attempt import Attempt, AttemptStopped, class_of, is_peer_gone, sentence_of
from offsite.replication.runs.retry_policy import retry_seconds
from offsite.replication.runs.run_points import RunPoints
from offsite.replication.transfer.progress import Progress, RunProgress
from offsite.replication.transfer.sender.endpoint import SenderEndpoint
from offsite.store.settings import RETRY_CADENCE, RUNS_AT_A_TIME, Settings
from offsite.units import format_size

TROUBLE_SECONDS = 5.0  # until the records are read again after they could not be

_log = structlog.get_logger(__name__)


@dataclass
class _Life:
    """Of one set. `progress` is that of its newest run, and stays when that has ended."""

    progress: Progress
    attempt: Attempt | None = None
    failures: int = 0  # in a row
    retry_at: float | None = None  # monotonic; None: nothing has failed
    peer_gone: bool = False
    turn: int = 0  # who has waited longer has the lower one
    holds: int = 0  # by those who need the set to stand still


class Dispatcher:
    def __init__(
        self,
        resources: Resources,
        peers: Peers,
        settings: Settings,
        start: Callable[[Attempt], None],
        random: Random | None = None,
    ) -> None:
        self._resources = resources
        self._peers = peers
        self._settings = settings
        self._start = start
        self._random = random or Random()
        self._run_points = RunPoints(resources, resources.report)
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._lives: dict[str, _Life] = {}  # by the set's uuid
        self._turns = 0
        self._stirred = 0  # how often someone has made attempts stop
        self._stopping = False
        self.wake: Callable[[], None] = lambda: None
        self.when_peer_gone: Callable[[], None] = lambda: None
        with resources.database.read() as connection:
            # Of what was under way when the system stopped nobody knows how far it had got.
            self._begun_before = {run.uuid for run in run_records.unfinished_runs(connection)}

    # -- what is due ---------------------------------------------------------------------------------------

    def step(self) -> float | None:
        """Starts what is due. Returns when to look again, in seconds of the monotonic clock; None: when woken."""
        try:
            return self._step()
        except OffsiteError as error:
            _log.error("runs wait: cannot read the database", reason=str(error))
            return self._resources.clock.monotonic() + TROUBLE_SECONDS

    def _step(self) -> float | None:
        slots = self._settings.get(RUNS_AT_A_TIME)
        stirred = self._stirred
        runs = self._runs_to_send()
        now = self._resources.clock.monotonic()
        with self._lock:
            if self._stopping:
                return None
            if self._stirred != stirred:
                return now  # someone has suspended, aborted or deleted a set since its records were read
            waiting = [(replication_set, run, self._life(replication_set, run)) for replication_set, run in runs]
            busy = sum(life.attempt is not None for life in self._lives.values())
            ready = [each for each in waiting if _may_start(each[2], now)]
            ready.sort(key=lambda each: each[2].turn)
            chosen = ready[: max(0, slots - busy)]
            attempts = [
                attempt
                for replication_set, run, life in chosen
                if (attempt := self._attempt(replication_set, run, life))
            ]
            later = [life.retry_at for _, _, life in waiting if life.attempt is None and life.retry_at is not None]
        for attempt in attempts:
            self._start(attempt)
        return min((at for at in later if at > now), default=None)

    def _runs_to_send(self) -> list[tuple[SetRecord, RunRecord]]:
        """The running run of each set that has one; a queued one behind nothing is promoted first. None whose
        after-snapshot hook may still fail it, and none of a set that is diverged: trying again decides nothing."""
        with self._resources.database.read() as connection:
            halves = other_halves.all_other_halves(connection)
            diverged = {half.set_id for half in halves.values() if half.is_diverged}
            sets = {
                replication_set.id: replication_set
                for replication_set in set_records.all_sets(connection)
                if replication_set.role == "primary" and not replication_set.suspended
            }
            sets = {set_id: replication_set for set_id, replication_set in sets.items() if set_id not in diverged}
            runs = [run for run in run_records.unfinished_runs(connection) if run.set_id in sets]
        runs = [run for run in runs if not run.after_snapshot_due]
        running = {run.set_id: run for run in runs if run.state == "running"}
        for run in runs:
            if run.state == "queued" and run.set_id not in running and self._promote(sets[run.set_id]):
                running[run.set_id] = run
        return [(sets[set_id], run) for set_id, run in running.items()]

    def _promote(self, replication_set: SetRecord) -> bool:
        """Whether there is a queued run, which is the running one from now on."""
        try:
            with self._resources.locks.recording(replication_set.uuid, replication_set.name):
                with self._resources.database.read() as connection:
                    queued = run_records.set_run_in(connection, replication_set.id, "queued")
                    running = run_records.set_run_in(connection, replication_set.id, "running")
                if queued is None or running is not None:
                    return False
                self._run_points.promote(replication_set, queued)
        except (OffsiteError, OSError) as error:
            _log.error("cannot start a queued run", set=replication_set.name, reason=str(error))
            return False
        self._resources.report(
            events.RUN_STARTED, f"The queued run of replication set name: {replication_set.name}, was started."
        )
        return True

    def _life(self, replication_set: SetRecord, run: RunRecord) -> _Life:
        life = self._lives.get(replication_set.uuid)
        if life is None or life.progress.run != run.uuid:
            old = run.uuid in self._begun_before
            progress = Progress(run.uuid, run.started_at, self._resources.clock, may_be_committed=old)
            held = life.holds if life is not None else 0
            attempt = life.attempt if life is not None else None
            life = self._lives[replication_set.uuid] = _Life(progress, attempt, turn=self._next_turn(), holds=held)
        return life

    def _attempt(self, replication_set: SetRecord, run: RunRecord, life: _Life) -> Attempt | None:
        try:
            end = SenderEndpoint(
                self._resources,
                replication_set,
                run.uuid,
                self._resources.report,
            )
        except VolumeNotFound as error:  # its pool is not there: no reason for other sets to stand still
            _log.error("cannot start a run", set=replication_set.name, reason=str(error))
            life.retry_at = self._resources.clock.monotonic() + TROUBLE_SECONDS
            return None
        peer = self._peers.record_of(replication_set.peer_id)
        life.attempt = Attempt(
            replication_set,
            end,
            life.progress,
            lambda: self._peers.connect(peer),
            self,
            self._peers.pacing(peer.id),
            lambda: self._peers.contacts.alive(peer),
        )
        life.progress.state = "connecting"
        return life.attempt

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    # -- what happened -------------------------------------------------------------------------------------

    def ended(self, attempt: Attempt, error: Exception | None) -> None:
        """See attempt.Ended."""
        try:
            if error is None:
                self._succeeded(attempt)
            elif not isinstance(error, AttemptStopped):
                self._failed(attempt, error)
        finally:
            with self._lock:
                life = self._lives.get(attempt.set.uuid)
                if life is not None and life.attempt is attempt:
                    life.attempt = None
                self._idle.notify_all()
            if error is None:
                attempt.progress.end("success")  # last: whoever waits for it may ask for the next run at once
            elif isinstance(error, AttemptStopped):
                attempt.progress.end("stopped")
            self.wake()

    def _succeeded(self, attempt: Attempt) -> None:
        name, progress = attempt.set.name, attempt.progress
        with self._lock:
            life = self._lives.get(attempt.set.uuid)
            failed_before = life is not None and life.failures > 0
            if life is not None:
                life.failures, life.retry_at, life.peer_gone = 0, None, False
        if failed_before:
            self._resources.report(events.SET_RESUMED, f"The run of replication set name: {name}, recovered.")
        changed = format_size(progress.changed_bytes)
        self._resources.report(
            events.RUN_COMPLETED,
            f"A run of replication set name: {name}, completed successfully: {changed} had changed.",
        )

    def _failed(self, attempt: Attempt, error: Exception) -> None:
        sentence = sentence_of(error, attempt.end.pool.name)
        cadence = self._cadence()
        with self._lock:
            life = self._lives.get(attempt.set.uuid)
            if life is None or life.progress is not attempt.progress:
                return
            if attempt.progress.got_somewhere:
                life.failures = 0
            life.failures += 1
            life.peer_gone = is_peer_gone(error)
            wait_seconds = retry_seconds(cadence, life.failures, self._random)
            life.retry_at = self._resources.clock.monotonic() + wait_seconds
            life.turn = self._next_turn()
        if is_peer_gone(error):
            self.when_peer_gone()
        if attempt.progress.error != sentence:
            self._note_failure(attempt, sentence)
            if not isinstance(error, SetDiverged):  # of which there was an event of its own
                self._tell_failure(attempt, sentence, wait_seconds)
        attempt.progress.wait(sentence, class_of(error))

    def _note_failure(self, attempt: Attempt, sentence: str) -> None:
        try:
            attempt.end.note_failure(sentence)
        except OffsiteError as trouble:
            _log.error("cannot record the failure of a run", set=attempt.set.name, reason=str(trouble))

    def _tell_failure(self, attempt: Attempt, sentence: str, wait_seconds: float) -> None:
        """Once for each reason, however often it is tried."""
        self._resources.report(
            events.SET_SUSPENDED_ITSELF,
            f"A run of replication set name: {attempt.set.name}, failed: {sentence}. The set is suspended; the run is "
            f"retried in {wait_seconds:.0f} s, and as soon as the peer is reachable again.",
        )

    def _cadence(self) -> str:
        try:
            return self._settings.get(RETRY_CADENCE)
        except OffsiteError:
            return RETRY_CADENCE.default

    # -- what others ask -----------------------------------------------------------------------------------

    def progress(self, set_uuid: str) -> RunProgress | None:
        """Of the newest run since the system was started."""
        with self._lock:
            life = self._lives.get(set_uuid)
        return life.progress.snapshot() if life else None

    def retry_now(self, set_uuid: str) -> None:
        """Someone resumes the set: it need not wait any longer."""
        with self._lock:
            life = self._lives.get(set_uuid)
            if life is not None:
                life.retry_at, life.failures = None, 0
                if life.attempt is None:
                    life.progress.go_on()
        self.wake()

    def peer_is_back(self, peer_id: int) -> None:
        """Sets whose runs failed because the peer was gone need not wait any longer."""
        with self._resources.database.read() as connection:
            uuids = [
                replication_set.uuid
                for replication_set in set_records.all_sets(connection)
                if replication_set.peer_id == peer_id
            ]
        with self._lock:
            for uuid in uuids:
                life = self._lives.get(uuid)
                if life is not None and life.peer_gone:
                    life.retry_at, life.peer_gone = None, False
        self.wake()

    def cut_from(self, peer_id: int) -> None:
        """The peer is another one from now on: what is sent to it goes over connections that are made anew."""
        with self._lock:
            attempts = [life.attempt for life in self._lives.values() if life.attempt is not None]
        for attempt in attempts:
            if attempt.set.peer_id == peer_id:
                attempt.cut()

    def waits_for_peer(self, set_uuid: str) -> bool:
        with self._lock:
            life = self._lives.get(set_uuid)
            return life is not None and life.peer_gone and life.attempt is None

    def stop_attempt(self, set_uuid: str) -> None:
        """Makes what is under way leave off."""
        with self._lock:
            self._stirred += 1
            life = self._lives.get(set_uuid)
            attempt = life.attempt if life is not None else None
        if attempt is not None:
            attempt.stop()

    def may_be_committed(self, set_uuid: str, run: str) -> bool:
        """Whether the secondary may have the run's point as its base: to be asked only after it was stopped (see
        SenderDriver). A run that was never attempted since it was asked for is on no secondary; of one that this start
        has found under way only an attempt of it knows more."""
        with self._lock:
            life = self._lives.get(set_uuid)
            if life is not None and life.progress.run == run:
                return life.progress.may_be_committed
            return run in self._begun_before

    @contextmanager
    def standing_still(self, set_uuid: str, timeout_seconds: float) -> Iterator[bool]:
        """No attempt of the set begins inside the block. Gives whether the one before it ended in time."""
        with self._lock:
            life = self._lives.get(set_uuid)
            if life is None:
                nothing = Progress("", 0.0, self._resources.clock, may_be_committed=True)
                life = self._lives[set_uuid] = _Life(nothing)
            life.holds += 1
            self._stirred += 1
            still = self._idle.wait_for(lambda: self._lives[set_uuid].attempt is None, timeout_seconds)
        try:
            yield still
        finally:
            with self._lock:
                self._lives[set_uuid].holds -= 1
                self._stirred += 1
            self.wake()

    def forget(self, set_uuid: str) -> None:
        """The set has been deleted."""
        with self._lock:
            life = self._lives.get(set_uuid)
            if life is not None and life.attempt is None and not life.holds:
                del self._lives[set_uuid]

    def stop(self, timeout_seconds: float) -> None:
        """Leaves all runs off where they are: the next start goes on with them."""
        with self._lock:
            self._stopping = True
            attempts = [life.attempt for life in self._lives.values() if life.attempt is not None]
        for attempt in attempts:
            attempt.stop()
        with self._lock:
            self._idle.wait_for(lambda: all(life.attempt is None for life in self._lives.values()), timeout_seconds)


def _may_start(life: _Life, now: float) -> bool:
    return life.attempt is None and not life.holds and (life.retry_at is None or life.retry_at <= now)
