"""R5: what a primary of before a change of roles asks for is refused, however late it comes, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from offsite.errors import NotAllowed, ObjectNotFound
from offsite.pools.protocol import ImageInfo
from offsite.replication.inbound import secondary_half
from offsite.replication.points import point_records
from offsite.replication.points.holdings import told_holds
from offsite.replication.records import set_records
from offsite.replication.transfer.receiver.endpoint import ReceiverEndpoint
from offsite.replication.transfer.sender.endpoint import SenderEndpoint
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

COMMIT = Commit(generation=1, run=RUN, point=RUN, digest=chain(DIGEST_START, EMPTY_DIGEST))


def late_messages(uuid: str) -> dict[str, list[AnyMessage]]:
    """What is said before the change of roles, and, last, what comes after it."""
    ask = Ask(set_uuid=uuid, generation=1)
    return {
        "Ask": [ask],
        "ChangeSet": [ChangeSet(set_uuid=uuid, generation=1, settings=SetSettings(name="Hijacked"))],
        "DeleteSet": [DeleteSet(set_uuid=uuid, generation=1)],
        "Begin": [ask, BEGIN],
        "Commit": [
            ask,
            BEGIN,
            LAST,
            COMMIT,
        ],
        "Keep": [ask, Keep(generation=1, base=BASE)],
        "Discard": [ask, BEGIN, Discard(generation=1, run=RUN, sentence="aborted")],
    }


def id_of(image: ImageInfo) -> int:
    return image.id


def held(site: Site) -> tuple[Any, ...]:
    with site.database.read() as connection:
        (of,) = set_records.all_sets(connection)
        return (
            of,
            point_records.set_points(connection, of.id),
            site.runs(of.name),
            sorted(site.pool.images(), key=id_of),
        )


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
        with pytest.raises(NotAllowed, match="has generation 2 here, but 1 there: its roles have changed"):
            connection.channel.ask(connection.asking, late, Done)
    assert held(newark) == then


def test_a_question_is_answered_in_whatever_generation_but_what_it_says_of_the_copy_is_not_taken(
    london: Site, newark: Site
) -> None:
    """Or an end could not learn what the other one has become. The one that asks judges the answer."""
    pair(london, newark)
    london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    for ticker in london.replication._tickers:
        ticker.stop(5)
    peers, of = london.replication.peers, london.replication.sets.record("SalesDR")
    change_roles(newark)
    then = held(newark)
    with peers.connect(peers.record("Newark")) as connection:
        look = Look(set_uuid=of.uuid, generation=1, diverged=True)
        told = connection.channel.ask(connection.asking, look, Holds)
    assert (told.role, told.generation) == ("secondary", 2)
    assert held(newark) == then and newark.replication.sets.get("SalesDR").difference is None


def test_what_is_told_is_of_one_instant(london: Site, newark: Site) -> None:
    """Roles that change just after the set was read: no answer has the role of before and the points of now."""
    pair(london, newark)
    london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    of = newark.replication.sets.record("SalesDR")
    change_roles(newark)
    told = told_holds(newark.database, newark.pools, of)
    assert told.generation == of.generation + 1
    with newark.database.transaction() as transaction:
        set_records.delete_set(transaction, of.id)
    with pytest.raises(ObjectNotFound, match="SalesDR no longer exists"):
        told_holds(newark.database, newark.pools, of)


def test_either_end_tells_the_other_what_it_holds(london: Site, newark: Site) -> None:
    pair(london, newark)
    london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    base = london.run_to_end("SalesDR").run
    of, told = london.replication.sets.record("SalesDR"), []
    with london.replication.dispatcher.standing_still(of.uuid, 5.0):
        pending = london.replication.replicate("SalesDR").run
        for asker, name in ((london, "Newark"), (newark, "London")):
            peers = asker.replication.peers
            with peers.connect(peers.record(name)) as connection:
                look = Look(set_uuid=of.uuid, generation=1)
                told.append(connection.channel.ask(connection.asking, look, Holds))
    secondary, primary = told
    assert (primary.role, primary.base, primary.pending) == ("primary", base, [pending])
    assert (secondary.role, secondary.base, secondary.pending) == ("secondary", base, [])


@pytest.mark.parametrize(("role", "generation"), [("primary", 1), ("secondary", 2)])
def test_an_answer_of_what_is_no_counterpart_is_not_planned_by(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch, role: Any, generation: int
) -> None:
    """The primary judges by the same rule as the secondary, and sends nothing to another primary."""
    pair(london, newark)
    london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    look = ReceiverEndpoint.look

    def turned(self: ReceiverEndpoint, ask: Ask) -> Holds:
        return msgspec.structs.replace(look(self, ask), role=role, generation=generation)

    monkeypatch.setattr(ReceiverEndpoint, "look", turned)
    error = london.run_to_trouble("SalesDR").error or ""
    assert error.startswith("replication set SalesDR is also primary here" if generation == 1 else "replication set")
    assert newark.internal_names() == [] and newark.runs("SalesDR") == []


def change_roles(site: Site) -> None:
    with site.database.transaction() as transaction:
        transaction.exec_driver_sql("UPDATE replication_sets SET generation = generation + 1")


@pytest.mark.parametrize("what", ["Begin", "Begin again", "Commit", "Keep", "Discard"])
def test_roles_that_change_just_before_a_step_is_committed_end_it(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It was still right when the message came. What counts is what is on record in the transaction that does it."""
    pair(london, newark)
    london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    base = london.run_to_end("SalesDR").run
    for ticker in london.replication._tickers:
        ticker.stop(5)
    peers, of = london.replication.peers, london.replication.sets.record("SalesDR")
    ask, begin = Ask(set_uuid=of.uuid, generation=1), msgspec.structs.replace(BEGIN, base=base)
    messages: dict[str, list[AnyMessage]] = {
        "Begin": [ask, begin],
        "Begin again": [ask, begin, begin],
        "Commit": [ask, begin, LAST, COMMIT],
        "Keep": [ask, Keep(generation=1, base=base)],
        "Discard": [ask, begin, Discard(generation=1, run=RUN, sentence="aborted")],
    }
    *before, late = messages[what]
    then: list[object] = []

    def after_a_change_of_roles(step: Callable[..., Any]) -> Callable[..., Any]:
        def changed_before(*arguments: Any) -> Any:
            if not then:
                change_roles(newark)
                then.append(held(newark))
            return step(*arguments)

        return changed_before

    with peers.connect(peers.record("Newark")) as connection:
        for message in before:
            connection.channel.ask(connection.asking, message, ANSWERS[type(message)])
        if what == "Begin again":  # which writes no images
            monkeypatch.setattr(ReceiverEndpoint, "_fits", after_a_change_of_roles(ReceiverEndpoint._fits))
        else:
            monkeypatch.setattr(newark.pool, "apply", after_a_change_of_roles(newark.pool.apply))
        with pytest.raises(NotAllowed, match="has generation 2 here, but 1 there: its roles have changed"):
            connection.channel.ask(connection.asking, late, Done)
    assert [held(newark)] == then


