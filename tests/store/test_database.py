"""The state database: what it refuses, what a transaction promises, and who waits for whom."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from offsite.errors import OffsiteError, StateDirectoryError, StateDirectoryFull
from offsite.store import database as database_module
from offsite.store.database import APPLICATION_ID, Database
from tests.store.every_table import metadata

SYSTEM = "INSERT INTO system (id, uuid, name, created_at) VALUES (?, 'u', ?, 0)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(path)
    yield database
    database.close()


def names(connection: Connection) -> list[str]:
    return [row.name for row in connection.exec_driver_sql("SELECT name FROM system ORDER BY id")]


def digests(path: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.parent.glob("state.db*")}


def refused(path: Path) -> str:
    """Opening is refused, nothing in the directory is changed, and no connection stays open."""
    before = digests(path)
    with pytest.raises(StateDirectoryError) as caught:
        Database(path)
    assert digests(path) == before
    return str(caught.value)


# -- opening ---------------------------------------------------------------------------------------------


def test_a_new_database_has_all_tables_and_survives_reopening(path: Path) -> None:
    first = Database(path)
    with first.transaction() as connection:
        connection.exec_driver_sql(SYSTEM, (1, "London"))
    first.close()
    again = Database(path)
    with again.read() as connection:
        assert names(connection) == ["London"]
        for table in metadata.tables.values():
            connection.execute(select(table)).all()
        assert connection.exec_driver_sql("PRAGMA application_id").scalar() == APPLICATION_ID
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    again.close()


def test_an_empty_file_is_a_database_that_was_never_begun(path: Path) -> None:
    """Power may fail between making the file and its first page: that must not lock the user out."""
    path.touch()
    Database(path).close()


def test_garbage_is_refused(path: Path) -> None:
    path.write_bytes(b"\x89PNG" + bytes(8192))
    assert "is not a SQLite database" in refused(path)


def test_a_foreign_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    assert "not of Offsite" in refused(path)


def test_damaged_pages_are_refused(path: Path) -> None:
    Database(path).close()
    data = bytearray(path.read_bytes())
    data[100:] = b"\xa5" * (len(data) - 100)
    path.write_bytes(data)
    assert "damaged" in refused(path)


def test_a_cut_database_is_refused(path: Path) -> None:
    Database(path).close()
    path.write_bytes(path.read_bytes()[:4096])
    assert "damaged" in refused(path)


def test_a_newer_revision_is_refused_untouched(path: Path) -> None:
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    message = refused(path)
    assert "newer version" in message
    assert "9999" in message


def test_opening_again_writes_nothing(path: Path) -> None:
    """A reader must not have to wait for the writer to open, nor an old backup be touched by a look at it."""
    Database(path).close()
    before = digests(path)
    Database(path).close()
    assert digests(path) == before


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.parent.rmdir()], ids=["a directory", "no directory"])
def test_what_cannot_be_opened_is_named(path: Path, make) -> None:  # type: ignore[no-untyped-def]
    make(path)
    with pytest.raises(StateDirectoryError, match=str(path)):
        Database(path)


def test_a_failing_migration_leaves_the_database_as_it_was(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration is one transaction: half of one must never be found at the next start."""
    Database(path).close()
    migrations = tmp_path / "migrations"
    _copy(database_module._MIGRATIONS, migrations)
    broken = "revision = '0999'\ndown_revision = {!r}\nfrom alembic import op\ndef upgrade():\n{}"
    steps = "    op.execute('CREATE TABLE half (a)')\n    op.execute('nonsense')\n"
    (migrations / "versions" / "0999_broken.py").write_text(broken.format(_head(), steps))
    monkeypatch.setattr(database_module, "_MIGRATIONS", migrations)
    with pytest.raises(StateDirectoryError, match="nonsense"):
        Database(path)
    monkeypatch.undo()
    database = Database(path)
    with database.read() as connection:
        assert not connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'half'").all()
    database.close()


