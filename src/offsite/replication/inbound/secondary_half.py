"""The secondary halves of sets, as their primaries ask for them: made, changed, deleted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from offsite import events
from offsite.errors import (
    InUse,
    NameInUse,
    ObjectNotFound,
    PeerLimitReached,
    ProtocolError,
    SecondarySetsDisabled,
)
from offsite.pools.groups import insert_group
from offsite.pools.protocol import Create, ImageInfo
from offsite.replication.inbound.common_sets import CommonSets
from offsite.replication.link.identity import SystemIdentity
from offsite.replication.records import peer_share, run_records, set_records
from offsite.replication.records.limits import Limits
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.resources import Resources
from offsite.replication.records.set_records import MemberRecord, SetRecord
from offsite.replication.roles.generation import check_generation, check_unchanged
from offsite.replication.sets.removal import remove_set
from offsite.replication.sets.settings import ChosenSettings, check_settings
from offsite.replication.transfer.receiver.fence import Fences
from offsite.replication.wire.batch import check_sizes
from offsite.replication.wire.messages import (
    ChangeSet,
    CreateSet,
    DeleteSet,
    PrimaryNames,
    SetSettings,
)


class SecondaryHalves:
    def __init__(
        self, resources: Resources, system: SystemIdentity, common: CommonSets, fences: Fences, limits: Limits
    ) -> None:
        self._resources = resources
        self._system = system
        self._common = common
        self._fences = fences
        self._limits = limits

    def create(self, peer: PeerRecord, request: CreateSet) -> None:
        """The secondary volumes and the record of the set, in one transaction."""
        if self._common.find_begun(peer, request.set_uuid) is not None:
            return  # asked for a second time
        self._check_may_create(peer, request)
        name = request.settings.name
        _check_new_set(request)
        with self._resources.database.read() as view:
            self._check_place(view, name)
        pool = self._resources.pools.get(request.secondary_pool)
        if pool is None:
            there = ", ".join(sorted(self._resources.pools)) or "none"
            raise ObjectNotFound(f"pool {request.secondary_pool!r} does not exist; pools of this system: {there}")
        names = [member.secondary_name for member in request.members]
        values = {
            **_values_of(request.settings),
            "uuid": request.set_uuid,
            "role": "secondary",
            "state": "ready",
            "peer_id": peer.id,
            "remote_pool": request.primary_pool,
            "generation": request.generation,
            "remote_group": request.primary_group,
            "created_at": self._resources.clock.now(),
        }
        group = request.secondary_group

        def write(connection: Connection, made: Sequence[ImageInfo]) -> None:
            try:
                self._check_place(connection, name)
            except NameInUse as error:  # by a set that was made just now; below, NameInUse is about volumes
                raise InUse(str(error)) from error
            _check_share(connection, peer, request, self._system.name)
            ids = [image.id for image in made]
            members = [
                MemberRecord(image_id, member.primary_name)
                for image_id, member in zip(ids, request.members, strict=True)
            ]
            group_id = insert_group(connection, group, ids, self._resources.clock.now()) if group else None
            set_records.insert_set(connection, values | {"group_id": group_id}, members)
            peer_share.note_images(connection, peer.id, ids)

        try:
            pool.apply([Create(n, m.size_bytes) for n, m in zip(names, request.members, strict=True)], write)
        except NameInUse as error:
            raise NameInUse(
                f"{error}; choose a secondary volume name other than {', '.join(map(repr, names))}"
            ) from error
        except PeerLimitReached as error:
            self._tell_limit(peer, request, error)
            raise
        self._resources.report(
            events.SET_CREATED,
            f"Replication set {name} was created by system {peer.system_name}: {', '.join(names)} in pool {pool.name} "
            "is the secondary.",
        )

    def _check_may_create(self, peer: PeerRecord, request: CreateSet) -> None:
        try:
            peer_share.check_may_create(peer, self._system.name)
        except SecondarySetsDisabled:
            asked = _asked(peer, request)
            self._resources.report(
                events.PEER_SET_REFUSED, f"{asked}, but peer connection {peer.name} does not allow it."
            )
            raise
        try:
            with self._resources.database.read() as view:
                _check_share(view, peer, request, self._system.name)
        except PeerLimitReached as error:
            self._tell_limit(peer, request, error)
            raise

    def _tell_limit(self, peer: PeerRecord, request: CreateSet, error: PeerLimitReached) -> None:
        self._resources.report(events.PEER_LIMIT_REACHED, f"{_asked(peer, request)}: {error}.")

    def _check_place(self, connection: Connection, name: str) -> None:
        if any(each.name == name for each in set_records.all_sets(connection)):
            raise NameInUse(f"replication set {name!r} already exists")
        self._limits.check_new_set(connection)

    def change(self, peer: PeerRecord, request: ChangeSet) -> None:
        """The set is shown here as it is on its primary; but for a name that another set has here."""
        replication_set = self._common.secondary(peer, request.set_uuid, request.generation)
        _check_set_settings(request.settings, of_group=replication_set.group_id is not None)
        values, primary = _values_of(request.settings), request.primary
        if primary is not None and (len(primary.members), primary.group is None) != (
            len(replication_set.members),
            replication_set.remote_group is None,
        ):
            raise ProtocolError(f"the names do not match the {len(replication_set.members)} members of the set")
        with self._resources.database.transaction() as transaction:
            check_unchanged(transaction, replication_set)
            names = {each.name for each in set_records.all_sets(transaction) if each.uuid != replication_set.uuid}
            if values["name"] in names:
                values["name"] = replication_set.name
            if any(getattr(replication_set, name) != value for name, value in values.items()):
                set_records.update_set(transaction, replication_set.id, **values)
            if primary is not None and _names_differ(replication_set, primary):
                set_records.update_remote_names(transaction, replication_set, primary.group, primary.members)
        self._tell_lowered(replication_set, request.settings)
        if values["name"] != replication_set.name:
            self._resources.report(
                events.SET_MODIFIED,
                f"Replication set name: {replication_set.name}, was renamed to {values['name']}, as on its primary.",
            )

    def _tell_lowered(self, replication_set: SetRecord, wanted: SetSettings) -> None:
        """Whoever has taken over a primary may want less to be kept: users here may say what is kept at least."""
        count = 0 if wanted.snapshot_history == "disabled" else wanted.snapshot_count or 1
        before = 0 if replication_set.snapshot_history == "disabled" else replication_set.snapshot_count or 1
        if count < before:
            wants = f"only {count} snapshots" if count else "no snapshots"
            self._resources.report(
                events.HISTORY_LOWERED,
                f"The primary of replication set {replication_set.name} now asks to keep {wants} of its history, "
                f"instead of {before}. Each run deletes one more snapshot, down to "
                f"{max(count, replication_set.minimum_snapshot_count)}."
                if count
                else (
                    f"The primary of replication set {replication_set.name} now asks for {wants} in its history, "
                    f"instead of {before}. Existing snapshots stay."
                ),
            )

    def delete(self, peer: PeerRecord, request: DeleteSet) -> None:
        replication_set = self._common.find(peer, request.set_uuid)
        if replication_set is None:
            return  # it has been deleted before
        check_generation(replication_set, request.generation)
        with self._resources.locks.requesting(replication_set.uuid, replication_set.name):
            self._check_no_runs(replication_set)
            remove_set(self._resources.database, self._resources.pools, self._fences, replication_set)
        self._resources.report(
            events.SET_DELETED, f"Replication set {replication_set.name} was deleted by system {peer.system_name}."
        )

    def _check_no_runs(self, replication_set: SetRecord) -> None:
        with self._resources.database.read() as transaction:
            unfinished = [run for run in run_records.unfinished_runs(transaction) if run.set_id == replication_set.id]
        if replication_set.role == "primary" and unfinished:
            raise InUse(
                f"replication set {replication_set.name} has a run in progress or queued here; abort it, or clear its "
                "queue"
            )


def _asked(peer: PeerRecord, request: CreateSet) -> str:
    return f"System {peer.system_name} asked to create replication set {request.settings.name} here"


def _check_share(connection: Connection, peer: PeerRecord, request: CreateSet, system_name: str) -> None:
    peer_share.check_images(connection, peer.id, len(request.members), f"system {system_name}")
    peer_share.check_size(connection, peer.id, [member.size_bytes for member in request.members])


def _names_differ(replication_set: SetRecord, primary: PrimaryNames) -> bool:
    return (replication_set.remote_group, [member.remote_name for member in replication_set.members]) != (
        primary.group,
        list(primary.members),
    )


def _values_of(settings: SetSettings) -> dict[str, Any]:
    return msgspec.structs.asdict(settings)


def _check_set_settings(settings: SetSettings, *, of_group: bool) -> None:
    """By the same rules as what a user asks for here."""
    named = {each: getattr(settings, each) for each in settings.__struct_fields__ if each in _SETTINGS}
    check_settings(ChosenSettings(**named), of_group=of_group)


_SETTINGS = {each.name for each in dataclasses.fields(ChosenSettings)}


def _check_new_set(request: CreateSet) -> None:
    _check_set_settings(request.settings, of_group=request.secondary_group is not None)
    if (request.primary_group is None) != (request.secondary_group is None):
        raise ProtocolError("a set of a volume group requires a group on both systems")
    if request.secondary_group is None and len(request.members) != 1:
        raise ProtocolError(
            f"{len(request.members)} volumes in a set without a group; without a group, a set has one volume"
        )
    check_sizes([member.size_bytes for member in request.members])
