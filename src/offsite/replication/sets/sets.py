"""Replication sets, as this system asks for them: create, change, delete, show."""

from __future__ import annotations

from collections.abc import Sequence

from offsite import events
from offsite.errors import BadParameter, InUse, NameInUse, ObjectNotFound, PeerUnreachable
from offsite.names import check_name
from offsite.pools.groups import Group, group_name
from offsite.replication.peers.clock_skew import age
from offsite.replication.peers.peers import Peers
from offsite.replication.points import other_halves, point_records
from offsite.replication.points.internal_images import find_image
from offsite.replication.records import run_records, set_records
from offsite.replication.records.limits import Limits
from offsite.replication.records.resources import Resources
from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.set_records import SetRecord
from offsite.replication.runs.dispatcher import Dispatcher
from offsite.replication.runs.hooks import Hooks
from offsite.replication.runs.reconciler import Reconciler
from offsite.replication.sets.creation import NewSet, SetCreation
from offsite.replication.sets.removal import remove_set
from offsite.replication.sets.settings import ChosenSettings, check_settings
from offsite.replication.sets.status import Status, status_of
from offsite.replication.sets.view import SetInfo, SetMember
from offsite.replication.transfer.receiver.fence import Fences
from offsite.replication.wire.messages import DeleteSet, Done

STOP_SECONDS = 10.0


