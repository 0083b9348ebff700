"""What is told about a replication set."""

from __future__ import annotations

from dataclasses import dataclass

from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.set_records import Role, SetRecord
from offsite.replication.sets.status import Status


@dataclass(frozen=True)
class SetMember:
    image_id: int  # on this system
    name: str
    remote_name: str


@dataclass(frozen=True)
class SetInfo:
    """A replication set as one of its two systems sees it."""

    record: SetRecord
    peer_name: str
    pool: str
    members: tuple[SetMember, ...]
    group: str | None  # the volume group here that the members are
    status: Status
    recovery_point_at: float | None  # the instant of the primary that the secondary is complete at
    difference: str | None  # what is to be told when the secondary holds otherwise than the primary
    lag_seconds: float | None  # how long ago that is; none: nobody knows
    last_run: RunRecord | None  # the newest that has ended
    last_success: RunRecord | None
    current_run: RunRecord | None
    queued_run: RunRecord | None

    @property
    def last_success_at(self) -> float | None:
        """When the newest run that succeeded ended, by the clock of this system."""
        return None if self.last_success is None else self.last_success.ended_at

    @property
    def uuid(self) -> str:
        return self.record.uuid

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def role(self) -> Role:
        return self.record.role

    @property
    def image_ids(self) -> tuple[int, ...]:
        return tuple(member.image_id for member in self.members)

    @property
    def primary_volume(self) -> str:
        """Its name, or that of the group."""
        return self._name(self.role == "primary")

    @property
    def secondary_volume(self) -> str:
        return self._name(self.role == "secondary")

    def _name(self, here: bool) -> str:
        if self.group is not None:
            return self.group if here else self.record.remote_group or ""
        return self.members[0].name if here else self.members[0].remote_name
