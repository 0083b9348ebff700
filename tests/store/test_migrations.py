"""What the migrations make is what the code expects: a table that is changed needs a migration."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from offsite.store.database import Database
from tests.store.every_table import metadata
from tests.store.old_databases import make_older


def test_the_migrations_make_the_tables_that_the_code_describes(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    try:
        with database.read() as connection:
            differences = compare_metadata(MigrationContext.configure(connection), metadata)
    finally:
        database.close()
    assert differences == []


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Database(path).close()
    before = path.read_bytes()
    Database(path).close()
    assert path.read_bytes() == before


def test_what_an_older_revision_holds_is_kept(tmp_path: Path) -> None:
    """A schedule, and a run that was cut while its hooks ran: what they have frozen must still thaw. The points that
    runs made are known as the set's own."""
    path = tmp_path / "state.db"
    make_older(path, "0002")
    with sqlite3.connect(path) as old:
        old.execute("INSERT INTO tasks VALUES ('t', 'Replicate', NULL, NULL, 0, NULL, NULL, NULL, 1, 0, NULL, NULL)")
        old.execute("INSERT INTO schedules VALUES ('s', 'start 2027-01-04 10:00', 't', 0, 7, 0, NULL)")
        old.execute("INSERT INTO points VALUES (1, 1, 'last', 'base', 5.0, NULL, 0, 0, '')")
        old.execute("INSERT INTO peers VALUES (1, 'P', 'p', 'P', 'p:1', x'00', 0, NULL, '')")
        sets = "id, uuid, name, role, state, peer_id, remote_pool, generation, created_at"
        old.execute(f"INSERT INTO replication_sets ({sets}) VALUES (1, 's', 'S', 'primary', 'ready', 1, 'A', 1, 0)")
        for uuid, state in (("last", "success"), ("old", "success"), ("cut", "preparing"), ("sent", "running")):
            columns = "uuid, set_id, state, started_at, changed_bytes, wire_bytes"
            old.execute(f"INSERT INTO runs ({columns}) VALUES (?, 1, ?, 0, 0, 0)", (uuid, state))
    old.close()
    database = Database(path)
    with database.read() as connection:
        (kept,) = connection.exec_driver_sql("SELECT name, next_at, starting_at FROM schedules").all()
        due = connection.exec_driver_sql("SELECT uuid, after_snapshot_due FROM runs ORDER BY uuid").all()
        had = connection.exec_driver_sql("SELECT number, uuid, taken_at FROM recovery_points ORDER BY number").all()
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    database.close()
    assert tuple(kept) == ("s", 7.0, None)
    assert [tuple(row) for row in due] == [("cut", 1), ("last", 0), ("old", 0), ("sent", 0)]
    assert [tuple(row) for row in had] == [(1, "old", 0.0), (2, "last", 5.0)], "the base is the newest"
    assert differences == []


def test_users_and_events_of_an_older_revision_are_kept_and_no_two_users_have_one_generation(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    make_older(path, "0005")
    with sqlite3.connect(path) as old:
        for name in ("anna", "otto"):
            old.execute("INSERT INTO users VALUES (?, 'hash', 'manage', 0)", (name,))
        old.execute("INSERT INTO events VALUES (7, 0, 602, 0, 'User anna was created.', '')")
    old.close()
    database = Database(path)
    with database.read() as connection:
        generations = connection.exec_driver_sql("SELECT generation FROM users").scalars().all()
        event = connection.exec_driver_sql("SELECT id, ring FROM events").one()
    database.close()
    assert len(set(generations)) == 2
    assert all(len(each) == 32 for each in generations)
    assert tuple(event) == (7, "system")


def test_pools_of_an_older_revision_and_what_is_left_of_deleted_ones_are_local(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    make_older(path, "0012")
    with sqlite3.connect(path) as old:
        old.execute(
            "INSERT INTO pools VALUES (1, 'p', 'A', 'pool-A.data', 16384, 1 << 20, 1, 50, 75, 90, 0, NULL, NULL)"
        )
        old.execute("INSERT INTO pool_remains VALUES ('q', 'pool-B.data')")
    old.close()
    database = Database(path)
    with database.read() as connection:
        backends = [
            connection.exec_driver_sql(f"SELECT backend FROM {table}").scalar() for table in ("pools", "pool_remains")
        ]
    database.close()
    assert backends == ["local", "local"]
