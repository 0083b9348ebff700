"""Whether the log of the database, state.db-wal, belongs to the state.db that it lies beside.

SQLite plays any log into any database: after a crash, a state.db that was put back from a copy beside the log of the
newer one would become a mixture of both. So the log says which state the file is in that it goes on from.

   all is written back from the log to the file, which holds round R  ──►  the next transaction begins a new log: in it
   R becomes `written_back`, and a new `round` is drawn  ──►  until the file holds that one as well, it holds R
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from offsite.errors import RESTORE_WHOLE, DoNotBelongTogether


@contextmanager
def reading(path: Path, *, with_log: bool = True) -> Iterator[sqlite3.Connection]:
    """The database, changed in no byte; with what its log adds, or as the file is by itself.

    The index of the log, state.db-shm, is made for that, and removed again.
    """
    index = path.with_name(f"{path.name}-shm")
    was_there = index.exists()
    uri = f"file:{quote(str(path))}?mode=ro{'' if with_log else '&immutable=1'}"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection
    finally:
        if with_log and not was_there:
            index.unlink(missing_ok=True)


def has_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def check_log(path: Path) -> None:
    """Raises DoNotBelongTogether, with nothing changed. Of a damaged database nothing can be told here."""
    if not has_log(path):
        return
    try:
        with reading(path) as connection:
            with_log = _rounds(connection)
        with reading(path, with_log=False) as connection:
            alone = _rounds(connection)
    except sqlite3.DatabaseError:
        return
    if with_log is None and alone is None:
        return  # of an older version
    if with_log is not None and (alone[0] if alone else None) in with_log:
        return  # (a file without rounds belongs to a log that has brought them: nothing was written back since)
    raise DoNotBelongTogether(
        f"{path} and its log {path.name}-wal do not belong together: one of them is from another time or another "
        f"system; {RESTORE_WHOLE}; nothing was changed"
    )


def _rounds(connection: sqlite3.Connection) -> tuple[str, str | None] | None:
    try:
        cursor = connection.execute("SELECT round, written_back FROM database_log")
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    row: tuple[str, str | None] | None = cursor.fetchone()
    return row