def test_a_migration_brings_an_older_database_up(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Database(path)
    with first.transaction() as connection:
        connection.exec_driver_sql(SYSTEM, (1, "London"))
    first.close()
    migrations = tmp_path / "migrations"
    _copy(database_module._MIGRATIONS, migrations)
    newer = "revision = '0999'\ndown_revision = {!r}\nfrom alembic import op\ndef upgrade():\n{}"
    steps = "    op.execute(\"ALTER TABLE system ADD COLUMN motto VARCHAR DEFAULT 'keep two copies'\")\n"
    (migrations / "versions" / "0999_motto.py").write_text(newer.format(_head(), steps))
    monkeypatch.setattr(database_module, "_MIGRATIONS", migrations)
    database = Database(path)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT name, motto FROM system").all() == [("London", "keep two copies")]
    database.close()
    monkeypatch.undo()
    assert "newer version" in refused(path)


def _copy(source: Path, target: Path) -> None:
    for file in source.rglob("*.py*"):
        if file.suffix != ".pyc":
            (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / file.relative_to(source)).write_bytes(file.read_bytes())


def _head() -> str:
    return max(file.name[:4] for file in (database_module._MIGRATIONS / "versions").glob("*.py"))


# -- transactions ------------------------------------------------------------------------------------------


def test_a_transaction_that_raises_changes_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:
        connection.exec_driver_sql(SYSTEM, (1, "London"))
        raise ZeroDivisionError
    with database.read() as connection:
        assert names(connection) == []


def test_a_nested_transaction_joins_the_outer_one(database: Database) -> None:
    with database.transaction() as outer:
        outer.exec_driver_sql(SYSTEM, (1, "London"))
        with database.transaction() as inner:
            assert inner is outer
            inner.exec_driver_sql(SYSTEM, (2, "Newark"))
        with database.read() as connection:
            assert names(connection) == []  # the end of the inner block committed nothing
    with database.read() as connection:
        assert names(connection) == ["London", "Newark"]
    with pytest.raises(ZeroDivisionError), database.transaction() as outer:
        with database.transaction() as inner:
            inner.exec_driver_sql(SYSTEM, (3, "Oslo"))
        raise ZeroDivisionError
    with database.read() as connection:
        assert names(connection) == ["London", "Newark"]


def test_a_transaction_of_another_thread_waits(database: Database) -> None:
    order = []

    def other() -> None:
        with database.transaction() as connection:
            order.append("other")
            connection.exec_driver_sql(SYSTEM, (2, "Newark"))

    thread = threading.Thread(target=other)
    with database.transaction() as connection:
        thread.start()
        thread.join(0.05)
        connection.exec_driver_sql(SYSTEM, (1, "London"))
        order.append("first")
    thread.join(10)
    assert order == ["first", "other"]


def test_reads_wait_for_nobody(database: Database) -> None:
    """Neither for a transaction under way nor for another read: whoever holds a lock of the pool may read."""
    with database.transaction() as connection, database.read():
        connection.exec_driver_sql(SYSTEM, (1, "London"))
        seen: list[list[str]] = []

        def other() -> None:
            with database.read() as connection, database.read() as nested:
                seen.append(names(connection) + names(nested))

        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        thread.join(10)
        assert seen == [[]]


def test_a_broken_rule_is_told_as_such_and_changes_nothing(database: Database) -> None:
    """Also one that SQLite checks only at the commit: the connection must be good for the next transaction."""
    with pytest.raises(IntegrityError), database.transaction() as connection:
        connection.exec_driver_sql(SYSTEM, (1, "London"))
        connection.exec_driver_sql(SYSTEM, (1, "Newark"))
    with pytest.raises(IntegrityError), database.transaction() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        connection.exec_driver_sql("INSERT INTO maps (image_id, initiator, access) VALUES (77, '', 'read-only')")
    with database.transaction() as connection:
        assert names(connection) == []
        connection.exec_driver_sql(SYSTEM, (1, "Oslo"))
    with database.read() as connection:
        assert names(connection) == ["Oslo"]


def test_a_full_disk_is_told_and_changes_nothing(database: Database) -> None:
    with database.transaction() as connection:
        connection.exec_driver_sql(SYSTEM, (1, "London"))
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StateDirectoryError, match="full"), database.transaction() as connection:
        connection.exec_driver_sql(SYSTEM, (2, "n" * 100_000))
    with database.transaction() as connection:
        assert names(connection) == ["London"]
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
        connection.exec_driver_sql(SYSTEM, (2, "n" * 100_000))


@pytest.mark.parametrize(
    ("why", "told"),
    [(errno.EDQUOT, StateDirectoryFull), (errno.ENOSPC, StateDirectoryFull), (errno.EIO, StateDirectoryError)],
)
def test_a_failed_write_is_told_as_a_full_disk_only_if_it_is_one(
    database: Database, monkeypatch: pytest.MonkeyPatch, why: int, told: type[OffsiteError]
) -> None:
    """SQLite tells a quota that is used up and a disk that fails alike; hosts would be told to free space."""

    def fails(*_: int) -> None:
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(os, "posix_fallocate", fails)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # a write fails, for a reason that is none of SQLite's
    try:
        with pytest.raises(StateDirectoryError) as caught, database.transaction() as connection:
            connection.exec_driver_sql(SYSTEM, (1, "one"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.type is told
    with database.transaction() as connection:
        connection.exec_driver_sql(SYSTEM, (1, "one"))


def test_damage_found_later_is_told(path: Path) -> None:
    database = Database(path)
    with database.transaction() as connection:
        for number in range(1, 2000):
            connection.exec_driver_sql(SYSTEM, (number, "n" * 1000))
    database.close()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4] + b"\xa5" * (len(data) - len(data) * 3 // 4))
    database = Database(path)
    with pytest.raises(StateDirectoryError, match="damaged"), database.read() as connection:
        names(connection)
    database.close()


def test_a_read_that_fails_leaves_the_next_one_well(database: Database) -> None:
    with pytest.raises(StateDirectoryError), database.read() as connection:
        connection.exec_driver_sql("SELECT * FROM no_such_table")
    with database.read() as connection:
        assert names(connection) == []


# -- the write-ahead log ----------------------------------------------------------------------------------------


def rows_without_the_log(path: Path, directory: Path) -> int:
    """What the main file alone holds."""
    directory.mkdir()
    (directory / "state.db").write_bytes(path.read_bytes())
    with sqlite3.connect(directory / "state.db") as connection:
        count: int = connection.execute("SELECT count(*) FROM system").fetchone()[0]
    connection.close()
    return count


def test_commits_leave_the_log_to_the_checkpoint(database: Database, path: Path, tmp_path: Path) -> None:
    """Or a host's flush would now and then wait for all that others have written."""
    database.checkpoint()
    for number in range(1, 1200):
        with database.transaction() as connection:
            connection.exec_driver_sql(SYSTEM, (number, "n" * 2000))
    assert rows_without_the_log(path, tmp_path / "before") == 0
    database.checkpoint()
    assert rows_without_the_log(path, tmp_path / "after") == 1199


def test_a_checkpoint_that_fails_is_told_and_loses_nothing(database: Database, path: Path) -> None:
    with database.transaction() as connection:
        connection.exec_driver_sql(SYSTEM, (1, "n" * 100_000))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))  # the main file cannot grow
    try:
        with pytest.raises(StateDirectoryError, match="cannot be used"):
            database.checkpoint()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    database.checkpoint()
    with database.read() as connection:
        assert names(connection) == ["n" * 100_000]
