"""What may be chosen about a replication set, when it is made and later: queue policy, snapshot history, hooks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from offsite.errors import BadParameter
from offsite.replication.naming.snapshot_names import check_basename
from offsite.replication.points.snapshot_history import check_count
from offsite.replication.records.set_records import QueuePolicy, RetentionPriority, SnapshotHistory
from offsite.replication.runs.hooks import TIMEOUT_SECONDS_MAX, TIMEOUT_SECONDS_MIN


@dataclass(frozen=True)
class ChosenSettings:
    """None: as it is, or as it is by default. A hook of '' is none."""

    queue_policy: QueuePolicy | None = None
    snapshot_history: SnapshotHistory | None = None
    snapshot_basename: str | None = None
    snapshot_count: int | None = None
    snapshot_retention_priority: RetentionPriority | None = None
    before_snapshot: str | None = None
    after_snapshot: str | None = None
    hook_timeout_seconds: int | None = None

    def given(self) -> dict[str, Any]:
        """Columns and values of what is to be set."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: (value or None) if name.endswith("_snapshot") else value
            for name, value in values.items()
            if value is not None
        }


def check_settings(settings: ChosenSettings, *, of_group: bool, now: dict[str, Any] | None = None) -> None:
    """Raises BadParameter for a value outside its rule, and for a history without a basename or a count.

    `now` is what the set has already.
    """
    if settings.snapshot_basename is not None:
        check_basename(settings.snapshot_basename, of_group=of_group)
    if settings.snapshot_count is not None:
        check_count(settings.snapshot_count)
    seconds = settings.hook_timeout_seconds
    if seconds is not None and not TIMEOUT_SECONDS_MIN <= seconds <= TIMEOUT_SECONDS_MAX:
        raise BadParameter(f"hook timeout {seconds} is outside {TIMEOUT_SECONDS_MIN} to {TIMEOUT_SECONDS_MAX} seconds")
    then = (now or {}) | settings.given()
    if then.get("snapshot_history", "disabled") != "disabled":
        for name in ("snapshot_basename", "snapshot_count"):
            if then.get(name) is None:
                raise BadParameter(
                    f"a snapshot history requires a snapshot-basename and a snapshot-count; {name.replace('_', '-')} "
                    "is missing"
                )