class Sets:
    def __init__(
        self,
        resources: Resources,
        peers: Peers,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        fences: Fences,
        limits: Limits,
        hooks: Hooks,
    ) -> None:
        self._resources = resources
        self._peers = peers
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._fences = fences
        self._hooks = hooks
        self._creation = SetCreation(resources, peers, limits)

    # -- creating, changing, deleting ----------------------------------------------------------------------

    def create(self, wanted: NewSet) -> SetInfo:
        """See SetCreation.create."""
        self._check_hooks(wanted.settings)
        self._creation.create(wanted)
        self._reconciler.set_changed()
        return self.get(wanted.name)

    def modify(self, name: str, settings: ChosenSettings, new_name: str | None = None) -> None:
        """Changes what is given, at once and also during a run: the queue policy counts for later requests, the
        basename already for what the secondary keeps of this run. The peer is told as soon as it can be.

        Raises BadParameter, also when nothing is given, NameInUse, NotAllowed on the secondary, InUse for the policy
        discard while a run is queued.
        """
        replication_set = self.check_modifiable(name)
        if settings == ChosenSettings() and new_name is None:
            raise BadParameter(f"no change specified for replication set {replication_set.name}")
        self._check_hooks(settings)
        if new_name is not None:
            check_name(new_name, "replication set name")
        now = {"snapshot_basename": replication_set.snapshot_basename, "snapshot_count": replication_set.snapshot_count}
        now |= {"snapshot_history": replication_set.snapshot_history}
        check_settings(settings, of_group=replication_set.group_id is not None, now=now)
        values = settings.given() | ({} if new_name is None else {"name": new_name})
        with self._resources.database.transaction() as transaction:
            if new_name not in (None, replication_set.name) and any(
                s.name == new_name for s in set_records.all_sets(transaction)
            ):
                raise NameInUse(f"replication set {new_name!r} already exists; choose another name")
            queued = run_records.set_run_in(transaction, replication_set.id, "queued")
            if queued is not None and settings.queue_policy == "discard" != replication_set.queue_policy:
                raise InUse(
                    f"replication set {name} has a queued run, which the queue policy discard does not allow; clear "
                    "its queue first"
                )
            set_records.update_set(transaction, replication_set.id, **values)
        self._resources.report(events.SET_MODIFIED, f"Replication set name: {new_name or name}, was modified.")
        self._reconciler.set_changed()

    def protect(self, name: str, minimum_count: int | None, minimum_age_hours: int | None) -> None:
        """How much of the history on this side is kept, at either end, whatever the other system says."""
        replication_set = self.record(name)
        values = {"minimum_snapshot_count": minimum_count, "minimum_snapshot_age_hours": minimum_age_hours}
        values = {key: value for key, value in values.items() if value is not None}
        with self._resources.database.transaction() as transaction:
            set_records.update_set(transaction, replication_set.id, **values)
        told = ", ".join(f"{key.replace('_', '-')} {value}" for key, value in values.items())
        self._resources.report(events.SET_MODIFIED, f"Replication set name: {name}, was modified: {told}.")

    def delete(self, name: str, local_only: bool = False) -> None:
        """On both systems, or with `local_only` here alone, where it ends a run, too. The volumes stay.

        Raises InUse while a run is under way or queued, and PeerUnreachable. Repeating it is harmless.
        """
        replication_set = self.record(name)
        with (
            self._resources.locks.requesting(replication_set.uuid, replication_set.name),
            self._dispatcher.standing_still(replication_set.uuid, 0.0),
        ):
            if local_only:
                self._dispatcher.stop_attempt(replication_set.uuid)
                with self._dispatcher.standing_still(replication_set.uuid, STOP_SECONDS) as still:
                    if not still:
                        raise InUse(
                            f"timeout: a run of replication set {name} has not ended within {STOP_SECONDS:.0f} s; try "
                            "again in a moment"
                        )
            else:
                self._check_no_runs(replication_set)
                self._delete_over_there(replication_set)
            remove_set(self._resources.database, self._resources.pools, self._fences, replication_set)
        self._dispatcher.forget(replication_set.uuid)
        self._resources.report(events.SET_DELETED, f"Replication set name: {name}, was deleted.")

    def _delete_over_there(self, replication_set: SetRecord) -> None:
        try:
            with self._peers.connect(self._peers.record_of(replication_set.peer_id)) as connection:
                delete = DeleteSet(set_uuid=replication_set.uuid, generation=replication_set.generation)
                connection.channel.ask(connection.asking, delete, Done)
        except PeerUnreachable as error:
            raise PeerUnreachable(
                f"replication set {replication_set.name} cannot be deleted on both systems: {error}; if the other "
                "system no longer exists, delete the set only here, with local-only"
            ) from error

    # -- checks --------------------------------------------------------------------------------------------

    def check_replicable(self, image_ids: Sequence[int], group: Group | None) -> None:
        """See SetCreation.check_replicable."""
        self._creation.check_replicable(image_ids, group)

    def check_modifiable(self, name: str) -> SetRecord:
        """The set, if its settings may be changed here. Raises ObjectNotFound, or NotAllowed on the secondary."""
        replication_set = self.record(name)
        self._peers.check_primary(replication_set, "changed")
        return replication_set

    def check_deletable(self, name: str) -> None:
        """On both systems. Raises ObjectNotFound, or InUse while a run is under way or queued."""
        self._check_no_runs(self.record(name))

    def _check_no_runs(self, replication_set: SetRecord) -> None:
        """Of a primary set: the runs of a secondary are its primary's affair."""
        if replication_set.role != "primary":
            return
        with self._resources.database.read() as connection:
            running = run_records.set_run_in(connection, replication_set.id, "running")
            queued = run_records.set_run_in(connection, replication_set.id, "queued")
        if running is not None:
            raise InUse(
                f"replication set {replication_set.name} has a run in progress; suspend the set and abort the run first"
            )
        if queued is not None:
            raise InUse(f"replication set {replication_set.name} has a queued run; clear its queue first")

    def _check_hooks(self, settings: ChosenSettings) -> None:
        for hook in (settings.before_snapshot, settings.after_snapshot):
            if hook:
                self._hooks.check(hook)

    # -- showing -------------------------------------------------------------------------------------------

    def all(self) -> list[SetInfo]:
        return [self._info(replication_set) for replication_set in self.records()]

    def get(self, name: str) -> SetInfo:
        return self._info(self.record(name))

    def record(self, name: str) -> SetRecord:
        """Raises ObjectNotFound."""
        sets = self.records()
        replication_set = next((each for each in sets if each.name == name), None) or next(
            (each for each in sets if each.uuid == name.lower()), None
        )
        if replication_set is None:
            raise ObjectNotFound(f"replication set {name[:100]!r} does not exist")
        return replication_set

    def runs(self, name: str, run: str | None = None) -> list[RunRecord]:
        """Newest first; or only this one, if the set has it."""
        replication_set = self.record(name)
        with self._resources.database.read() as connection:
            if run is None:
                return run_records.set_runs(connection, replication_set.id)
            found = run_records.find_run(connection, run)
        return [found] if found is not None and found.set_id == replication_set.id else []

    def waits_for_decision(self, name: str) -> str | None:
        """What is to be told of a set that sends nothing until an operator of its primary, which is here, decides."""
        replication_set = self.record(name)
        if replication_set.role != "primary":
            return None
        with self._resources.database.read() as connection:
            half = other_halves.find_other_half(connection, replication_set.id)
            return (
                other_halves.sentence_of(connection, replication_set, half)
                if half is not None and half.is_diverged
                else None
            )

    def _info(self, replication_set: SetRecord) -> SetInfo:
        with self._resources.database.read() as connection:
            held = point_records.set_points(connection, replication_set.id)
            found = {
                state: run_records.set_run_in(connection, replication_set.id, state)
                for state in ("running", "queued", "preparing", "success")
            }
            last = run_records.last_ended_run(connection, replication_set.id)
            group = group_name(connection, replication_set.group_id)
            half = other_halves.find_other_half(connection, replication_set.id)
            difference = other_halves.sentence_of(connection, replication_set, half) if half is not None else None
        refusal = self._reconciler.refusal(replication_set.peer_id) if replication_set.role == "primary" else None
        base = next((point for point in held if point.state == "base"), None)
        recovery_point_at = base.taken_at if base else None
        if half is not None and replication_set.role == "primary":
            # What the secondary holds counts. Of what it has never had, a primary cannot tell how old it is.
            recovery_point_at = half.taken_at if half.relation == "older" else None
        current = found["running"] or found["preparing"]
        pool, _ = find_image(self._resources.pools, replication_set.members[0].image_id)
        return SetInfo(
            record=replication_set,
            peer_name=self._peers.record_of(replication_set.peer_id).name,
            pool=pool.name,
            members=tuple(
                SetMember(each.image_id, find_image(self._resources.pools, each.image_id)[1].name, each.remote_name)
                for each in replication_set.members
            ),
            group=group,
            status=self._status(
                replication_set, recovery_point_at is not None, current, refusal, half is not None and half.is_diverged
            ),
            recovery_point_at=recovery_point_at,
            difference=refusal or difference,
            lag_seconds=None if recovery_point_at is None else self._age(replication_set, recovery_point_at),
            last_run=last,
            last_success=found["success"],
            current_run=current,
            queued_run=found["queued"],
        )

    def _age(self, replication_set: SetRecord, taken_at: float) -> float | None:
        """Of an instant that the primary's clock has shown."""
        if replication_set.role == "primary":
            return age(taken_at, self._resources.clock.now())
        remote = self._peers.contacts.remote_time(self._peers.record_of(replication_set.peer_id))
        return age(taken_at, *remote) if remote is not None else None

    def _status(
        self, replication_set: SetRecord, has_base: bool, current: RunRecord | None, refusal: str | None, diverged: bool
    ) -> Status:
        return status_of(
            ready=replication_set.state == "ready"
            and refusal is None
            and not self._reconciler.half_missing(replication_set.uuid),
            has_base=has_base,
            diverged=diverged,
            running=current is not None,
            suspended=replication_set.suspended or (current is not None and self._in_trouble(replication_set, current)),
            primary_is_gone=replication_set.role == "secondary"
            and not self._peers.online_by_id(replication_set.peer_id),
        )

    def _in_trouble(self, replication_set: SetRecord, current: RunRecord) -> bool:
        """Whether the run has failed, and waits to be tried again. What the record says may be a little old."""
        progress = self._dispatcher.progress(replication_set.uuid)
        if progress is not None and progress.run == current.uuid:
            return progress.in_trouble
        return current.error is not None

    def records(self) -> list[SetRecord]:
        with self._resources.database.read() as connection:
            return set_records.all_sets(connection)
