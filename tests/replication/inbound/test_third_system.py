"""A peer against a peer: Mallory is paired with Newark, as London is, and asks there for what is London's.

Every message of the protocol is tried. Nothing of London's changes, and what Mallory is told is what it would be told
if London had no set there.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from offsite.errors import OffsiteError
from offsite.replication.link.dialer import DialedConnection
from offsite.replication.points import point_records
from offsite.replication.records.run_states import RunEvent
from offsite.replication.records.run_writer import RunFacts, change_run
from offsite.replication.sets.settings import ChosenSettings
from offsite.replication.wire.batch import DIGEST_START, EXTENT, chain, digest_of
from offsite.replication.wire.messages import (
    Ack,
    AnyMessage,
    Ask,
    Batch,
    Begin,
    ChangeSet,
    Commit,
    Committed,
    CreateSet,
    DeleteSet,
    Discard,
    Done,
    Failed,
    Hello,
    Holds,
    Keep,
    Kept,
    ListSets,
    Look,
    Message,
    NewMember,
    Pair,
    Ping,
    Position,
    PrimaryNames,
    Ready,
    RunOutcome,
    SetSettings,
    SetsHeld,
    Unpair,
    Working,
)
from tests.replication.sites import PASSWORD, Site, pair, random_bytes

MIB = 1 << 20
UNKNOWN = str(uuid.uuid4())
NEW = str(uuid.uuid4())
END = Position(1, 0)
EMPTY_DIGEST = digest_of(np.empty(0, EXTENT), memoryview(b""))


class Stage:
    """London's set on Newark, with a base, a history snapshot and a run that is half way; and one of Mallory's."""

    def __init__(self, london: Site, newark: Site, mallory: Site) -> None:
        self.london, self.newark, self.mallory = london, newark, mallory
        for site in (london, mallory):
            pair(site, newark)
        volume = london.create_volume("Sales", MIB)
        london.write(volume, 0, random_bytes(65536, 1))
        history = ChosenSettings(snapshot_history="secondary", snapshot_basename="keep", snapshot_count=3)
        london.create_set("SalesDR", volume, "Newark", settings=history)
        self.done = london.run_to_end("SalesDR").run
        self.set = newark.replication.sets.record("SalesDR")
        self.half_way = str(uuid.uuid4())
        peers = london.replication.peers
        with peers.connect(peers.record("Newark")) as connection:
            connection.channel.ask(connection.asking, Ask(set_uuid=self.set.uuid, generation=1), Holds)
            connection.channel.ask(connection.asking, begin(self.half_way, self.half_way, self.done), Ready)
        mallory.create_set("Loot", mallory.create_volume("Loot", MIB), "Newark")
        self.loot = mallory.run_to_end("Loot").run
        self.own = newark.replication.sets.record("Loot")

    def connect(self) -> DialedConnection:
        peers = self.mallory.replication.peers
        return peers.connect(peers.record("Newark"))

    def londons(self) -> dict[str, Any]:
        """All that Newark has of London, and what London has itself."""
        with self.newark.database.read() as connection:
            rows = {
                table: [tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table} WHERE {which}")]
                for table, which in (
                    ("peers", "name = 'London'"),
                    ("replication_sets", "name != 'Loot'"),
                    ("set_members", f"set_id = {self.set.id}"),
                    ("points", f"set_id = {self.set.id}"),
                    ("runs", f"set_id = {self.set.id}"),
                    ("history_snapshots", f"set_id = {self.set.id}"),
                    ("images", "name NOT LIKE 'Loot%' AND kind != 'internal'"),
                )
            }
            of = [point.image_ids for point in point_records.set_points(connection, self.set.id)]
        contents = {name: self.newark.content(name) for name in ("Sales", "keep_0000")}
        return rows | {"point images": of, "contents": contents, "runs of London": self.london.runs("SalesDR")}


def begin(run: str, point: str, base: str | None, replaces: str | None = None) -> Begin:
    return Begin(
        generation=1, run=run, point=point, base=base, taken_at=1_700_000_000.0, sizes_bytes=[MIB], replaces=replaces
    )


@pytest.fixture
def stage(london: Site, newark: Site, tmp_path: Path) -> Iterator[Stage]:
    mallory = Site(tmp_path / "mallory", "Mallory").start()
    yield Stage(london, newark, mallory)
    mallory.stop()


def create(set_uuid: str, secondary_name: str = "Stolen", name: str = "Theft") -> CreateSet:
    return CreateSet(
        set_uuid=set_uuid,
        settings=SetSettings(name=name),
        generation=1,
        primary_pool="A",
        secondary_pool="A",
        members=[NewMember(primary_name="Sales", secondary_name=secondary_name, size_bytes=MIB)],
    )


def change(set_uuid: str, name: str = "Stolen") -> ChangeSet:
    return ChangeSet(
        generation=1, set_uuid=set_uuid, settings=SetSettings(name=name), primary=PrimaryNames(members=["Mine"])
    )


def commit(run: str, point: str) -> Commit:
    return Commit(generation=1, run=run, point=point, digest=DIGEST_START)


def empty_batch() -> Batch:
    return Batch(sequence=0, position=END, extents=0, data_bytes=0, compression=0, digest=EMPTY_DIGEST)


# What Mallory says, one message after the other, when `uuid` is that of a set, a run or a point of London's; with an
# unknown one in its place the last answer has to be the same.
Words = Callable[[Stage, str], list[AnyMessage]]

LONDONS_SET: dict[str, Words] = {
    "ChangeSet": lambda _, uuid: [change(uuid)],
    "DeleteSet": lambda _, uuid: [DeleteSet(generation=1, set_uuid=uuid)],
    "Ask": lambda _, uuid: [Ask(set_uuid=uuid, generation=1)],
    "Look": lambda _, uuid: [Look(set_uuid=uuid, generation=1)],
    "Ask, another generation": lambda _, uuid: [Ask(set_uuid=uuid, generation=7)],
    "Begin without an Ask": lambda _, uuid: [begin(uuid, uuid, None)],
    "Commit without an Ask": lambda _, uuid: [commit(uuid, uuid)],
    "Discard without an Ask": lambda _, uuid: [Discard(generation=1, run=uuid, sentence="gone")],
}


def own_ask(stage: Stage) -> AnyMessage:
    return Ask(set_uuid=stage.own.uuid, generation=1)


LONDONS_RUN: dict[str, Words] = {
    "Begin, base": lambda stage, uuid: [own_ask(stage), begin(NEW, NEW, uuid)],
    "Commit of another run": lambda stage, uuid: [
        own_ask(stage),
        begin(NEW, NEW, None, stage.loot),
        empty_batch(),
        commit(uuid, NEW),
    ],
    "Commit of another point": lambda stage, uuid: [
        own_ask(stage),
        begin(NEW, NEW, None, stage.loot),
        empty_batch(),
        commit(NEW, uuid),
    ],
    "Keep": lambda stage, uuid: [own_ask(stage), Keep(generation=1, base=uuid)],
    "Discard": lambda stage, uuid: [own_ask(stage), Discard(generation=1, run=uuid, sentence="gone")],
}


def say(stage: Stage, words: list[AnyMessage]) -> str:
    """The last answer, or the refusal."""
    answer: Message | None = None
    with stage.connect() as connection:
        for message in words:
            try:
                answer = connection.channel.ask(connection.asking, message, Message)
            except OffsiteError as error:
                return f"{type(error).__name__}: {error}"
    return repr(answer)


@pytest.mark.parametrize("what", LONDONS_SET)
def test_a_set_of_another_peer_is_not_there(stage: Stage, what: str) -> None:
    before = stage.londons()
    words = LONDONS_SET[what]
    told = say(stage, words(stage, stage.set.uuid))
    assert told.replace(stage.set.uuid, UNKNOWN) == say(stage, words(stage, UNKNOWN))
    assert stage.londons() == before


@pytest.mark.parametrize("what", LONDONS_RUN)
def test_runs_and_points_of_another_peers_set_are_not_there(stage: Stage, what: str) -> None:
    """Within a set of its own, Mallory names them."""
    words = LONDONS_RUN[what]
    for londons in (stage.done, stage.half_way):
        before = stage.londons()
        told = say(stage, words(stage, londons))
        assert told.replace(londons, UNKNOWN) == say(stage, words(stage, UNKNOWN))
        assert stage.londons() == before


@pytest.mark.parametrize("which", ["done", "half_way"])
def test_a_run_of_another_set_cannot_be_begun(stage: Stage, which: str) -> None:
    before = stage.londons()
    told = say(stage, [own_ask(stage), begin(getattr(stage, which), UNKNOWN, None, stage.loot)])
    assert "PeerRefused" in told and "SalesDR" not in told
    assert stage.londons() == before


def test_a_point_may_have_the_uuid_that_anothers_run_has_and_tells_nothing_of_it(stage: Stage) -> None:
    """The base of Mallory's set is called as a run of London's: Holds must not carry that one's digest and bytes."""
    with stage.newark.database.transaction() as connection:
        old = str(uuid.uuid4())
        change_run(connection, stage.set.id, old, RunEvent.BEGIN, 1_700_000_000.0)
        facts = RunFacts(digest="ab" * 16, changed_bytes=4711)
        change_run(connection, stage.set.id, old, RunEvent.COMPLETE, 1_700_000_000.0, **facts)
    before = stage.londons()
    commit = Commit(generation=1, run=UNKNOWN, point=old, digest=chain(DIGEST_START, EMPTY_DIGEST))
    assert "Committed" in say(stage, [own_ask(stage), begin(UNKNOWN, old, None, stage.loot), empty_batch(), commit])
    told = say(stage, [own_ask(stage)])
    assert f"base='{old}'" in told and "outcome=None" in told
    assert stage.londons() == before