@pytest.mark.parametrize("what", ["ChangeSet", "DeleteSet"])
def test_roles_that_change_while_a_set_is_changed_or_deleted_from_its_primary_leave_it_as_it_is(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What a primary of before asks for just then must not end or rename the set of the new one."""
    pair(london, newark)
    london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    london.run_to_end("SalesDR")
    for ticker in london.replication._tickers:
        ticker.stop(5)
    peers, of = london.replication.peers, london.replication.sets.record("SalesDR")
    then: list[object] = []

    def change_roles_now(*arguments: Any, step: Callable[..., Any], **named: Any) -> Any:
        change_roles(newark)
        then.append(held(newark))
        return step(*arguments, **named)

    place, name = {
        "ChangeSet": (secondary_half, "_check_set_settings"),
        "DeleteSet": (secondary_half.SecondaryHalves, "_check_no_runs"),
    }[what]
    step = getattr(place, name)
    monkeypatch.setattr(place, name, lambda *each, **named: change_roles_now(*each, step=step, **named))
    (late,) = late_messages(of.uuid)[what]
    with (
        peers.connect(peers.record("Newark")) as connection,
        pytest.raises(NotAllowed, match="has generation 2 here, but 1 there: its roles have changed"),
    ):
        connection.channel.ask(connection.asking, late, Done)
    assert [held(newark)] == then


def test_a_primary_whose_role_changes_while_its_run_is_committed_does_not_adopt_the_point(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same on the other side: a point becomes the base of the set as it is, and not as it was."""
    pair(london, newark)
    london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    following = SenderEndpoint._following

    def and_change_roles(*arguments: Any) -> Any:
        change_roles(london)
        return following(*arguments)

    monkeypatch.setattr(SenderEndpoint, "_following", and_change_roles)
    assert "its roles have changed" in (london.run_to_trouble("SalesDR").error or "")
    _, points, *_ = held(london)
    assert [point.state for point in points] == ["pending"]
