"""Keeps a pool's data file and its rows in the database a pair, at any instant, also across a crash.

   database: previous, current      header of the data file
             g         g            g        as a start has left it
             g         g+1          g        a commit has renewed it: either of the two is the right one
             g         g+1          g+1      then the header is written; the next sync of the data makes it durable,
             g+1       g+2          g+1      and only the commit after that renews it again

A header with neither of the two was written with another database, or the database is of another time. It is
renewed, in both, at each start and at the end, and in between with the first commit after the log of the database
was written back: so a database that comes back without that log is noticed, and a flush costs nothing for it.
"""

from __future__ import annotations

import dataclasses

from sqlalchemy import Connection, select, update

from offsite.pools import tables
from offsite.pools.local.header import Generation, Header
from offsite.pools.local.page_store import PageStore
from offsite.store.database import Database
from offsite.store.tables import system as system_table


class Belonging:
    """All but the making of it, under the pool's commit lock."""

    def __init__(self, database: Database, store: PageStore, pool_id: int) -> None:
        self._database = database
        self._store = store
        self._pool_id = pool_id
        self._current = store.header.generation
        self._next = self._current
        self._is_written = True  # the header holds what is current
        self._checkpoints = self._next_checkpoints = -1

    def start(self) -> None:
        """A new generation in both, durably. Raises OSError or StateDirectoryError; the two are a pair then, too."""
        before = self._current
        new = before.next_start if before else Generation.first().next_start
        self._store.sync()  # after a process was killed, what the header says may be in memory only
        with self._database.transaction() as connection:
            self._record(connection, before, new)
        with self._database.read() as connection:
            system = connection.execute(select(system_table)).first()
            name = connection.execute(
                select(tables.pools.c.name).where(tables.pools.c.id == self._pool_id)
            ).scalar_one()
        header = dataclasses.replace(self._store.header, generation=new, pool_name=name)
        if system is not None:
            header = dataclasses.replace(header, system=_bytes(system.uuid), system_name=system.name)
        self._store.write_header(header)
        self._store.sync()
        with self._database.transaction() as connection:
            self._record(connection, new, new)
        self._current = self._next = new
        self._checkpoints = self._database.checkpoints

    def is_due(self) -> bool:
        """Asked between the sync of the data and the commit."""
        if not self._is_written:
            self._write()
            return False  # before it is durable the database must not forget the one before
        return self._checkpoints != self._database.checkpoints

    def renew(self, connection: Connection) -> None:
        """As a part of a commit; `renewed` is to follow it."""
        assert self._current is not None
        self._next_checkpoints = self._database.checkpoints
        self._next = self._current.next_stamp
        self._record(connection, self._current, self._next)

    def renewed(self) -> None:
        """After that commit."""
        self._current, self._checkpoints = self._next, self._next_checkpoints
        self._write()

    def finish(self) -> None:
        """At the end, when all is flushed. Raises OSError or StateDirectoryError; the two are a pair then, too."""
        self._store.sync()
        if not self._is_written:
            self._write()
            self._store.sync()
        if self._is_written:
            with self._database.transaction() as connection:
                self.renew(connection)
            self.renewed()
            self._store.sync()

    def _write(self) -> None:
        self._is_written = False
        header: Header = dataclasses.replace(self._store.header, generation=self._current)
        try:
            self._store.write_header(header)
        except OSError:
            return  # the header before is right as well; the next commit tries again, and a sick disk fails its sync
        self._is_written = True

    def _record(self, connection: Connection, previous: Generation | None, current: Generation) -> None:
        pools = tables.pools
        connection.execute(
            update(pools)
            .where(pools.c.id == self._pool_id)
            .values(previous_generation=previous.text if previous else None, generation=current.text)
        )


def _bytes(uuid_text: str) -> bytes:
    return bytes.fromhex(uuid_text.replace("-", ""))
