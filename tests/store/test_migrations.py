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


def test_a_schedule_of_the_revision_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Database(path).close()
    with sqlite3.connect(path) as old:
        old.execute("DROP INDEX schedules_by_next_at")
        old.execute("ALTER TABLE schedules DROP COLUMN starting_at")
        old.execute("UPDATE alembic_version SET version_num = '0002'")
        old.execute("INSERT INTO tasks VALUES ('t', 'Replicate', NULL, NULL, 0, NULL, NULL, NULL, 1, 0, NULL, NULL)")
        old.execute("INSERT INTO schedules VALUES ('s', 'start 2027-01-04 10:00', 't', 0, 7, 0, NULL)")
    old.close()
    database = Database(path)
    with database.read() as connection:
        (kept,) = connection.exec_driver_sql("SELECT name, next_at, starting_at FROM schedules").all()
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    database.close()
    assert tuple(kept) == ("s", 7.0, None)
    assert differences == []
