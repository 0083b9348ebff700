"""Replication of one system, put together: what the floors above use."""

from __future__ import annotations

import time
from collections.abc import Mapping

from offsite.clock import Clock, SystemClock
from offsite.errors import InUse
from offsite.events import Report, ignore
from offsite.pools.protocol import Pool
from offsite.replication import point_records, records
from offsite.replication.claims import Claims
from offsite.replication.dialing import Dialer
from offsite.replication.fence import Fences
from offsite.replication.identity import Certificates, SystemIdentity
from offsite.replication.peers import Peers
from offsite.replication.progress import RunProgress
from offsite.replication.remote_requests import Authenticate, RemoteRequests
from offsite.replication.runs import Runs
from offsite.replication.server import PeerServer
from offsite.replication.sets import Sets
from offsite.store.database import Database


class Replication:
    """Safe to use from any thread. `listen` is the address of the peer port; port 0 takes any that is free."""

    def __init__(
        self,
        database: Database,
        pools: Mapping[str, Pool],
        authority: Certificates,
        system: SystemIdentity,
        listen: tuple[str, int],
        authenticate: Authenticate,
        report: Report = ignore,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        claims, fences = Claims(), Fences()
        self._database = database
        self._pools = pools
        self._listen = listen
        requests = RemoteRequests(database, pools, system, authenticate, claims, fences, report, clock)
        self._server = PeerServer(listen, authority, system, requests)
        dialer = Dialer(authority, system, clock)
        self.peers = Peers(database, dialer, authority, system, listen, report, clock)
        self._runs = Runs(database, pools, self.peers, claims, report, clock)
        self.sets = Sets(database, pools, self.peers, self._runs, claims, fences, report, clock)

    @property
    def port(self) -> int:
        """Where the peer port listens, once started."""
        return self._server.port

    def start(self) -> None:
        """Opens the peer port and goes on with the runs that a stop has cut. Raises OSError for the port."""
        self._server.start()
        self.peers.own_address = (self._listen[0], self._server.port)
        self._runs.resume_all()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Leaves runs off where they are: the next start goes on with them."""
        until = time.monotonic() + timeout_seconds
        self._runs.stop(timeout_seconds)
        self._server.stop(max(0.1, until - time.monotonic()))

    def replicate(self, set_name: str) -> str:
        """Takes a snapshot of the primary now, durably, and sends it. Returns the uuid of the run.

        Raises ObjectNotFound, NotAllowed, InUse while a run is under way, PoolFull.
        """
        return self._runs.replicate(self.sets.record(set_name))

    def progress(self, set_name: str) -> RunProgress | None:
        """Of the newest run that this system, as the primary, has worked on since it was started."""
        return self._runs.progress(self.sets.record(set_name).uuid)

    def guard(self, image_id: int) -> None:
        """Raises InUse, naming the set, when a set needs this image to stay as it is."""
        with self._database.read() as connection:
            for of in records.all_sets(connection):
                if any(member.image_id == image_id for member in of.members):
                    raise InUse(f"it is the {of.role} volume of replication set {of.name}; delete the set first")
                if any(image_id in point.image_ids for point in point_records.set_points(connection, of.id)):
                    raise InUse(f"replication set {of.name} needs it; delete the set first")

    def is_secondary(self, image_id: int) -> bool:
        """Whether the image is a volume that only replication may write."""
        with self._database.read() as connection:
            return any(
                member.image_id == image_id
                for of in records.all_sets(connection)
                if of.role == "secondary"
                for member in of.members
            )
