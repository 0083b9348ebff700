"""What a running system is made of, for the commands: its parts, and how objects are found in them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from offsite.clock import Clock
from offsite.errors import (
    BadParameter,
    Busy,
    InUse,
    NameInUse,
    NotAllowed,
    ObjectNotFound,
    SnapshotNotFound,
    VolumeNotFound,
)
from offsite.escaping import shown
from offsite.management.accounts.sessions import Sessions
from offsite.management.accounts.users import User, Users
from offsite.management.events.event_log import EventLog
from offsite.management.notices.notices import Notices
from offsite.management.schedules.roster import Roster
from offsite.management.schedules.schedules import Schedules
from offsite.management.schedules.tasks import Tasks
from offsite.pools.checks import check_size_range
from offsite.pools.protocol import ImageInfo, Pool
from offsite.replication.records.set_records import all_sets
from offsite.store.database import Database
from offsite.store.settings import Settings

if TYPE_CHECKING:
    from offsite.access.certificates import Authority
    from offsite.access.initiator_certificates import InitiatorCertificates
    from offsite.access.maps import Maps
    from offsite.pools.groups import Group, Groups
    from offsite.pools.needs import Needs
    from offsite.replication.service import Replication
    from offsite.targets.common.counters import Counters

CHANGING_WAIT_SECONDS = 60.0
SIZE_STEP_BYTES = 4096  # sizes are rounded up to it: the sectors of 4 KiB that hosts like best


class Target(Protocol):
    """What serves volumes to hosts, as far as commands have to do with it."""

    id_prefix: str  # what the ids of its initiators begin with that come without a certificate: "nbd:"

    def disconnect(self, image_id: int, timeout_seconds: float = ...) -> int:
        """Ends all connections to an image; returns how many are left when the time is over."""
        ...

    def recheck(self, timeout_seconds: float = ...) -> int:
        """Ends all connections that the maps do not allow any more, or whose certificate was revoked."""
        ...

    def connections(self) -> list[tuple[str, int]]:
        """Initiator and id of the image, of every use of an image by a connection."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """An image and the pool that it is in."""

    pool: Pool
    image: ImageInfo


@dataclass
class System:
    """The parts of a running system. Safe to use from any thread."""

    uuid: str
    name: str
    state_directory: Path
    database: Database
    pools: dict[str, Pool]  # the NBD target and replication see the same dictionary
    groups: Groups
    needs: Needs
    maps: Maps
    authority: Authority
    certificates: InitiatorCertificates
    replication: Replication
    targets: Sequence[Target]
    counters: Counters  # of all targets
    users: Users
    sessions: Sessions
    events: EventLog
    notices: Notices
    settings: Settings
    tasks: Tasks
    schedules: Schedules
    roster: Roster
    clock: Clock
    started_at: float
    addresses: Mapping[str, str]  # what listens where: "nbd": "127.0.0.1:10809"
    changing: threading.Lock = field(default_factory=threading.Lock)  # one command at a time changes things
    stopping: threading.Event = field(default_factory=threading.Event)

    def check_stopping(self) -> None:
        """For long work: raises NotAllowed once the system is being stopped."""
        if self.stopping.is_set():
            raise NotAllowed("the system is stopping; try again after it has started")

    @contextmanager
    def changing_alone(self) -> Iterator[None]:
        """For whatever changes things: one after another. Raises Busy when another does not end."""
        if not self.changing.acquire(timeout=CHANGING_WAIT_SECONDS):
            raise Busy(
                "timeout: another command has been changing this system for {CHANGING_WAIT_SECONDS:.0f} s; try again "
                "when it has ended"
            )
        try:
            yield
        finally:
            self.changing.release()

    def pool(self, name: str) -> Pool:
        for pool in list(self.pools.values()):
            if pool.name == name:
                return pool
        known = ", ".join(sorted(self.pools)) or "none"
        raise ObjectNotFound(f"pool {shown(name)} does not exist; pools of this system: {known}")

    def images(self) -> list[Found]:
        """All volumes and snapshots, by name."""
        found = [
            Found(pool, image)
            for pool in list(self.pools.values())
            for image in pool.images()
            if image.kind != "internal"
        ]
        return sorted(found, key=lambda each: each.image.name)

    def image(self, name: str) -> Found:
        """The volume or snapshot of this name or serial number. Raises VolumeNotFound."""
        found = self._find(name)
        if found is None:
            raise VolumeNotFound(f"volume {shown(name)} does not exist; `show volumes` lists all volumes")
        return found

    def snapshot(self, name: str) -> Found:
        """The snapshot of this name or serial number. Raises SnapshotNotFound, also for a volume."""
        found = self._find(name)
        if found is None or found.image.kind != "snapshot":
            what = "does not exist" if found is None else "is a volume, not a snapshot"
            raise SnapshotNotFound(f"snapshot {shown(name)} {what}; `show snapshots` lists all snapshots")
        return found

    def base_volume(self, name: str) -> Found:
        """The volume of this name or serial number. Raises VolumeNotFound, also for a snapshot."""
        found = self.image(name)
        if found.image.kind != "volume":
            raise VolumeNotFound(f"{shown(name)} is a snapshot, not a volume; see `show snapshots`")
        return found

    def chosen(self, names: Iterable[str] | None, kind: str | None = None) -> list[Found]:
        """The images that a `show` is about: those named, or all of `kind`."""
        if names is not None:
            return [self.snapshot(each) if kind == "snapshot" else self.image(each) for each in names]
        return [each for each in self.images() if kind is None or each.image.kind == kind]

    def members(self, group: Group) -> list[Found]:
        """The volumes and snapshots of a group, by name."""
        return [each for each in self.images() if each.image.id in group.image_ids]

    def images_or_members(self, names: Iterable[str]) -> list[Found]:
        """The images of these names or serial numbers, and for that of a volume group its members, by name.

        A group may be written as ME4 does, `GROUP.*`. Raises VolumeNotFound, also for a group without members,
        and BadParameter for an image that is named twice.
        """
        found: dict[int, Found] = {}
        for name in names:
            for each in self._image_or_members(name):
                if found.setdefault(each.image.id, each) is not each:
                    raise BadParameter(
                        f"volume {each.image.name} is named twice, by itself or with its group; name it once"
                    )
        return list(found.values())

    def _image_or_members(self, name: str) -> list[Found]:
        image = self._find(name)
        if image is not None:
            return [image]
        group = self.groups.find(name) or self.groups.find(name.removesuffix(".*"))
        if group is None:
            raise VolumeNotFound(
                f"no volume or volume group has the name {shown(name)}; `show volumes` and `show volume-groups` list "
                "all of them"
            )
        if not group.image_ids:
            raise VolumeNotFound(f"volume group {group.name} has no members; add some with `add volume-group-members`")
        return self.members(group)

    def check_not_open(self, found: Found) -> None:
        """Raises InUse when a host has the image open: its caches would not fit any more."""
        for target in self.targets:
            for initiator, image_id in target.connections():
                if image_id == found.image.id:
                    raise InUse(
                        f"volume {found.image.name} is in use by initiator {initiator}; unmount and disconnect it "
                        "there first"
                    )

    def replication_roles(self) -> dict[int, tuple[str, str]]:
        """Role and name of the replication set of each image that is in one, by the image's id."""
        with self.database.read() as connection:
            return {member.image_id: (each.role, each.name) for each in all_sets(connection) for member in each.members}

    def group_roles(self) -> dict[int, tuple[str, str]]:
        """Role and name of the replication set of each volume group that is in one, by the group's id."""
        with self.database.read() as connection:
            sets = all_sets(connection)
        return {each.group_id: (each.role, each.name) for each in sets if each.group_id is not None}

    def check_group_free(self, group: Group) -> None:
        """Raises InUse when a replication set has the group, whose members then are fixed."""
        found = self.group_roles().get(group.id)
        if found is not None:
            role, set_name = found
            raise InUse(
                f"volume group {group.name} is the {role} volume group of replication set {set_name}: neither can its "
                "members change, nor can it be deleted; delete the set first"
            )

    def tasks_that_go(self, image_ids: Iterable[int] = (), set_id: int | None = None) -> str:
        """A sentence for a question: which tasks and schedules are deleted with these images, or this set."""
        names = self.tasks.of(tuple(image_ids), set_id)
        schedules = [each.name for each in self.schedules.all() if each.task_name in names]
        parts = [f"task {', '.join(names)}"] if names else []
        parts += [f"schedule {', '.join(schedules)}"] if schedules else []
        return f" This also deletes {' and '.join(parts)}." if parts else ""

    def check_deletable(self, found: Found) -> None:
        """Raises ImageNeeded when something needs the image that even a user may not delete."""
        self.needs.check_deletable([found.image])

    def check_not_secondary(self, found: Found, what: str) -> None:
        """Raises NotAllowed for a volume that only replication may change. `what` is a past participle."""
        if self.replication.is_secondary(found.image.id):
            _, set_name = self.replication_roles().get(found.image.id, ("", "that is being deleted"))
            raise NotAllowed(
                f"volume {found.image.name} is the secondary volume of replication set {set_name} and cannot be "
                f"{what}; take a snapshot of it and use that"
            )

    def check_new_name(self, name: str) -> None:
        """Raises NameInUse for a name that a volume or snapshot of any pool has, or a volume group."""
        for pool in list(self.pools.values()):
            if any(image.name == name for image in pool.images()):
                raise NameInUse(
                    f"the name {shown(name)} is in use in pool {pool.name}; choose a name that no volume or snapshot "
                    "has"
                )
        if any(group.name == name for group in self.groups.all()):
            raise NameInUse(f"the name {shown(name)} is in use by a volume group; choose another name")

    def _find(self, name: str) -> Found | None:
        images = self.images()
        by_name = next((each for each in images if each.image.name == name), None)
        return by_name or next((each for each in images if each.image.uuid == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Context:
    """Who asks what system: the first argument of every handler."""

    system: System
    user: User


def check_size(size_bytes: int, pool: Pool) -> int:
    """The size of a volume in `pool`, rounded up to 4 KiB. Raises BadParameter outside the limits."""
    check_size_range(pool.name, size_bytes, pool.capacity().allocation_bytes)
    return -(-size_bytes // SIZE_STEP_BYTES) * SIZE_STEP_BYTES
