"""The generation of a set: it rises with each change of roles, and every message about a set tells it.

So what a primary of before asks for is told from what the primary of now asks for, however late it comes, and two
primaries of one generation cannot be.
"""

from __future__ import annotations

from sqlalchemy import Connection

from offsite.errors import NotAllowed, ObjectNotFound
from offsite.replication.records import set_records
from offsite.replication.records.set_records import SetRecord
from offsite.replication.roles.standing import Standing, Verdict, judge


def check_generation(replication_set: SetRecord, generation: int) -> None:
    """Both ends know of the same changes of roles. Raises NotAllowed."""
    if generation != replication_set.generation:
        raise NotAllowed(
            f"replication set {replication_set.name} has generation {replication_set.generation} here, but "
            f"{generation} there: its roles have changed"
        )


def check_counterpart(replication_set: SetRecord, theirs: Standing) -> None:
    """What the other end says of itself goes with what is on record here: it has the other role, of the same
    generation. The one place in which two primaries are refused. Raises NotAllowed."""
    verdict = judge(Standing(replication_set.role, replication_set.generation), theirs)
    if verdict is Verdict.CONTRADICTION:
        raise NotAllowed(f"replication set {replication_set.name} is also {replication_set.role} here")
    check_generation(replication_set, theirs.generation)


def check_unchanged(connection: Connection, replication_set: SetRecord) -> None:
    """The set is here, on record, in the role and of the generation that it had when it was read. To be asked within
    the transaction of a step: until that is committed nobody can change them. Raises NotAllowed or ObjectNotFound."""
    now = set_records.find_set(connection, replication_set.uuid)
    if now is None or now.role != replication_set.role:
        raise ObjectNotFound(f"replication set {replication_set.name} is no longer {replication_set.role} here")
    check_generation(now, replication_set.generation)
