"""A backend that cannot join the database's transaction: power fails at every step of a change."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from offsite.errors import NameInUse
from offsite.pools import tables
from offsite.pools.protocol import Change, Clone, Create, Delete, Pool, Rename, Replace, Resize, Snapshot
from tests.pools.backends import UNIT, World, content, write
from tests.pools.object_pool import ObjectBackend, PowerFailed, power_fails_before
from tests.pools.test_every_backend import SIZE, make, note, noted


def changes(volume: int, other: int) -> list[Change]:
    return [
        Snapshot(volume, "s"),
        Clone(volume, "c"),
        Replace(volume, other),
        Resize(-2, UNIT),
        Delete(other),
        Rename(volume, "new"),
        Create("n", SIZE),
    ]


def images(pool: Pool) -> dict[str, bytes]:
    return {each.name: content(pool, each.id) for each in pool.images()}


def objects_named(connection: Connection) -> set[str]:
    return set(connection.execute(select(tables.image_objects.c.object)).scalars())


def check_settled(world: World, backend: ObjectBackend) -> None:
    """The store has what images have, and nothing else; nothing is under way."""
    with world.database.read() as connection:
        assert set(backend.store.of("A")) == objects_named(connection)
        assert connection.execute(select(tables.pool_intents)).all() == []


@pytest.mark.parametrize("second_step", [None, 0, 1, 2])
def test_a_change_that_is_cut_at_any_step_is_whole_or_was_never(
    tmp_path: Path, empty_database: Path, second_step: int | None
) -> None:
    """Also when power fails again while the next start tidies up."""
    outcomes, step = set(), 0
    while True:
        directory = tmp_path / str(step)
        directory.mkdir()
        backend = ObjectBackend()
        world = World(backend, directory, empty_database)
        pool = world.create()
        volume, other = make(pool, "v", b"volume" * UNIT), make(pool, "w", b"other")
        pool.flush()
        before = images(pool)
        try:
            with power_fails_before(backend.store, step):
                pool.apply(changes(volume, other), lambda connection, _: note(connection, "done"))
        except PowerFailed:
            pass
        else:
            break
        crashed = world.crashed()
        if second_step is not None:
            with power_fails_before(backend.store, second_step), suppress(PowerFailed):
                crashed.open()  # which may have less to do
            crashed = crashed.crashed()
        found = crashed.open()
        is_done = noted(crashed) == "done"
        after = {
            "s": before["v"],
            "c": before["v"][:UNIT],
            "new": before["w"],
            "n": bytes(SIZE),
        }
        assert images(found) == (after if is_done else before)
        check_settled(crashed, backend)
        make(found, "goes-on", b"data")
        outcomes.add(is_done)
        step += 1
        world.close()
    assert outcomes == {False, True}
    assert step >= 8


def test_a_refused_change_leaves_no_object(tmp_path: Path, empty_database: Path) -> None:
    backend = ObjectBackend()
    world = World(backend, tmp_path, empty_database)
    pool, other = world.create(), world.create("B")
    volume = make(pool, "v", b"data")
    make(other, "taken")
    with pytest.raises(NameInUse):
        pool.apply([Snapshot(volume, "s"), Create("taken", SIZE)])
    with world.database.read() as connection:
        assert set(backend.store.of("A")) | set(backend.store.of("B")) == objects_named(connection)
    world.close()


def test_objects_that_an_older_database_does_not_know_are_left_alone(tmp_path: Path, empty_database: Path) -> None:
    """A database that was put back from a copy must not cost what was made since."""
    backend = ObjectBackend()
    world = World(backend, tmp_path, empty_database)
    pool = world.create()
    make(pool, "v", b"data")
    older = world.crashed()
    newer = make(pool, "w", b"newer")
    write(pool, newer, UNIT, b"more")
    pool.flush()
    known = set(backend.store.of("A"))
    older.open()
    assert set(backend.store.of("A")) == known
    world.close()
