"""What the migrations make is what the code expects: a table that is changed needs a migration."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from offsite.store.database import Database
from offsite.store.tables import metadata


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
    """A schedule, and a run that was cut while its hooks ran: what they have frozen must still thaw."""
    path = tmp_path / "state.db"
    Database(path).close()
    with sqlite3.connect(path) as old:
        old.execute("ALTER TABLE runs DROP COLUMN after_snapshot_due")
        old.execute("DROP INDEX schedules_by_next_at")
        old.execute("ALTER TABLE schedules DROP COLUMN starting_at")
        old.execute("UPDATE alembic_version SET version_num = '0002'")
        old.execute("INSERT INTO tasks VALUES ('t', 'Replicate', NULL, NULL, 0, NULL, NULL, NULL, 1, 0, NULL, NULL)")
        old.execute("INSERT INTO schedules VALUES ('s', 'start 2027-01-04 10:00', 't', 0, 7, 0, NULL)")
        for uuid, state in (("cut", "preparing"), ("sent", "running")):
            columns = "uuid, set_id, state, started_at, changed_bytes, wire_bytes"
            old.execute(f"INSERT INTO runs ({columns}) VALUES (?, 1, ?, 0, 0, 0)", (uuid, state))
    old.close()
    database = Database(path)
    with database.read() as connection:
        (kept,) = connection.exec_driver_sql("SELECT name, next_at, starting_at FROM schedules").all()
        due = connection.exec_driver_sql("SELECT uuid, after_snapshot_due FROM runs ORDER BY uuid").all()
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    database.close()
    assert tuple(kept) == ("s", 7.0, None)
    assert [tuple(row) for row in due] == [("cut", 1), ("sent", 0)]
    assert differences == []
