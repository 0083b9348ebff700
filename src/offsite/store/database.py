"""The one database of a system: opening, migrating, and transactions.

WAL with synchronous=FULL: a transaction that was committed survives power loss. There is one writing
connection behind a lock, for there is one writer at a time in SQLite anyhow. Every reader gets a connection
of its own: it waits for nobody, neither for the disk sync of a commit nor for another reader, who might be
waiting for a lock that it holds.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.pool import QueuePool

from offsite.errors import RESTORE_WHOLE, StateDirectoryError, StateDirectoryFull
from offsite.store.free_space import file_system, mount_point
from offsite.store.log_check import check_log
from offsite.store.reserve import Reserve, takes_no_more
from offsite.units import format_size

APPLICATION_ID = 0x4F464653  # "OFFS", in bytes 68 to 71 of the file: tells ours from any other SQLite database
CHECKPOINT_PAGES_MAX = 32768  # a commit that finds so many pages (128 MiB) in the WAL writes them back itself
READERS_KEPT = 8  # open connections that are kept for the next reader
_APPLICATION_ID_AT = slice(68, 72)
_MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """Transactions on the state database. Safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        """Opens the database at `path`, makes it if it is not there, migrates it to this version.

        Raises StateDirectoryError, having written nothing, for a file that is not ours, is damaged, comes from a
        newer version, or has the log of another.
        """
        _refuse_foreign(path)
        check_log(path)
        _make_private(path)
        self.path = path
        self.checkpoints = 0  # how often all of the log was written back
        self.reserve = Reserve(path.parent)
        self.reserve.make_room()
        self._engine = _engine(path)
        self._write_lock = threading.RLock()
        self._round = self._written_back = ""
        try:
            with self._errors_told():
                self._writer = self._engine.connect()
                try:
                    _migrate(self._writer, path)
                    self._round = self._read_round()
                    self._write_back()
                except BaseException:
                    self._writer.close()
                    raise
        except StateDirectoryError:
            self._engine.dispose()
            raise

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction: committed durably at the end of the block, rolled back when the block raises.

        Nested use in the same thread joins the outer transaction. Inside the block nothing else may be
        waited for, least of all a change of a pool, which ends in a transaction itself.

        Raises StateDirectoryError when SQLite cannot go on: the disk is full or fails, or the file is damaged.
        A broken rule of a table stays SQLAlchemy's IntegrityError.
        """
        with self._write_lock:
            if self._writer.in_transaction():
                yield self._writer
                return
            self.make_room()
            with self._errors_told():
                try:
                    with self._writer.begin():
                        before = self._changes()
                        yield self._writer
                        new_round = self._round if self._changes() == before else self._begin_round()
                    self._round = new_round
                except BaseException:
                    self._end_failed_commit()
                    raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A view of what is committed; waits for nobody. Raises StateDirectoryError as `transaction` does."""
        self.reserve.make_room()  # a reader writes, too: its mark in the index of the WAL
        with self._errors_told(), self._engine.connect() as connection, connection.begin():
            yield connection

    def make_room(self, needed_bytes: int = 0) -> None:
        """Before a commit of so many bytes: where the disk has hardly any left, the WAL is written back, so that it
        is written again from its start, and the reserve is given up."""
        if self.reserve.is_room(needed_bytes):
            return
        self.reserve.give_up()
        with contextlib.suppress(StateDirectoryError):  # the commit itself will tell
            self.checkpoint()

    def checkpoint(self) -> None:
        """Writes back what commits left in the WAL: called now and then, so that no commit has to."""
        with self._errors_told():
            self._write_back()

    def _write_back(self) -> None:
        before = self._round
        with self._engine.connect() as connection:  # outside any transaction
            busy, in_log, done = connection.connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if not busy and in_log == done:
            self._written_back = before
            self.checkpoints += 1

    def _read_round(self) -> str:
        with self._writer.begin():
            return str(self._writer.exec_driver_sql("SELECT round FROM database_log").scalar_one())

    def _changes(self) -> int:
        connection = self._writer.connection.dbapi_connection
        return int(connection.total_changes) if connection is not None else 0

    def _begin_round(self) -> str:
        """In the first transaction after all was written back: see offsite.store.log_check."""
        if self._written_back != self._round:
            return self._round
        new = uuid.uuid4().hex
        self._writer.exec_driver_sql("UPDATE database_log SET written_back = round, round = ?", (new,))
        return new

    def close(self) -> None:
        with self._write_lock:
            self._writer.close()
            self._engine.dispose()

    def _end_failed_commit(self) -> None:
        """SQLite leaves a transaction open when its commit fails; SQLAlchemy takes it to be over."""
        connection = self._writer.connection.dbapi_connection
        if connection is not None and connection.in_transaction:
            connection.rollback()

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except (DatabaseError, sqlite3.DatabaseError) as error:
            cause = error.orig if isinstance(error, DatabaseError) else error
            code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the rest tells where in SQLite it arose
            damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            if self._is_full(cause):
                raise StateDirectoryFull(self._full_sentence(cause)) from error
            raise StateDirectoryError(
                f"{self.path} is damaged: {cause}; {RESTORE_WHOLE}"
                if damaged
                else f"{self.path} cannot be used: {cause}; nothing was changed; check its disk"
            ) from error

    def _is_full(self, cause: object) -> bool:
        """A quota that is used up is told by SQLite as any other failed write: so is a disk that fails."""
        code = getattr(cause, "sqlite_errorcode", 0)
        if code in (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE):
            return takes_no_more(self.path.parent)
        return code & 0xFF == sqlite3.SQLITE_FULL

    def _full_sentence(self, cause: object) -> str:
        disk = file_system(self.path.parent)
        return (
            f"{self.path} cannot be used: {cause}; the file system at {mount_point(self.path.parent)}, or a quota on "
            f"it, is full ({format_size(disk.free_bytes)} free); nothing was changed; free space on it"
        )


