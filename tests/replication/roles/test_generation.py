"""R5: what a primary of before a change of roles asks for is refused, however late it comes, and changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from offsite.errors import NotAllowed
from offsite.replication.points import point_records
from offsite.replication.records import set_records
from offsite.replication.wire.batch import DIGEST_START, EXTENT, chain, digest_of
from offsite.replication.wire.messages import (
    Ack,
    AnyMessage,
    Ask,
    Batch,
    Begin,
    ChangeSet,
    Commit,
    DeleteSet,
    Discard,
    Done,
    Holds,
    Keep,
    Look,
    Position,
    Ready,
    SetSettings,
)
from tests.replication.sites import Site, pair

MIB = 1 << 20
EMPTY_DIGEST = digest_of(np.empty(0, EXTENT), memoryview(b""))
BASE, RUN = "b" * 36, "r" * 36
LAST = Batch(sequence=0, position=Position(1, 0), extents=0, data_bytes=0, compression=0, digest=EMPTY_DIGEST)
ANSWERS: dict[type, type] = {Ask: Holds, Begin: Ready, Batch: Ack}
BEGIN = Begin(generation=1, run=RUN, point=RUN, base=None, taken_at=0.0, sizes_bytes=[MIB])


def late_messages(uuid: str) -> dict[str, list[AnyMessage]]:
    """What is said before the change of roles, and, last, what comes after it."""
    ask = Ask(set_uuid=uuid, generation=1)
    return {
        "Ask": [ask],
        "Look": [Look(set_uuid=uuid, generation=1)],
        "ChangeSet": [ChangeSet(set_uuid=uuid, generation=1, settings=SetSettings(name="Hijacked"))],
        "DeleteSet": [DeleteSet(set_uuid=uuid, generation=1)],
        "Begin": [ask, BEGIN],
        "Commit": [
            ask,
            BEGIN,
            LAST,
            Commit(generation=1, run=RUN, point=RUN, digest=chain(DIGEST_START, EMPTY_DIGEST)),
        ],
        "Keep": [ask, Keep(generation=1, base=BASE)],
        "Discard": [ask, BEGIN, Discard(generation=1, run=RUN, sentence="aborted")],
    }


def held(site: Site) -> object:
    with site.database.read() as connection:
        (of,) = set_records.all_sets(connection)
        return of, point_records.set_points(connection, of.id), site.runs(of.name), site.pool.images()


@pytest.mark.parametrize("what", late_messages(""))
def test_what_is_said_of_an_older_generation_changes_nothing(london: Site, newark: Site, what: str) -> None:
    """Also within a run that had begun before the roles were changed."""
    pair(london, newark)
    london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    for ticker in london.replication._tickers:
        ticker.stop(5)  # nothing is to be said but what is said here
    peers, of = london.replication.peers, london.replication.sets.record("SalesDR")
    *before, late = late_messages(of.uuid)[what]
    with peers.connect(peers.record("Newark")) as connection:
        for message in before:
            connection.channel.ask(connection.asking, message, ANSWERS[type(message)])
        with newark.database.transaction() as transaction:
            transaction.exec_driver_sql("UPDATE replication_sets SET generation = 2")
        then = held(newark)
        with pytest.raises(NotAllowed, match="is of generation 2 here, of 1 there: its roles have changed"):
            connection.channel.ask(connection.asking, late, Done)
    assert held(newark) == then
