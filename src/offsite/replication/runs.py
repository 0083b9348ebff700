"""Runs of this system's primary sets: a thread for each that is under way.

replicate ──▶ running ──────────────▶ success
               │   ▲ └─refused, full, damaged──▶ failed: the point stays, the next run goes on with it
  peer is gone │   │ 1 s … 60 s later
               ▼   │
              waiting                  a stop of the system leaves it as it is, for the next start
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from random import Random

import structlog
from sqlalchemy.exc import SQLAlchemyError

from offsite import events
from offsite.clock import Clock
from offsite.errors import NotAllowed, OffsiteError, PeerUnreachable
from offsite.events import Report
from offsite.pools.protocol import Pool
from offsite.replication import records
from offsite.replication.backoff import Backoff
from offsite.replication.channel import Channel
from offsite.replication.claims import Claims
from offsite.replication.messages import Ask, Done, EndRun, Holds
from offsite.replication.peers import Peers
from offsite.replication.primary_driver import PrimaryDriver
from offsite.replication.primary_end import PrimaryEnd
from offsite.replication.primary_run import PrimaryRun
from offsite.replication.progress import Phase, Progress, RunProgress
from offsite.replication.records import SetRecord
from offsite.store.database import Database
from offsite.units import format_size

_log = structlog.get_logger(__name__)


class Stopped(Exception):
    """Someone asked the run to leave off where it is."""


class Runs:
    def __init__(
        self,
        database: Database,
        pools: Mapping[str, Pool],
        peers: Peers,
        claims: Claims,
        report: Report,
        clock: Clock,
    ) -> None:
        self.database = database
        self.peers = peers
        self.claims = claims
        self.report = report
        self.clock = clock
        self._pools = pools
        self._lock = threading.Lock()
        self._newest: dict[str, Run] = {}  # by the set's uuid; it stays when it has ended, for its progress

    def replicate(self, of: SetRecord) -> str:
        """Takes the run's point, durably, and starts to send it. Returns the run's uuid.

        Raises NotAllowed on the secondary, InUse while a run is under way, and PoolFull.
        """
        if of.role != "primary":
            peer = self.peers.record_of(of.peer_id)
            raise NotAllowed(f"replication set {of.name} is secondary here; replicate it on system {peer.system_name}")
        if of.state != "ready":
            raise NotAllowed(f"replication set {of.name} is Not Ready; create it again, or delete it")
        run = str(uuid.uuid4())
        self.claims.claim(of.uuid, of.name, "is replicating")
        try:
            end = PrimaryEnd(self.database, self._pools, self.clock, of, run)
            end.take()
            self.report(events.RUN_STARTED, f"A run of replication set {of.name} has started.")
            self._start(of, end, run, self.clock.now())
        except BaseException:
            self.claims.release(of.uuid)
            raise
        return run

    def resume_all(self) -> None:
        """Goes on with the runs that were under way when the system stopped."""
        with self.database.read() as connection:
            cut = [
                (of, run)
                for of in records.all_sets(connection)
                for run in records.set_runs(connection, of.id)
                if of.role == "primary" and run.state == "running"
            ]
        for of, run in cut:
            self.claims.claim(of.uuid, of.name, "is replicating")
            self._start(of, PrimaryEnd(self.database, self._pools, self.clock, of, run.uuid), run.uuid, run.started_at)

    def _start(self, of: SetRecord, end: PrimaryEnd, run: str, started_at: float) -> None:
        started = Run(self, of, end, Progress(run, started_at, self.clock))
        with self._lock:
            self._newest[of.uuid] = started
        started.thread.start()

    def progress(self, set_uuid: str) -> RunProgress | None:
        """Of the newest run since the system was started."""
        with self._lock:
            run = self._newest.get(set_uuid)
        return run.progress.snapshot() if run else None

    def stop_run(self, set_uuid: str, timeout_seconds: float) -> None:
        """Makes a run leave off; its record stays as it is."""
        with self._lock:
            run = self._newest.get(set_uuid)
        if run is not None:
            run.stop()
            run.thread.join(timeout_seconds)

    def stop(self, timeout_seconds: float) -> None:
        until = time.monotonic() + timeout_seconds
        with self._lock:
            runs = list(self._newest.values())
        for run in runs:
            run.stop()
        for run in runs:
            run.thread.join(max(0.0, until - time.monotonic()))


class Run:
    """One run, until it succeeds, fails or is stopped."""

    def __init__(self, runs: Runs, of: SetRecord, end: PrimaryEnd, progress: Progress) -> None:
        self.progress = progress
        self.thread = threading.Thread(target=self._work, name=f"run-{of.name}", daemon=True)
        self._runs = runs
        self._set = of
        self._end = end
        self._stop = threading.Event()
        self._channel: Channel | None = None
        self._backoff = Backoff(Random())

    def stop(self) -> None:
        self._stop.set()
        channel = self._channel
        if channel is not None:
            channel.cut()

    def _work(self) -> None:
        state, sentence = self._come_to_an_end()
        try:
            if sentence is not None:
                self._end.fail(sentence)
                self._tell_secondary(sentence)
            self._tell_operator(state, sentence)
        finally:
            self._runs.claims.release(self._set.uuid)
            self.progress.end(state, sentence)  # last: whoever waits for it may ask for the next run at once

    def _come_to_an_end(self) -> tuple[Phase, str | None]:
        """How the run ended, and why if it failed."""
        try:
            self._attempt_until_done()
        except Stopped:
            return "stopped", None
        except OffsiteError as error:
            return "failed", str(error)
        except OSError as error:
            return "failed", f"pool {self._end.pool.name} failed: {error}"
        except SQLAlchemyError as error:
            return "failed", f"the state database failed: {error.__cause__ or error}"
        return "success", None

    def _tell_operator(self, state: Phase, sentence: str | None) -> None:
        name = self._set.name
        if state == "success":
            changed = format_size(self.progress.changed_bytes)
            self._runs.report(events.RUN_COMPLETED, f"Replication set {name} is up to date: {changed} had changed.")
        elif state == "failed":
            self._runs.report(events.RUN_FAILED, f"A run of replication set {name} failed: {sentence}")

    def _attempt_until_done(self) -> None:
        while True:
            try:
                self._attempt()
                return
            except PeerUnreachable as error:
                self._check_stopped()
                self._wait(str(error))

    def _attempt(self) -> None:
        self.progress.state = "connecting"
        self._check_stopped()
        peer = self._runs.peers.record_of(self._set.peer_id)
        with self._runs.peers.connect(peer) as connection:
            self._channel = connection.channel
            run = PrimaryRun(self.progress.run, self._set.uuid, self._set.generation, connection.asking)
            driver = PrimaryDriver(connection.channel, self._end, self.progress, self._check_stopped)
            try:
                driver.drive(run.steps(self._end.holds()))
            finally:
                self._channel = None

    def _check_stopped(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _wait(self, reason: str) -> None:
        if self.progress.state != "connecting":
            self._backoff.reset()  # it got somewhere this time
        if self.progress.error != reason:
            self._end.note_cut(reason)
            _log.warning("run waits for its peer", set=self._set.name, reason=reason)
        self.progress.error = reason
        self.progress.state = "waiting"
        self._stop.wait(self._backoff.next_seconds())
        self._check_stopped()

    def _tell_secondary(self, sentence: str) -> None:
        """For its record. If it does not hear it, the next run's Begin tells it as much."""
        ask = Ask(set_uuid=self._set.uuid, generation=self._set.generation)
        try:
            with self._runs.peers.connect(self._runs.peers.record_of(self._set.peer_id)) as connection:
                connection.channel.ask(connection.asking, ask, Holds)
                end = EndRun(run=self.progress.run, sentence=sentence[:4096])
                connection.channel.ask(connection.asking, end, Done)
        except OffsiteError as error:
            _log.info("the secondary was not told that a run failed", set=self._set.name, reason=str(error))
