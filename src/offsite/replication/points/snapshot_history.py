"""Snapshot history: what each run leaves behind on either side, and its names. (Which of it goes: history_rotation.)

A request takes a number, whether its run is ever done or not. On the primary a run's snapshot is taken with its point;
on the secondary in the step that makes the point its volumes. Numbers go on above the highest that either side has
used: the secondary takes one that is not behind its own, and the primary goes on after what the secondary has taken.
Of a number whose name is in use by something else the next free one takes the place, and that is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from offsite.errors import BadParameter
from offsite.pools import catalog
from offsite.pools.protocol import ImageInfo, Snapshot, image_ids
from offsite.pools.retention import set_priority
from offsite.replication.naming.snapshot_names import snapshot_names
from offsite.replication.naming.snapshot_numbers import number_after
from offsite.replication.records.tables import history_snapshots

COUNT_MIN, COUNT_MAX = 1, 16
AGE_HOURS_MAX = 366 * 24
NAMES_TRIED_MAX = 1000


def check_count(count: int) -> int:
    if not COUNT_MIN <= count <= COUNT_MAX:
        raise BadParameter(f"snapshot count {count} is outside {COUNT_MIN} to {COUNT_MAX}")
    return count


@dataclass(frozen=True, slots=True)
class HeldSnapshot:
    """One image of the history on this side."""

    image_id: int
    number: int
    run: str
    kept_at: float  # by the clock of this system: since when it is there
    kept_told: bool  # users were told that it stays, though it ought to have gone


@dataclass(frozen=True, slots=True)
class Keeping:
    """What one run is to leave behind on this side, to be taken with one of its steps."""

    set_id: int
    run: str
    basename: str
    number: int  # or one after it, when its name is in use
    priority: str
    taken_at: float  # the instant of the run's data
    now: float

    def find(self, connection: Connection, members: int) -> KeptHistory | None:
        """Under which number and names. For a group all names must be free: half a group is no copy of anything.
        None when a thousand in a row are in use."""
        number = self.number
        for _ in range(NAMES_TRIED_MAX):
            names = snapshot_names(self.basename, number, members)
            if not catalog.names_in_use(connection, names):
                return KeptHistory(self, number, tuple(names))
            number = number_after(number)
        return None

    def sentence(self, set_name: str, kept: KeptHistory | None) -> str:
        """Tells that what was kept has another number than it should, or that nothing was kept."""
        (name,) = snapshot_names(self.basename, self.number, 1)
        begin = f"A run of replication set name: {set_name}, should have kept the snapshot {name}"
        if kept is None:
            return f"{begin}, but kept none: that name and the next {NAMES_TRIED_MAX} are in use here."
        return f"{begin}; that name is in use here, so it kept {', '.join(kept.names)}."


@dataclass(frozen=True, slots=True)
class KeptHistory:
    """The snapshots that one run leaves behind."""

    keeping: Keeping
    number: int
    names: tuple[str, ...]

    def snapshots(self, sources: Sequence[int], parents: Sequence[int]) -> list[Snapshot]:
        return [
            Snapshot(source, name, parent=parent, created_at=self.keeping.taken_at)
            for source, name, parent in zip(sources, self.names, parents, strict=True)
        ]

    def write(self, connection: Connection, changed: Sequence[ImageInfo]) -> list[int]:
        """The records that go with them, in the transaction that has changed these images; returns their ids."""
        of = self.keeping
        ids = image_ids(changed, self.names)
        for image_id in ids:
            row = {"image_id": image_id, "set_id": of.set_id, "run": of.run, "number": self.number, "kept_at": of.now}
            connection.execute(insert(history_snapshots).values(row))
            set_priority(connection, image_id, of.priority)
        return ids


def history_of(connection: Connection, set_id: int) -> list[HeldSnapshot]:
    """A set's history on this side, oldest first: ids of images rise, whatever clocks and numbers do."""
    table = history_snapshots
    chosen = select(table.c.image_id, table.c.number, table.c.run, table.c.kept_at, table.c.kept_told)
    rows = connection.execute(chosen.where(table.c.set_id == set_id).order_by(table.c.image_id))
    return [HeldSnapshot(*row) for row in rows]


def write_number(connection: Connection, run: str, number: int) -> None:
    """The snapshots that the run has left here have another number from now on."""
    connection.execute(update(history_snapshots).where(history_snapshots.c.run == run).values(number=number))
