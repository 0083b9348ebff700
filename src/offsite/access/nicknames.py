"""Nicknames of initiators: one for each, unique, and kept until it is deleted."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from offsite.access.tables import initiators as table
from offsite.errors import InitiatorNotFound, LimitReached, NameInUse
from offsite.escaping import shown
from offsite.store.database import Database

NICKNAMES_MAX = 1024


def set_nickname(database: Database, initiator: str, nickname: str) -> None:
    """Raises NameInUse when another initiator has it as nickname or id, LimitReached for one too many."""
    with database.transaction() as connection:
        taken = select(table.c.id).where(
            (table.c.nickname == nickname) | (table.c.id == nickname), table.c.id != initiator
        )
        other = connection.execute(taken).scalar()
        if other is not None:
            raise NameInUse(f"the nickname {shown(nickname)} is already used by initiator {other}; choose another one")
        count = select(func.count()).select_from(table).where(table.c.nickname.is_not(None))
        if connection.execute(count).scalar_one() >= NICKNAMES_MAX:
            raise LimitReached(
                f"{NICKNAMES_MAX} initiators have a nickname, which is the maximum; delete a nickname first"
            )
        statement = upsert(table).values(id=initiator, nickname=nickname)
        connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"nickname": nickname}))


def delete_nickname(database: Database, nickname: str) -> None:
    with database.transaction() as connection:
        gone = connection.execute(update(table).where(table.c.nickname == nickname).values(nickname=None))
        if gone.rowcount == 0:
            raise InitiatorNotFound(
                f"no initiator has the nickname {shown(nickname)}; `show initiators` lists all initiators"
            )
