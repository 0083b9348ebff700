"""Replication sets, as this system asks for them: create, show, delete."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping

from offsite import events
from offsite.clock import Clock
from offsite.errors import (
    InUse,
    NameInUse,
    NotAllowed,
    ObjectNotFound,
    OffsiteError,
    PeerUnreachable,
    ProtocolError,
)
from offsite.events import Report
from offsite.names import check_name
from offsite.pools.protocol import ImageInfo, Pool
from offsite.replication import point_records, records
from offsite.replication.claims import Claims
from offsite.replication.fence import Fences
from offsite.replication.locate import find_image
from offsite.replication.messages import CreateSet, DeleteSet, Done, NewMember
from offsite.replication.peers import Peers
from offsite.replication.records import MemberRecord, PeerRecord, RunRecord, SetRecord
from offsite.replication.removal import remove_set
from offsite.replication.runs import Runs
from offsite.replication.set_info import SetInfo, SetMember
from offsite.replication.status import Status, status_of
from offsite.store.database import Database

STOP_SECONDS = 10.0


class Sets:
    def __init__(
        self,
        database: Database,
        pools: Mapping[str, Pool],
        peers: Peers,
        runs: Runs,
        claims: Claims,
        fences: Fences,
        report: Report,
        clock: Clock,
    ) -> None:
        self._database = database
        self._pools = pools
        self._peers = peers
        self._runs = runs
        self._claims = claims
        self._fences = fences
        self._report = report
        self._clock = clock
        self._creating = threading.Lock()

    # -- creating ------------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        primary_image_id: int,
        peer_name: str,
        secondary_pool: str | None = None,
        secondary_volume_name: str | None = None,
    ) -> SetInfo:
        """Makes the secondary volume on the peer, all hole, and the set on both. The pool and the name of the
        secondary are by default those of the primary.

        Raises what is wrong here or there, with nothing changed on either system. Only when the connection
        ends between the request and its answer nobody knows: then the set stays here as Not Ready, and to
        repeat the request, or to delete the set, is harmless.
        """
        check_name(name, "replication set name")
        peer = self._peers.record(peer_name)
        pool, image = find_image(self._pools, primary_image_id)
        secondary_name = check_name(secondary_volume_name or image.name, "secondary volume name")
        member = MemberRecord(image.id, secondary_name)
        with self._creating:
            self._create(name, peer, pool, image, secondary_pool or pool.name, member)
        return self.get(name)

    def _create(
        self, name: str, peer: PeerRecord, pool: Pool, image: ImageInfo, remote_pool: str, member: MemberRecord
    ) -> None:
        begun = self._begun(name, peer, remote_pool, member)
        if begun is None:
            self._check_new(name, image)
        with self._peers.connect(peer) as connection:
            of = begun or self._begin(name, peer, remote_pool, member)
            request = CreateSet(
                set_uuid=of.uuid,
                name=name,
                generation=of.generation,
                primary_pool=pool.name,
                secondary_pool=of.remote_pool,
                members=[
                    NewMember(primary_name=image.name, secondary_name=member.remote_name, size_bytes=image.size_bytes)
                ],
            )
            try:
                connection.channel.ask(connection.asking, request, Done)
            except (PeerUnreachable, ProtocolError) as error:
                raise PeerUnreachable(
                    f"{error}; whether {peer.system_name} made its half of set {name} is not known: repeat the "
                    "command, or delete the set"
                ) from error
            except OffsiteError:
                self._forget(of)
                raise
        with self._database.transaction() as transaction:
            records.mark_set_ready(transaction, of.id)
        self._report(
            events.SET_CREATED,
            f"Replication set {name} was created: {image.name} in pool {pool.name} replicates to {member.remote_name} "
            f"in pool {of.remote_pool} of system {peer.system_name}.",
        )

    def _begun(self, name: str, peer: PeerRecord, remote_pool: str, member: MemberRecord) -> SetRecord | None:
        """The same set, if making it was begun before and it is not known how that ended."""
        of = next((each for each in self._records() if each.name == name), None)
        if of is None or of.state == "ready":
            return None
        if (of.peer_id, of.remote_pool, of.members) != (peer.id, remote_pool, (member,)):
            raise NotAllowed(
                f"replication set {name} is Not Ready, and was begun with other parameters; delete it first"
            )
        return of

    def _check_new(self, name: str, image: ImageInfo) -> None:
        if image.kind == "internal":
            raise NotAllowed(f"image {image.id} belongs to replication itself and cannot be replicated")
        for each in self._records():
            if each.name == name:
                raise NameInUse(f"there is already a replication set {name!r}; choose another name")
            if any(member.image_id == image.id for member in each.members):
                raise InUse(f"{image.name} is in replication set {each.name} already; it can be in one alone")

    def _begin(self, name: str, peer: PeerRecord, remote_pool: str, member: MemberRecord) -> SetRecord:
        values = {
            "uuid": str(uuid.uuid4()),
            "name": name,
            "role": "primary",
            "state": "preparing",
            "peer_id": peer.id,
            "remote_pool": remote_pool,
            "generation": 1,
            "created_at": self._clock.now(),
        }
        with self._database.transaction() as transaction:
            records.insert_set(transaction, values, [member])
        return self.record(name)

    def _forget(self, of: SetRecord) -> None:
        with self._database.transaction() as transaction:
            records.delete_set(transaction, of.id)

    # -- deleting ------------------------------------------------------------------------------------------

    def delete(self, name: str, local_only: bool = False) -> None:
        """On both systems, or with `local_only` here alone, where it ends a run, too. The volumes stay.

        Raises InUse while a run is under way, and PeerUnreachable. Repeating it is harmless.
        """
        of = self.record(name)
        progress = self._runs.progress(of.uuid)
        if local_only:
            self._runs.stop_run(of.uuid, STOP_SECONDS)
        elif progress is not None and progress.state == "waiting":
            raise PeerUnreachable(
                f"a run of replication set {name} waits for its peer ({progress.error}); wait until it is back, "
                "or delete the set with local-only here and over there"
            )
        with self._claims.claimed(of.uuid, of.name, "is being deleted"):
            if not local_only:
                with self._peers.connect(self._peers.record_of(of.peer_id)) as connection:
                    connection.channel.ask(connection.asking, DeleteSet(set_uuid=of.uuid), Done)
            remove_set(self._database, self._pools, self._fences, of)
        self._report(events.SET_DELETED, f"Replication set {name} was deleted.")

    # -- showing -------------------------------------------------------------------------------------------

    def all(self) -> list[SetInfo]:
        return [self._info(of) for of in self._records()]

    def get(self, name: str) -> SetInfo:
        return self._info(self.record(name))

    def record(self, name: str) -> SetRecord:
        """Raises ObjectNotFound."""
        of = next((each for each in self._records() if each.name == name), None)
        if of is None:
            raise ObjectNotFound(f"there is no replication set {name!r}")
        return of

    def runs(self, name: str) -> list[RunRecord]:
        """Newest first."""
        of = self.record(name)
        with self._database.read() as connection:
            return records.set_runs(connection, of.id)

    def _info(self, of: SetRecord) -> SetInfo:
        with self._database.read() as connection:
            held = point_records.set_points(connection, of.id)
            runs = records.set_runs(connection, of.id)
        base = next((point for point in held if point.state == "base"), None)
        pool, _ = find_image(self._pools, of.members[0].image_id)
        return SetInfo(
            uuid=of.uuid,
            name=of.name,
            role=of.role,
            peer_name=self._peers.record_of(of.peer_id).name,
            pool=pool.name,
            remote_pool=of.remote_pool,
            members=tuple(
                SetMember(each.image_id, find_image(self._pools, each.image_id)[1].name, each.remote_name)
                for each in of.members
            ),
            generation=of.generation,
            status=self._status(of, base is not None, runs),
            created_at=of.created_at,
            recovery_point_at=base.taken_at if base else None,
            lag_seconds=max(0.0, self._clock.now() - base.taken_at) if base else None,
            last_run=next((run for run in runs if run.state != "running"), None),
            current_run=next((run for run in runs if run.state == "running"), None),
        )

    def _status(self, of: SetRecord, has_base: bool, runs: list[RunRecord]) -> Status:
        progress = self._runs.progress(of.uuid)
        return status_of(
            ready=of.state == "ready",
            has_base=has_base,
            running=any(run.state == "running" for run in runs),
            waiting=progress is not None and progress.state == "waiting",
            primary_is_gone=of.role == "secondary" and not self._peers.online_by_id(of.peer_id),
        )

    def _records(self) -> list[SetRecord]:
        with self._database.read() as connection:
            return records.all_sets(connection)
