"""Which snapshots of a set's history go again: the oldest beyond the count, but for what something needs.

Age is the order in which they were taken here, not their numbers. It is a step of its own: were it one with the run's
commit, a snapshot that somebody deletes at the same moment would make the run fail. What a crash leaves is found by the
next run.

On the secondary a primary that somebody has taken over must not be able to empty the history: of what it says only
what keeps more counts at once, and of what is beyond the count a run lets two go at most, one of them for its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import update

from offsite import events
from offsite.errors import InUse, OffsiteError, VolumeNotFound
from offsite.events import Report
from offsite.pools.needs import FoundNeeds, Needs
from offsite.pools.protocol import Pool
from offsite.replication.points.snapshot_history import HeldSnapshot, history_of
from offsite.replication.records.set_records import SetRecord
from offsite.replication.records.tables import history_snapshots
from offsite.store.database import Database

LET_GO_ON_SECONDARY_MAX = 2  # by one run: one for its own, and one more, so that a count that is lowered comes true
HISTORY_MAX = 256  # runs that a minimum age keeps; with so many there is no place for another

_HOUR_SECONDS = 3600.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HistoryTerms:
    """What is kept: so many runs, and all that are younger."""

    count: int
    age_seconds: float = 0.0
    let_go_max: int | None = None


def terms_of(replication_set: SetRecord, count: int | None) -> HistoryTerms:
    """`count` is what the primary wants; users of this system have set minimums."""
    count = max(count or 1, replication_set.minimum_snapshot_count)
    age_seconds = replication_set.minimum_snapshot_age_hours * _HOUR_SECONDS
    if replication_set.role == "primary":
        return HistoryTerms(count, age_seconds)
    return HistoryTerms(max(count, replication_set.snapshot_count or 1), age_seconds, LET_GO_ON_SECONDARY_MAX)


def has_place(held: Sequence[HeldSnapshot]) -> bool:
    return len({each.run for each in held}) < HISTORY_MAX


def rotate(
    database: Database,
    pool: Pool,
    needs: Needs,
    replication_set: SetRecord,
    terms: HistoryTerms,
    now: float,
    report: Report,
) -> None:
    """Never raises what a disk may do: what comes before it is done, and what is left the next run finds."""
    try:
        _rotate(database, pool, needs, replication_set, terms, now, report)
    except (OffsiteError, OSError) as error:
        _log.error("cannot delete old snapshots from the history of a set", set=replication_set.name, reason=str(error))


def _rotate(
    database: Database,
    pool: Pool,
    needs: Needs,
    replication_set: SetRecord,
    terms: HistoryTerms,
    now: float,
    report: Report,
) -> None:
    with database.read() as connection:
        held = history_of(connection, replication_set.id)
    gone = 0
    for snapshots in _beyond(held, terms, now):
        if terms.let_go_max is not None and gone >= terms.let_go_max:
            return
        ids = [each.image_id for each in snapshots]
        names = {image.id: image.name for image in pool.images() if image.id in ids}
        try:
            found = needs.delete_unneeded(pool, ids)
        except (VolumeNotFound, InUse):
            continue  # someone deleted it just now, or changes it
        if found:
            _tell_kept(database, replication_set, terms, snapshots, names, found, report)
            continue
        gone += 1
        report(
            events.VOLUME_DELETED,
            f"Snapshot {', '.join(names.values())} was deleted from pool {pool.name}: the history of replication set "
            f"{replication_set.name} keeps the newest {terms.count}.",
        )


def _beyond(held: Sequence[HeldSnapshot], terms: HistoryTerms, now: float) -> list[list[HeldSnapshot]]:
    """What of the history ought to go, run by run, oldest first. The snapshots of a group go together."""
    by_run: dict[str, list[HeldSnapshot]] = {}
    for each in held:
        by_run.setdefault(each.run, []).append(each)
    runs = list(by_run.values())[: -terms.count]
    return [each for each in runs if each[0].kept_at + terms.age_seconds <= now or not terms.age_seconds]


def _tell_kept(
    database: Database,
    replication_set: SetRecord,
    terms: HistoryTerms,
    snapshots: Sequence[HeldSnapshot],
    names: dict[int, str],
    needs: FoundNeeds,
    report: Report,
) -> None:
    """Once for each run's."""
    if all(each.kept_told for each in snapshots):
        return
    why = "; ".join(f"{names[image_id]}: {found[0].sentence}" for image_id, found in needs.items() if image_id in names)
    with database.transaction() as connection:
        told = update(history_snapshots).where(history_snapshots.c.run == snapshots[0].run)
        connection.execute(told.where(history_snapshots.c.set_id == replication_set.id).values(kept_told=True))
    report(
        events.SNAPSHOT_KEPT,
        f"The history of replication set {replication_set.name} keeps more than its {terms.count} snapshots, because "
        f"some cannot be deleted: {why}.",
    )