def test_a_new_set_takes_neither_uuid_nor_volumes_of_another(stage: Stage) -> None:
    """A name that is in use has to be told, or nobody could choose another one; whose it is, is not."""
    before = stage.londons()
    for request in (
        create(stage.set.uuid),
        create(stage.set.uuid, "Sales", "SalesDR"),
        create(UNKNOWN, "Sales"),
        create(UNKNOWN, "keep_0000"),
        create(UNKNOWN, name="SalesDR"),
    ):
        told = say(stage, [request])
        assert told.startswith(("InUse", "NameInUse")), told
        assert "London" not in told and (request.settings.name == "SalesDR" or "SalesDR" not in told)
    assert stage.londons() == before
    assert [each.uuid for each in stage.newark.replication.sets.records()] == [stage.own.uuid, stage.set.uuid]


def test_a_new_name_for_a_set_does_not_take_anothers(stage: Stage) -> None:
    before = stage.londons()
    assert say(stage, [change(stage.own.uuid, "SalesDR")]) == "Done()"
    assert stage.newark.replication.sets.record("Loot").uuid == stage.own.uuid
    assert stage.londons() == before


def test_only_ones_own_sets_are_listed_and_only_ones_own_connection_deleted(stage: Stage) -> None:
    before = stage.londons()
    assert say(stage, [ListSets()]) == repr(SetsHeld(sets=[stage.own.uuid]))
    refused = say(stage, [Unpair()])
    assert "Loot" in refused and "SalesDR" not in refused
    assert say(stage, [DeleteSet(generation=1, set_uuid=stage.own.uuid), Unpair()]) == "Done()"
    assert [peer.name for peer in stage.newark.replication.peers.all()] == ["London"]
    assert stage.londons() == before


