"""The directory that a system lives in: whose it is, whether it is whole, and that one process has it.

absent, empty, or a first start that never got to its database   ──► new: made private
with a state.db of ours, and the data files that it names        ──► taken
anything else                                                    ──► refused, untouched
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offsite.errors import RESTORE_WHOLE, StateDirectoryError
from offsite.management.startup import first_password
from offsite.management.startup.ownership import check_alone, check_owner
from offsite.pools import registry
from offsite.pools.backend import Attached
from offsite.store.database import APPLICATION_ID, check_revision
from offsite.store.log_check import check_log, has_log, reading

DATABASE, LOCK, KEYS = "state.db", "lock", "keys"
KEY_FILES = ("ca.pem", "ca-key.pem", "system.pem", "system-key.pem")
_BEFORE_FIRST_COMMIT = {LOCK, DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"}


@dataclass
class StateDirectory:
    """A directory that this process has for itself until `release`."""

    path: Path
    locks: tuple[int, ...]  # descriptors
    attached: dict[str, Attached] = field(default_factory=dict)  # by pool: what is not taken over by it yet

    @property
    def database_path(self) -> Path:
        return self.path / DATABASE

    @property
    def keys_path(self) -> Path:
        return self.path / KEYS

    def sign(self) -> None:
        """Writes down which process has it, for the one that comes second. The last check is behind us."""
        os.ftruncate(self.locks[0], 0)
        os.pwrite(self.locks[0], f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        for each in self.attached.values():
            each.close()
        for lock in self.locks:
            os.close(lock)


def take(path: Path, *, keys_may_be_missing: bool = False) -> StateDirectory:
    """Raises StateDirectoryError, with nothing changed, for a directory that is foreign, damaged or in use."""
    path = path.absolute()
    try:
        if _is_new(path):
            path.mkdir(mode=0o700, exist_ok=True)
            check_owner(path, path)
            path.chmod(0o700)
        else:
            check_alone(path, path)
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
        raise StateDirectoryError(f"{path} is not a directory; give an empty directory, or one that does not exist yet")
    names = {entry.name for entry in path.iterdir()}
    database = path / DATABASE
    is_begun = database.exists() and database.stat().st_size > 0
    if not is_begun and has_log(database):
        raise StateDirectoryError(
            f"{database} is missing or empty, but its log {DATABASE}-wal exists; {RESTORE_WHOLE}; nothing was changed"
        )
    if names <= _BEFORE_FIRST_COMMIT and not is_begun:
        return True
    if DATABASE not in names:
        some = ", ".join(sorted(names)[:3])
        raise StateDirectoryError(
            f"{path} is not a state directory: it has no {DATABASE}, but {some}; give an empty directory, or one that "
            "does not exist yet"
        )
    return False


def _lock(path: Path) -> tuple[int, ...]:
    """Two locks that end with the process, however that ends: one on a file that tells who has it, and one on the
    directory itself, which nobody can delete by mistake."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    locks = [descriptor]
    try:
        locks.append(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for lock in locks:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        for lock in locks:
            os.close(lock)
        if not isinstance(error, BlockingIOError):
            raise
        raise StateDirectoryError(
            f"{path.parent} is in use by process {holder or 'unknown'}; stop that process first"
        ) from error
    return tuple(locks)


def _check(directory: StateDirectory, keys_may_be_missing: bool) -> None:
    """Reads all that a start depends on without changing any of it, and takes what holds the data of pools."""
    path = directory.database_path
    with path.open("rb") as file:
        head = file.read(100)
    if not head.startswith(b"SQLite format 3\0"):
        raise StateDirectoryError(
            f"{path} is not a SQLite database: it is damaged, or another program's; {RESTORE_WHOLE}"
        )
    if head[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        raise StateDirectoryError(f"{path} is a SQLite database of another program, not of Offsite")
    check_log(path)
    try:
        with reading(path, with_log=has_log(path)) as connection:
            connection.row_factory = sqlite3.Row
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            _check_database(connection, path)
            if not tables:
                return  # a first start that was cut before its first commit
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            check_revision(revision, path)
            is_older = "database_log" not in tables  # then it may still have the mode that the umask gave it
            _check_files(directory, [] if is_older else [DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"])
            system = connection.execute("SELECT uuid FROM system").fetchone()
            _attach_pools(directory, connection, system["uuid"] if system else None)
            if system and not keys_may_be_missing:
                check_keys(directory.path)
    except sqlite3.DatabaseError as error:
        raise StateDirectoryError(f"{path} is damaged: {error}; {RESTORE_WHOLE}; nothing was changed") from error


def _check_database(connection: sqlite3.Connection, path: Path) -> None:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise StateDirectoryError(f"{path} is damaged: {found}; {RESTORE_WHOLE}; nothing was changed")


def _check_files(directory: StateDirectory, names: list[str]) -> None:
    names = [LOCK, first_password.FILE, *names]
    for each in (directory.keys_path, *directory.keys_path.glob("*"), *(directory.path / name for name in names)):
        if each.exists():
            check_alone(each, directory.path)


def _attach_pools(directory: StateDirectory, connection: sqlite3.Connection, system_uuid: str | None) -> None:
    for row in connection.execute("SELECT * FROM pools"):
        pool: dict[str, Any] = dict(row)
        backend = registry.backend_of_row(pool)
        for each in backend.private_files(directory.path, pool):
            check_alone(each, directory.path)
        attached = backend.attach(directory.path, pool, system_uuid)
        if attached is not None:
            directory.attached[pool["name"]] = attached


def check_keys(directory: Path) -> None:
    """Of a system that has had its first start: new keys would make it a stranger to its peers and hosts.

    Raises StateDirectoryError.
    """
    for name in KEY_FILES:
        path = directory / KEYS / name
        if not path.is_file():
            raise StateDirectoryError(
                f"{path} is missing; peers and hosts identify the system by it; restore it from a copy, or start once "
                "with --new-keys and then log in to peers and set up hosts again"
            )
