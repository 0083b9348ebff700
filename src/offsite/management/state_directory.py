"""The directory that a system lives in: whose it is, whether it is whole, and that one process has it.

absent, empty, or a first start that never got to its database   ──► new: made private
with a state.db of ours, and the data files that it names        ──► taken
anything else                                                    ──► refused, untouched
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from offsite.errors import StateDirectoryError
from offsite.store.database import APPLICATION_ID
from offsite.units import format_size

DATABASE, LOCK, KEYS = "state.db", "lock", "keys"
KEY_FILES = ("ca.pem", "ca-key.pem", "system.pem", "system-key.pem")
_BEFORE_FIRST_COMMIT = {LOCK, DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"}


@dataclass
class StateDirectory:
    """A directory that this process has for itself until `release`."""

    path: Path
    lock: int  # descriptor

    @property
    def database_path(self) -> Path:
        return self.path / DATABASE

    @property
    def keys_path(self) -> Path:
        return self.path / KEYS

    def sign(self) -> None:
        """Writes down which process has it, for the one that comes second. The last check is behind us."""
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self.lock)


def take(path: Path, *, keys_may_be_missing: bool = False) -> StateDirectory:
    """Raises StateDirectoryError, with nothing changed, for a directory that is foreign, damaged or in use."""
    path = path.absolute()
    try:
        if _is_new(path):
            path.mkdir(mode=0o700, exist_ok=True)
            path.chmod(0o700)
        directory = StateDirectory(path, _lock(path / LOCK))
    except OSError as error:
        raise StateDirectoryError(f"{error.filename or path} cannot be used: {error.strerror or error}") from error
    try:
        if _is_new(path):
            directory.database_path.unlink(missing_ok=True)
        else:
            _check(directory, keys_may_be_missing)
    except BaseException:
        directory.release()
        raise
    return directory


def _is_new(path: Path) -> bool:
    if not path.exists():
        return True
    if not path.is_dir():
        raise StateDirectoryError(f"{path} is not a directory; give one that is empty, or that does not exist yet")
    names = {entry.name for entry in path.iterdir()}
    database = path / DATABASE
    if names <= _BEFORE_FIRST_COMMIT and (not database.exists() or database.stat().st_size == 0):
        return True
    if DATABASE not in names:
        some = ", ".join(sorted(names)[:3])
        raise StateDirectoryError(
            f"{path} is not a state directory: it has no {DATABASE}, but {some}; give an empty directory, or one that "
            "does not exist yet"
        )
    return False


def _lock(path: Path) -> int:
    """A lock that ends with the process, however that ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise StateDirectoryError(
            f"{path.parent} is in use by process {holder or 'unknown'}; stop that one first"
        ) from error
    return descriptor


def _check(directory: StateDirectory, keys_may_be_missing: bool) -> None:
    """Reads the database without writing to it. After a crash its journal has to be played first: then opening
    it, and the pools, finds what is wrong."""
    path = directory.database_path
    with path.open("rb") as file:
        head = file.read(100)
    if not head.startswith(b"SQLite format 3\0"):
        raise StateDirectoryError(f"{path} is not a SQLite database: it is damaged, or not Offsite's")
    if head[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        raise StateDirectoryError(f"{path} is a SQLite database, but not one of Offsite")
    journal = path.with_name(f"{DATABASE}-wal")
    if journal.exists() and journal.stat().st_size:
        return
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
        try:
            _check_database(connection, path)
            _check_data_files(connection, directory.path)
            if not keys_may_be_missing and connection.execute("SELECT count(*) FROM system").fetchone()[0]:
                check_keys(directory.path)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise StateDirectoryError(f"{path} is damaged: {error}; restore it from a copy") from error


def _check_database(connection: sqlite3.Connection, path: Path) -> None:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise StateDirectoryError(f"{path} is damaged: {found}; restore it from a copy")


def _check_data_files(connection: sqlite3.Connection, directory: Path) -> None:
    for name, relative, size_bytes in connection.execute("SELECT name, path, size_bytes FROM pools"):
        path = directory / relative
        if path.is_block_device():
            continue  # opening the pool looks at its size
        if not path.is_file():
            raise StateDirectoryError(f"{path}, the data of pool {name}, is missing; restore it from a copy")
        there = path.stat().st_size
        if there < size_bytes:
            raise StateDirectoryError(
                f"{path}, the data of pool {name}, has {format_size(there)} and should have {format_size(size_bytes)}; "
                "it was cut, restore it from a copy"
            )


def check_keys(directory: Path) -> None:
    """Of a system that has had its first start: new keys would make it a stranger to its peers and hosts.

    Raises StateDirectoryError.
    """
    for name in KEY_FILES:
        path = directory / KEYS / name
        if not path.is_file():
            raise StateDirectoryError(
                f"{path} is missing; peers and hosts know the system by it; restore it from a copy, or start once with "
                "--new-keys and make it known to them again"
            )
