"""Which command lists the objects of a kind, and in which properties their names are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Listing:
    command: tuple[str, ...]
    properties: tuple[str, ...] = ("name",)


LISTINGS: Mapping[str, Listing] = {
    "volume": Listing(("show", "volumes", "type", "base"), ("volume-name",)),
    "snapshot": Listing(("show", "snapshots")),
    "volume group": Listing(("show", "volume-groups"), ("group-name",)),
    "pool": Listing(("show", "pools")),
    "user": Listing(("show", "users"), ("username",)),
    "initiator": Listing(("show", "initiators"), ("id", "nickname")),
    "nickname": Listing(("show", "initiators"), ("nickname",)),
    "certificate serial": Listing(("show", "initiator-certificates"), ("serial",)),
    "peer connection": Listing(("show", "peer-connections"), ("peer-connection-name",)),
    "replication set": Listing(("show", "replication-sets")),
    "task": Listing(("show", "tasks")),
    "schedule": Listing(("show", "schedules")),
    "notice": Listing(("show", "notices")),
}
