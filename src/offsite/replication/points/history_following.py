"""What the primary does when the secondary has kept a run under another number than it was to have: it follows.

So that one name never means two contents, the primary's own snapshots of the run get the secondary's number, unless
something uses them already or their new names are in use here.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from offsite.pools import catalog
from offsite.pools.needs import Needs
from offsite.pools.protocol import Pool, Rename
from offsite.replication.naming.snapshot_names import renumbered
from offsite.replication.points.snapshot_history import write_number
from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.run_writer import use_number
from offsite.replication.records.tables import history_snapshots


@dataclass(frozen=True, slots=True)
class Following:
    run: str
    number: int  # that it had
    new_number: int | None  # that it has on the secondary; none: the secondary has kept nothing
    renames: tuple[Rename, ...]
    keeps_names: bool  # the primary's own snapshots of the run stay as they are

    def write(self, connection: Connection, set_id: int) -> None:
        if self.new_number is None:
            return
        use_number(connection, set_id, self.run, self.new_number)
        if self.renames:
            write_number(connection, self.run, self.new_number)

    def sentence(self, set_name: str) -> str:
        begin = f"A run of replication set name: {set_name}, should have kept a snapshot with number {self.number}"
        if self.new_number is None:
            return f"{begin} on the secondary, but kept none there; an event there reports the reason."
        told = (
            f"{begin}; on the secondary it has number {self.new_number}, because that number is in use there or older"
        )
        if self.renames:
            return f"{told}. The snapshots here were renamed to {', '.join(each.name for each in self.renames)}."
        return (
            (f"{told}. The snapshots here keep their names, because they are in use.")
            if self.keeps_names
            else f"{told}."
        )


def find_following(
    connection: Connection, pool: Pool, needs: Needs, run: RunRecord, new_number: int | None
) -> Following:
    """For a run that had a number."""
    number = run.snapshot_number or 0
    chosen = select(history_snapshots.c.image_id, history_snapshots.c.number).where(history_snapshots.c.run == run.uuid)
    mine = connection.execute(chosen.order_by(history_snapshots.c.image_id)).all()
    if new_number is None or not mine:
        return Following(run.uuid, number, new_number, (), keeps_names=False)
    names = {image.id: image.name for image in pool.images()}
    pairs = [(row.image_id, renumbered(names.get(row.image_id, ""), row.number, new_number)) for row in mine]
    wanted = [name for _, name in pairs if name is not None]
    is_free = len(wanted) == len(pairs) and not catalog.names_in_use(connection, wanted)
    if not is_free or needs.of(connection, [image_id for image_id, _ in pairs]):
        return Following(run.uuid, number, new_number, (), keeps_names=True)
    renames = tuple(Rename(image_id, name) for image_id, name in pairs if name is not None)
    return Following(run.uuid, number, new_number, renames, keeps_names=False)
