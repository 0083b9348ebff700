"""Making a replication set: its half here, its half on the peer, and what if the answer is lost between them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection

from offsite import events
from offsite.errors import (
    BadParameter,
    InUse,
    NameInUse,
    NotAllowed,
    OffsiteError,
    PeerUnreachable,
    ProtocolError,
    VolumeNotFound,
)
from offsite.names import check_name
from offsite.pools import catalog
from offsite.pools.groups import Group, group_of, members
from offsite.pools.protocol import ImageInfo, Pool
from offsite.replication.peers.peers import Peers
from offsite.replication.points.internal_images import find_image
from offsite.replication.records import set_records
from offsite.replication.records.limits import Limits
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.resources import Resources
from offsite.replication.records.set_records import MemberRecord, SetRecord
from offsite.replication.runs.reconciler import settings_of
from offsite.replication.sets.settings import ChosenSettings, check_settings
from offsite.replication.wire.messages import CreateSet, Done, NewMember

MEMBERS_MAX = 16
CREATING_SECONDS = 30.0


@dataclass(frozen=True)
class NewSet:
    """What is asked for. The pool and the names of the secondary are by default those of the primary; of a group
    `secondary_name` is the name of the group there."""

    name: str
    peer_name: str
    image_ids: tuple[int, ...]
    group: Group | None = None
    secondary_pool: str | None = None
    secondary_name: str | None = None
    settings: ChosenSettings = field(default_factory=ChosenSettings)


@dataclass(frozen=True)
class _Plan:
    name: str
    peer: PeerRecord
    pool: Pool
    images: Sequence[ImageInfo]
    members: tuple[MemberRecord, ...]
    group: Group | None
    remote_group: str | None
    remote_pool: str
    settings: ChosenSettings

    @property
    def primary_name(self) -> str:
        return self.group.name if self.group else self.images[0].name

    @property
    def secondary_name(self) -> str:
        return self.remote_group or self.members[0].remote_name


class SetCreation:
    def __init__(self, resources: Resources, peers: Peers, limits: Limits) -> None:
        self._resources = resources
        self._peers = peers
        self._limits = limits
        self._creating = threading.Lock()

    def create(self, wanted: NewSet) -> None:
        """Makes the secondary volumes on the peer, all hole, and the set on both.

        Raises what is wrong here or there, with nothing changed on either system. Only when the connection
        ends between the request and its answer nobody knows: then the set stays here as Not Ready, and to
        repeat the request, or to delete the set, is harmless.
        """
        plan = self._plan(wanted)
        with self._alone():
            begun = self._begun(plan)
            if begun is None:
                self._check_new(plan)
            with self._peers.connect(plan.peer) as connection:
                replication_set = begun or self._begin(plan)
                try:
                    connection.channel.ask(connection.asking, self._request(replication_set, plan), Done)
                except (PeerUnreachable, ProtocolError) as error:
                    raise PeerUnreachable(
                        f"{error}; it is unknown whether {plan.peer.system_name} created its part of set {plan.name}: "
                        "repeat the command, or delete the set"
                    ) from error
                except OffsiteError:
                    self._forget(replication_set)
                    raise
            with self._resources.database.transaction() as transaction:
                set_records.update_set(transaction, replication_set.id, state="ready")
        self._resources.report(
            events.SET_CREATED,
            f"Replication set name: {plan.name}, was created: {plan.primary_name} in pool {plan.pool.name} replicates "
            f"to {plan.secondary_name} in pool {plan.remote_pool} of system {plan.peer.system_name}.",
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Raises InUse when another set goes on being made: its peer does not answer."""
        if not self._creating.acquire(timeout=CREATING_SECONDS):
            raise InUse(
                "another replication set is being created, and its peer has not answered yet; try again in a moment"
            )
        try:
            yield
        finally:
            self._creating.release()

    def _plan(self, wanted: NewSet) -> _Plan:
        check_name(wanted.name, "replication set name")
        peer = self._peers.record(wanted.peer_name)
        _check_count(wanted.image_ids, wanted.group)
        check_settings(wanted.settings, of_group=wanted.group is not None)
        found = [find_image(self._resources.pools, image_id) for image_id in wanted.image_ids]
        pool = found[0][0]
        images = [image for _, image in found]
        if wanted.group is None:
            names = [check_name(wanted.secondary_name or images[0].name, "secondary volume name")]
            remote_group = None
        else:
            names = [image.name for image in images]
            remote_group = check_name(wanted.secondary_name or wanted.group.name, "secondary volume group name")
        members = tuple(MemberRecord(image.id, name) for image, name in zip(images, names, strict=True))
        remote_pool = wanted.secondary_pool or pool.name
        return _Plan(wanted.name, peer, pool, images, members, wanted.group, remote_group, remote_pool, wanted.settings)

    def check_replicable(self, image_ids: Sequence[int], group: Group | None) -> None:
        """Whether a set of these may be made, as far as is known before it has a name. Raises what `create` raises."""
        _check_count(image_ids, group)
        sets = self._records()
        begun = any(
            each.state != "ready" and {member.image_id for member in each.members} & set(image_ids) for each in sets
        )
        if not begun:  # that one may be made again
            self._check_free([find_image(self._resources.pools, each)[1] for each in image_ids], group, sets)

    def _request(self, replication_set: SetRecord, plan: _Plan) -> CreateSet:
        return CreateSet(
            set_uuid=replication_set.uuid,
            settings=settings_of(replication_set),
            generation=replication_set.generation,
            primary_pool=plan.pool.name,
            secondary_pool=replication_set.remote_pool,
            primary_group=plan.group.name if plan.group else None,
            secondary_group=replication_set.remote_group,
            members=[
                NewMember(primary_name=image.name, secondary_name=member.remote_name, size_bytes=image.size_bytes)
                for image, member in zip(plan.images, replication_set.members, strict=True)
            ],
        )

    def _begun(self, plan: _Plan) -> SetRecord | None:
        """The same set, if making it was begun before and it is not known how that ended."""
        replication_set = next((each for each in self._records() if each.name == plan.name), None)
        if replication_set is None or replication_set.state == "ready":
            return None
        if (replication_set.peer_id, replication_set.remote_pool, replication_set.members) != (
            plan.peer.id,
            plan.remote_pool,
            plan.members,
        ):
            raise NotAllowed(
                f"replication set {plan.name} is Not Ready and was created with other parameters; delete it first"
            )
        return replication_set

    def _check_new(self, plan: _Plan) -> None:
        sets = self._records()
        if any(each.name == plan.name for each in sets):
            raise NameInUse(f"replication set {plan.name!r} already exists; choose another name")
        self._check_free(plan.images, plan.group, sets)

    def _check_free(self, images: Sequence[ImageInfo], group: Group | None, sets: Sequence[SetRecord]) -> None:
        """Whether one more set may be, of these images, which are in none of the `sets` that there are."""
        with self._resources.database.read() as view:
            self._limits.check_new_set(view)
            for image in images:
                if image.kind == "internal":
                    raise NotAllowed(f"image {image.id} is internal to replication and cannot be replicated")
                _check_no_other_group(view, group, image)
        names = {image.id: image.name for image in images}
        for each in sets:
            for member in each.members:
                if member.image_id in names:
                    name = names[member.image_id]
                    raise InUse(f"{name} is already in replication set {each.name}; it can be in only one")

    def _begin(self, plan: _Plan) -> SetRecord:
        values = {
            **plan.settings.given(),
            "uuid": str(uuid.uuid4()),
            "name": plan.name,
            "role": "primary",
            "state": "preparing",
            "peer_id": plan.peer.id,
            "remote_pool": plan.remote_pool,
            "group_id": plan.group.id if plan.group else None,
            "remote_group": plan.remote_group,
            "generation": 1,
            "created_at": self._resources.clock.now(),
        }
        with self._resources.database.transaction() as transaction:
            _check_still_so(transaction, plan)
            self._limits.check_new_set(transaction)
            set_records.insert_set(transaction, values, plan.members)
            replication_set = set_records.find_set(transaction, str(values["uuid"]))
        assert replication_set is not None
        return replication_set

    def _forget(self, replication_set: SetRecord) -> None:
        with self._resources.database.transaction() as transaction:
            set_records.delete_set(transaction, replication_set.id)

    def _records(self) -> list[SetRecord]:
        with self._resources.database.read() as connection:
            return set_records.all_sets(connection)