def test_a_set_that_is_primary_here_is_not_filled_nor_changed_by_its_secondary(stage: Stage) -> None:
    """Newark replicates to Mallory, who turns round and plays the primary of that set."""
    volume = stage.newark.create_volume("Books", MIB)
    stage.newark.create_set("BooksDR", volume, "Mallory")
    of = stage.newark.replication.sets.record("BooksDR")
    before = stage.londons()
    for message in (Ask(set_uuid=of.uuid, generation=1), change(of.uuid)):
        assert "NotAllowed" in say(stage, [message])
    assert say(stage, [create(of.uuid)]).startswith("InUse")
    assert stage.newark.replication.sets.record("BooksDR") == of
    assert stage.londons() == before


ANSWERS: list[AnyMessage] = [
    Hello(version=1, system_uuid=UNKNOWN, system_name="Mallory", software=""),
    Failed(error="PoolFull", sentence="full"),
    Done(),
    Kept(snapshots=["Sales"]),
    Working(),
    SetsHeld(sets=[UNKNOWN]),
    Holds(role="secondary", generation=1, base=UNKNOWN),
    Ready(watermark=END, changed_bytes=0, wire_bytes=0),
    Ack(sequence=0, durable=END),
    Committed(outcome=RunOutcome(digest=bytes(16), changed_bytes=0, wire_bytes=0)),
    Pair(username="manage", password=PASSWORD, certificate=b"x", host="", port=1),
    empty_batch(),
]


@pytest.mark.parametrize("message", ANSWERS, ids=lambda message: type(message).__name__)
def test_what_is_no_request_of_a_peer_is_refused(stage: Stage, message: AnyMessage) -> None:
    before = stage.londons()
    assert "unexpected" in say(stage, [message])
    assert "unexpected" in say(stage, [own_ask(stage), message]) or isinstance(message, Batch)
    assert stage.londons() == before


def test_every_message_of_the_protocol_is_tried_here() -> None:
    """A new one has to get its case above."""
    tried = {type(message).__name__ for message in ANSWERS}
    tried |= {what.split(",")[0].split()[0] for what in (*LONDONS_SET, *LONDONS_RUN)}
    tried |= {"CreateSet", "ListSets", "Unpair"}  # by tests of their own
    harmless = {"Ping"}
    assert {kind.__name__ for kind in get_args(AnyMessage)} == tried | harmless
    assert Ping in get_args(AnyMessage)
