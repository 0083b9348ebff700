"""What the migrations make is what the code expects: a table that is changed needs a migration."""

from __future__ import annotations

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