def _check_count(image_ids: Sequence[int], group: Group | None) -> None:
    if not 1 <= len(image_ids) <= MEMBERS_MAX:
        raise BadParameter(
            f"volume group {group.name if group else ''} has {len(image_ids)} members; a replication set requires 1 to "
            f"{MEMBERS_MAX}"
        )


def _check_no_other_group(connection: Connection, group: Group | None, image: ImageInfo) -> None:
    """A member of a group that is in a set cannot be in one of its own."""
    present = group_of(connection, image.id)
    if present is None or (group is not None and group.id == present.id):
        return
    needed = [each.name for each in set_records.all_sets(connection) if each.group_id == present.id]
    if needed:
        raise InUse(f"{image.name} is in volume group {present.name}, which is already in replication set {needed[0]}")


def _check_still_so(connection: Connection, plan: _Plan) -> None:
    """What is to be replicated may have been deleted, or its group changed, while the peer was being reached."""
    ids = [image.id for image in plan.images]
    there = catalog.image_names(connection, ids)
    for image in plan.images:
        if image.id not in there:
            raise VolumeNotFound(f"{image.name} was just deleted")
    if plan.group is not None and set(members(connection, plan.group.id)) != set(ids):
        raise InUse(f"the members of volume group {plan.group.name} were just changed; repeat the command")
