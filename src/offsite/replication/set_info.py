"""What is told about a replication set."""

from __future__ import annotations

from dataclasses import dataclass

from offsite.replication.records import Role, RunRecord
from offsite.replication.status import Status


@dataclass(frozen=True)
class SetMember:
    image_id: int  # on this system
    name: str
    remote_name: str


@dataclass(frozen=True)
class SetInfo:
    """A replication set as one of its two systems sees it."""

    uuid: str
    name: str
    role: Role
    peer_name: str
    pool: str
    remote_pool: str
    members: tuple[SetMember, ...]
    generation: int
    status: Status
    created_at: float
    recovery_point_at: float | None  # the instant of the primary that the secondary is complete at
    lag_seconds: float | None  # how long ago that is
    last_run: RunRecord | None  # the newest that has ended
    current_run: RunRecord | None

    @property
    def image_ids(self) -> tuple[int, ...]:
        return tuple(member.image_id for member in self.members)

    @property
    def primary_volume(self) -> str:
        return self._names(self.role == "primary")

    @property
    def secondary_volume(self) -> str:
        return self._names(self.role == "secondary")

    def _names(self, here: bool) -> str:
        return ",".join(member.name if here else member.remote_name for member in self.members)