def _refuse_foreign(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateDirectoryError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        return  # power failed when it had just been made
    if not head.startswith(b"SQLite format 3\0"):
        raise StateDirectoryError(f"{path} is not a SQLite database; it is damaged, or another program's")
    if head[_APPLICATION_ID_AT] != APPLICATION_ID.to_bytes(4, "big"):
        raise StateDirectoryError(f"{path} is a SQLite database of another program, not of Offsite")


def _make_private(path: Path) -> None:
    """SQLite gives the log and its index the mode that the database has."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if each.exists() and stat.S_IMODE(each.stat().st_mode) != 0o600:
                each.chmod(0o600)
    except OSError as error:
        raise StateDirectoryError(f"the mode of {path} cannot be changed to 0600: {error.strerror}") from error


def _engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=READERS_KEPT + 1,
        max_overflow=-1,
        connect_args={"check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's BEGIN below is the only one
        for pragma in (
            "busy_timeout=10000",
            "synchronous=FULL",
            "foreign_keys=ON",
            "temp_store=MEMORY",  # another disk that is full must not fail a commit
            f"wal_autocheckpoint={CHECKPOINT_PAGES_MAX}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
            # Only in a new database: setting it writes, even to what it was.
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def check_revision(revision: str, path: Path) -> None:
    """Raises StateDirectoryError for one that this version does not know."""
    if revision not in {each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions()}:
        raise StateDirectoryError(
            f"{path} is of a newer version of Offsite (revision {revision}); start that version or a newer one"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _migrate(connection: Connection, path: Path) -> None:
    config = _config()
    with connection.begin():
        current = MigrationContext.configure(connection).get_current_revision()
    if current is not None:
        check_revision(current, path)
    if current == ScriptDirectory.from_config(config).get_current_head():
        return
    config.attributes["connection"] = connection
    with connection.begin():
        command.upgrade(config, "head")
