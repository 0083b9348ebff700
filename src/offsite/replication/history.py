"""Snapshot history: what each run leaves behind on either side, its names, and which of it goes again.

A request takes a number, whether its run is ever done or not. On the primary a run's snapshot is taken with
its point; on the secondary in the step that makes the point its volumes. A name that is in use is left alone,
and the run has no history snapshot then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, delete, insert, select

from offsite.errors import BadParameter, InUse, VolumeNotFound
from offsite.names import FORBIDDEN
from offsite.pools.protocol import Delete, Pool, Snapshot
from offsite.store.database import Database
from offsite.store.tables.access import maps
from offsite.store.tables.pools import images, snapshot_retention
from offsite.store.tables.replication import history_snapshots, set_members

BASENAME_BYTES_MAX = 26
GROUP_BASENAME_BYTES_MAX = 22  # the names of a group's snapshots also tell the member
COUNT_MIN, COUNT_MAX = 1, 16
_FORBIDDEN = FORBIDDEN + "."


def check_basename(text: str, *, of_group: bool = False) -> str:
    """Returns `text`, or raises BadParameter that tells which rule it breaks. Spaces may stand inside."""
    most = GROUP_BASENAME_BYTES_MAX if of_group else BASENAME_BYTES_MAX
    size = len(text.encode())
    if not text or size > most:
        whose = " for a volume group" if of_group else ""
        raise BadParameter(f"snapshot basename {text[:100]!r} has {size} bytes; 1 to {most} are allowed{whose}")
    bad = sorted({c for c in text if c in _FORBIDDEN or not c.isprintable()})
    if bad:
        raise BadParameter(f'snapshot basename {text!r} has {" ".join(map(repr, bad))}; none of " , . < \\ is allowed')
    if text != text.lstrip():
        raise BadParameter(f"snapshot basename {text!r} begins with a space; a volume's name may not")
    return text


def check_count(count: int) -> int:
    if not COUNT_MIN <= count <= COUNT_MAX:
        raise BadParameter(f"snapshot count {count} is not within {COUNT_MIN} to {COUNT_MAX}")
    return count


def snapshot_names(basename: str, number: int, members: int) -> list[str]:
    """basename_nnnn; for a group basename_nnnn-m, with m from 1."""
    name = f"{basename}_{number:04d}"
    return [name] if members == 1 else [f"{name}-{member}" for member in range(1, members + 1)]


class Keeping:
    """The history snapshots of one run, to be taken with one of its steps."""

    def __init__(self, set_id: int, run: str, number: int, names: Sequence[str], priority: str) -> None:
        self._set_id = set_id
        self._run = run
        self._number = number
        self._names = names
        self._priority = priority

    def changes(
        self, connection: Connection, sources: Sequence[int], parents: Sequence[int]
    ) -> tuple[list[Snapshot], Callable[[Connection], None]]:
        """The snapshots to take of `sources`, and the records to write with them. For a group all names must be
        free, or none is taken: half a group is no copy of anything."""
        taken = connection.execute(select(images.c.name).where(images.c.name.in_(self._names))).first()
        if taken is not None:
            return [], lambda _: None
        snapshots = [
            Snapshot(source, name, parent=parent)
            for source, name, parent in zip(sources, self._names, parents, strict=True)
        ]
        return snapshots, self._write

    def _write(self, connection: Connection) -> None:
        for (image_id,) in connection.execute(select(images.c.id).where(images.c.name.in_(self._names))).all():
            row = {"image_id": image_id, "set_id": self._set_id, "run": self._run, "number": self._number}
            connection.execute(insert(history_snapshots).values(row))
            if self._priority != "never-delete":
                connection.execute(insert(snapshot_retention).values(image_id=image_id, priority=self._priority))


def history_of(connection: Connection, set_id: int) -> list[tuple[int, int, str]]:
    """(image id, number, run) of a set's history snapshots on this side, oldest first."""
    table = history_snapshots
    chosen = select(table.c.image_id, table.c.number, table.c.run).where(table.c.set_id == set_id)
    return [(row[0], row[1], row[2]) for row in connection.execute(chosen.order_by(table.c.number, table.c.image_id))]


def forget_history(connection: Connection, set_id: int) -> None:
    connection.execute(delete(history_snapshots).where(history_snapshots.c.set_id == set_id))


def rotate(database: Database, pool: Pool, set_id: int, count: int) -> None:
    """Deletes what is beyond the newest `count`, but for what is mapped to a host, or in a set itself.

    It is a step of its own: were it one with the run's commit, a snapshot that somebody deletes at the same
    moment would make the run fail. What a crash leaves is found by the next run.
    """
    with database.read() as connection:
        held = history_of(connection, set_id)
        kept = _kept_numbers(held, count)
        doomed = [image_id for image_id, number, _ in held if number not in kept]
        spared = _needed(connection, doomed)
    for image_id in doomed:
        if image_id not in spared:
            try:
                pool.apply([Delete(image_id)])
            except (VolumeNotFound, InUse):
                continue  # someone deleted it just now, or made it a part of a set


def _kept_numbers(held: Sequence[tuple[int, int, str]], count: int) -> set[int]:
    return set(sorted({number for _, number, _ in held})[-count:])


def _needed(connection: Connection, image_ids: Sequence[int]) -> set[int]:
    mapped = select(maps.c.image_id).where(maps.c.image_id.in_(image_ids), maps.c.access != "no-access")
    members = select(set_members.c.image_id).where(set_members.c.image_id.in_(image_ids))
    return {row[0] for row in connection.execute(mapped)} | {row[0] for row in connection.execute(members)}
