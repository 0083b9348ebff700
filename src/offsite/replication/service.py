"""Replication of one system, put together: what the floors above use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from offsite.admission import Admission
from offsite.clock import Clock, SystemClock
from offsite.events import Report, ignore
from offsite.pools.needs import Needs
from offsite.pools.protocol import Pool
from offsite.replication.inbound.listener import SESSIONS_MAX, PeerListener
from offsite.replication.inbound.pairing_service import Authenticate
from offsite.replication.inbound.peer_api import PeerApi
from offsite.replication.link.dialer import Dialer, Dials
from offsite.replication.link.identity import Certificates, SystemIdentity
from offsite.replication.peers.contacts import Contacts
from offsite.replication.peers.introductions import Introductions
from offsite.replication.peers.peers import Peers
from offsite.replication.records import set_records
from offsite.replication.records.limits import Limits
from offsite.replication.records.resources import Resources
from offsite.replication.records.set_locks import SetLocks
from offsite.replication.runs.attempt import Attempt
from offsite.replication.runs.control import RunControl
from offsite.replication.runs.dispatcher import Dispatcher
from offsite.replication.runs.hooks import Hooks
from offsite.replication.runs.preparation import Preparation
from offsite.replication.runs.reconciler import Reconciler
from offsite.replication.runs.requests import Requested, RunRequests, check_snapshot_allowed
from offsite.replication.sets.resolution import Resolution, Resolved
from offsite.replication.sets.sets import Sets
from offsite.replication.transfer.progress import RunProgress
from offsite.replication.transfer.receiver.fence import Fences
from offsite.store.database import Database
from offsite.store.settings import Settings
from offsite.ticker import Ticker


class Replication:
    """Safe to use from any thread. `listen` is the address of the peer port; port 0 takes any that is free.

    Until it is started, nothing happens by itself. A simulator never starts it: it calls the steps of `dispatcher`
    and `reconciler`, hands in who dials, who does attempts and how runs wait for their bandwidth, and puts peers'
    requests to `peer_api`.
    """

    def __init__(
        self,
        database: Database,
        pools: Mapping[str, Pool],
        needs: Needs,
        authority: Certificates,
        system: SystemIdentity,
        listen: tuple[str, int],
        authenticate: Authenticate,
        hooks: Hooks,
        report: Report = ignore,
        clock: Clock | None = None,
        dialer: Dials | None = None,
        start_attempt: Callable[[Attempt], None] | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        clock = clock or SystemClock()
        fences, limits = Fences(), Limits(system.name)
        resources = Resources(database, pools, needs, SetLocks(), report, clock)
        self._database = database
        self._listen = listen
        self.peer_api = PeerApi(resources, system, authenticate, fences, limits, wait)
        self.contacts = Contacts(database, report, clock)
        self.introductions = Introductions(database, system, self.contacts, report, clock)
        admission = Admission("to the peer port", lambda: SESSIONS_MAX, report, clock, listens="port")
        self._server = PeerListener(listen, authority, self.introductions, self.peer_api, admission)
        dialer = dialer or Dialer(authority, self.introductions, clock)
        self.peers = Peers(
            database, dialer, authority, system, self.introductions, self.contacts, listen, limits, report, clock, wait
        )
        self.dispatcher = Dispatcher(resources, self.peers, Settings(database), start_attempt or _start_thread)
        self.reconciler = Reconciler(resources, self.peers, self.dispatcher)
        self._preparation = Preparation(resources, hooks)
        self._requests = RunRequests(resources, self.peers, self.dispatcher, self._preparation)
        self._control = RunControl(resources, self.peers, self.dispatcher, self._preparation, self.reconciler)
        self._resolution = Resolution(resources, self.peers, self.dispatcher)
        self.sets = Sets(resources, self.peers, self.dispatcher, self.reconciler, fences, limits, hooks)
        self._tickers = (
            Ticker("dispatcher", self.dispatcher.step, clock),
            Ticker("reconciler", self.reconciler.step, clock),
        )
        self.dispatcher.wake, self.reconciler.wake = (ticker.wake for ticker in self._tickers)
        self.dispatcher.when_peer_gone = self.reconciler.peer_failed
        self.peers.when_start_chosen = self.dispatcher.cut_from

    @property
    def port(self) -> int:
        """Where the peer port listens, once started."""
        return self._server.port

    def start(self) -> None:
        """Opens the peer port and goes on with the runs that a stop has cut. Raises OSError for the port."""
        self._server.start()
        self.peers.own_address = (self._listen[0], self._server.port)
        self.recover()
        self._preparation.thaw(self.dispatcher.wake)
        for ticker in self._tickers:
            ticker.start()

    def recover(self) -> None:
        """Before anything else is asked after a start: ends what a stop has cut and cannot go on."""
        self._preparation.recover()

    def stop_hooks(self) -> None:
        """Before whoever waits for them is stopped: ends the hooks before snapshots, and begins none any more."""
        self._preparation.stop()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Leaves runs off where they are: the next start goes on with them."""
        until = time.monotonic() + timeout_seconds
        self.stop_hooks()
        self.dispatcher.stop(timeout_seconds)
        for ticker in self._tickers:
            ticker.stop(max(0.1, until - time.monotonic()))
        self._server.stop(max(0.1, until - time.monotonic()))

    # -- runs ------------------------------------------------------------------------------------------------

    def replicate(self, set_name: str, *, snapshot: str | None = None, last_snapshot: bool = False) -> Requested:
        """Asks for a run: see RunRequests.replicate. Raises ObjectNotFound, too."""
        return self._requests.replicate(self.sets.record(set_name).uuid, snapshot, last_snapshot)

    def clear_queue(self, set_name: str) -> bool:
        """See RunRequests.clear_queue."""
        return self._requests.clear_queue(self.sets.record(set_name).uuid)

    def suspend(self, *set_names: str) -> None:
        """See RunControl.suspend."""
        self._control.suspend(self._uuids(set_names))

    def resume(self, *set_names: str) -> None:
        """See RunControl.resume."""
        self._control.resume(self._uuids(set_names))

    def abort(self, set_name: str) -> bool:
        """See RunControl.abort."""
        return self._control.abort(self.sets.record(set_name).uuid)

    def resolution_question(self, set_name: str) -> str:
        """See Resolution.question."""
        return self._resolution.question(self.sets.record(set_name).uuid)

    def use_primary(self, set_name: str) -> Resolved:
        """See Resolution.use_primary. A run that stood still goes on, or a new one begins."""
        resolved = self._resolution.use_primary(self.sets.record(set_name).uuid)
        if not resolved.has_run:
            self.replicate(set_name)
        return resolved

    # -- whether these would be accepted now, without doing them: each raises what its namesake would ----------

    def check_replicate(self, set_name: str, *, snapshot: bool = False) -> None:
        check_snapshot_allowed(self._requests.check(self.sets.record(set_name).uuid), wanted=snapshot)

    def check_clear_queue(self, set_name: str) -> None:
        self._requests.check_clear_queue(self.sets.record(set_name).uuid)

    def check_suspend(self, *set_names: str) -> None:
        self._control.check_suspend(self._uuids(set_names))

    def check_resume(self, *set_names: str) -> None:
        self._control.check_resume(self._uuids(set_names))

    def check_abort(self, set_name: str) -> None:
        self._control.check_abort(self.sets.record(set_name).uuid)

    def check_use_primary(self, set_name: str) -> None:
        self._resolution.check(self.sets.record(set_name).uuid)

    # -- what is known of runs ---------------------------------------------------------------------------------

    def progress(self, set_name: str) -> RunProgress | None:
        """Of the newest run that this system, as the primary, has worked on since it was started."""
        return self.dispatcher.progress(self.sets.record(set_name).uuid)

    def _uuids(self, set_names: Sequence[str]) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(self.sets.record(each).uuid for each in set_names))

    # -- volumes ---------------------------------------------------------------------------------------------

    def volumes_renamed(self) -> None:
        """The other halves of sets are told soon what their primaries are called now."""
        self.reconciler.set_changed()

    def is_secondary(self, image_id: int) -> bool:
        """Whether the image is a volume that only replication may write."""
        with self._database.read() as connection:
            return any(
                member.image_id == image_id
                for replication_set in set_records.all_sets(connection)
                if replication_set.role == "secondary"
                for member in replication_set.members
            )


def _start_thread(attempt: Attempt) -> None:
    threading.Thread(target=attempt.work, name=f"run-{attempt.set.name}", daemon=True).start()
