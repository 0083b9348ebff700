"""What one peer may take: its permission, its images and their size, the pace of its requests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offsite import events
from offsite.errors import InUse, NameInUse, PeerLimitReached, SecondarySetsDisabled
from offsite.events import Source
from offsite.pools.groups import Groups
from offsite.pools.protocol import Delete, Resize
from offsite.replication.peers.modification import NO_LIMIT, PeerChange
from offsite.replication.points import point_records
from offsite.replication.points.kept_copies import keep_copy
from offsite.replication.records import peer_records, peer_share
from offsite.replication.records.peer_share import PeerPace
from offsite.replication.sets.creation import NewSet
from offsite.replication.sets.settings import ChosenSettings
from offsite.replication.wire import messages
from offsite.replication.wire.messages import CreateSet, Hello, NewMember, Pair
from offsite.store.settings import (
    MAXIMUM_IMAGES_PER_PEER,
    MAXIMUM_PEER_CONNECTIONS,
    MAXIMUM_REPLICATION_SETS,
    Settings,
)
from tests.replication.sites import PASSWORD, Site, pair

MIB = 1 << 20


@pytest.fixture(autouse=True)
def paired(london: Site, newark: Site) -> None:
    pair(london, newark)


@pytest.fixture
def mallory(tmp_path: Path, newark: Site) -> Iterator[Site]:
    site = Site(tmp_path / "mallory", "Mallory").start()
    pair(site, newark)
    yield site
    site.stop()


def make_set(site: Site, name: str, **more: Any) -> None:
    site.create_set(f"{name}DR", site.create_volume(name, MIB), "Newark", **more)


def allow(site: Site, images: int) -> None:
    Settings(site.database).set(MAXIMUM_IMAGES_PER_PEER, str(images))


def told(site: Site, kind: events.EventKind) -> list[str]:
    return [message for each, message in site.events if each is kind]


def test_making_sets_can_be_taken_away_and_given_back(london: Site, newark: Site) -> None:
    make_set(london, "Before")
    assert newark.replication.peers.get("London").secondary_sets
    newark.replication.peers.change("London", PeerChange(secondary_sets=False))
    with pytest.raises(SecondarySetsDisabled, match="set peer-connection secondary-sets enabled London"):
        make_set(london, "Sales")
    assert [of.record.name for of in newark.replication.sets.all()] == ["BeforeDR"]
    assert [image.name for image in newark.pool.images() if image.kind == "volume"] == ["Before"]
    assert [of.record.name for of in london.replication.sets.all()] == ["BeforeDR"], "nor is there half a set"
    (message,) = told(newark, events.PEER_SET_REFUSED)
    assert "SalesDR" in message and "London" in message
    assert london.run_to_end("BeforeDR").state == "success", "what is there goes on"
    newark.replication.peers.change("London", PeerChange(secondary_sets=True))
    london.create_set("SalesDR", london.image_id("Sales"), "Newark")


def test_it_can_be_withheld_when_the_connection_is_made(london: Site, tmp_path: Path) -> None:
    boston = Site(tmp_path / "boston", "Boston").start()
    try:
        boston.replication.peers.create("London", london.address, "manage", "Correct-horse-7", secondary_sets=False)
        with pytest.raises(SecondarySetsDisabled):
            london.create_set("DR", london.create_volume("V", MIB), "Boston")
        boston.create_set("DR", boston.create_volume("W", MIB), "London")
    finally:
        boston.stop()


def test_volumes_left_by_deleted_sets_go_on_to_count(london: Site, newark: Site) -> None:
    """Or a peer fills the table of images by making and deleting sets."""
    allow(newark, 3)
    for name in ("One", "Two", "Three"):
        make_set(london, name)
        london.replication.sets.delete(f"{name}DR")
    with pytest.raises(PeerLimitReached, match="maximum-images-per-peer"):
        make_set(london, "Four")
    assert len(newark.pool.images()) == 3
    assert len(told(newark, events.PEER_LIMIT_REACHED)) == 1
    newark.pool.apply([Delete(newark.image_id("Two"))])
    london.create_set("FourDR", london.image_id("Four"), "Newark")


def test_one_peers_share_is_no_one_elses(london: Site, newark: Site, mallory: Site) -> None:
    allow(newark, 1)
    make_set(mallory, "Loot")
    with pytest.raises(PeerLimitReached):
        make_set(mallory, "More")
    newark.replication.peers.change("London", PeerChange(secondary_size_limit=MIB))
    make_set(london, "Sales")
    assert london.run_to_end("SalesDR").state == "success"


def test_each_volume_and_snapshot_of_a_group_counts(london: Site, newark: Site) -> None:
    ids = [london.create_volume(name, MIB) for name in ("Data", "Log")]
    history = ChosenSettings(snapshot_history="secondary", snapshot_basename="keep", snapshot_count=9)
    wanted = NewSet("GroupDR", "Newark", tuple(ids), Groups(london.database).create("Office", ids), settings=history)
    allow(newark, 1)
    with pytest.raises(PeerLimitReached, match="2 more volumes"):
        london.replication.sets.create(wanted)
    allow(newark, 3)
    london.replication.sets.create(wanted)
    assert london.run_to_end("GroupDR").state == "success"
    assert [image.name for image in newark.pool.images() if image.kind == "snapshot"] == []


def test_a_run_without_room_for_its_snapshot_is_a_run_all_the_same(london: Site, newark: Site) -> None:
    allow(newark, 2)
    history = ChosenSettings(snapshot_history="secondary", snapshot_basename="keep", snapshot_count=9)
    make_set(london, "Sales", settings=history)
    for _ in range(3):
        assert london.run_to_end("SalesDR").state == "success"
    assert [image.name for image in newark.pool.images() if image.kind == "snapshot"] == ["keep_0000"]
    assert len(told(newark, events.PEER_LIMIT_REACHED)) == 2


def test_copies_that_are_kept_before_they_are_replaced_count(london: Site, newark: Site) -> None:
    make_set(london, "Sales")
    assert london.run_to_end("SalesDR").state == "success"
    of = newark.replication.sets.record("SalesDR")
    with newark.database.read() as connection:
        (base,) = [point.uuid for point in point_records.set_points(connection, of.id) if point.state == "base"]
    allow(newark, 1)
    with pytest.raises(PeerLimitReached, match="maximum-images-per-peer"):
        keep_copy(newark.database, newark.pool, of, base)
    allow(newark, 2)
    keep_copy(newark.database, newark.pool, of, base)
    with pytest.raises(PeerLimitReached):
        make_set(london, "More")


def test_the_size_of_a_peers_volumes_together_is_limited(london: Site, newark: Site) -> None:
    newark.replication.peers.change("London", PeerChange(secondary_size_limit=2 * MIB))
    make_set(london, "One")
    with pytest.raises(PeerLimitReached, match=r"secondary-size-limit of 2 MiB"):
        london.create_set("BigDR", london.create_volume("Big", 2 * MIB), "Newark")
    history = ChosenSettings(snapshot_history="secondary", snapshot_basename="keep", snapshot_count=9)
    make_set(london, "Two", settings=history)
    for _ in range(2):
        assert london.run_to_end("TwoDR").state == "success", "neither its own size nor its snapshots come on top"
    london.pool.apply([Resize(london.image_id("Two"), 2 * MIB)])
    london.replication.replicate("TwoDR")
    london.await_trouble("TwoDR", "secondary-size-limit")
    newark.replication.peers.change("London", PeerChange(secondary_size_limit=NO_LIMIT))
    assert london.await_end("TwoDR").state == "success"


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def test_requests_that_come_too_fast_wait_for_their_turn(newark: Site) -> None:
    clock, waits = Clock(), list[float]()
    pace = PeerPace(clock, waits.append)
    (peer,) = newark.replication.peers._records()
    for _ in range(peer_share.REQUESTS_AT_ONCE):
        pace.take_turn(peer)
    assert waits == []
    pace.take_turn(peer)
    assert waits == [pytest.approx(1 / peer_share.REQUESTS_PER_SECOND)]
    clock.time += 3600
    pace.take_turn(peer)
    assert len(waits) == 1
    pace.take_turn(replace(peer, id=peer.id + 1))
    for _ in range(peer_share.REQUESTS_AT_ONCE):
        pace.take_turn(peer)
    assert len(waits) == 2, "an hour without requests is no reason for more of them, nor is another peer"


def test_every_request_of_a_peer_waits_for_its_turn(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a peer could keep this system busy."""
    turns = list[str]()
    monkeypatch.setattr(newark.replication.peer_api.pace, "take_turn", lambda peer: turns.append(peer.name))
    for ticker in london.replication._tickers:
        ticker.stop(5)
    peers = london.replication.peers
    with peers.connect(peers.record("Newark")) as connection:
        before = len(turns)
        for _ in range(3):
            connection.channel.ask(connection.asking, messages.ListSets(), messages.SetsHeld)
    assert turns[before:] == ["London"] * 3


def test_what_a_peer_causes_is_told_as_caused_by_a_peer(london: Site, newark: Site) -> None:
    """Its events have room of their own: whichever thread of a session tells them."""
    sources: dict[events.EventKind, Source] = {}
    requests = newark.replication.peer_api._halves
    requests._resources = replace(requests._resources, report=lambda kind, _: sources.update({kind: kind.source()}))
    make_set(london, "Sales")
    assert sources[events.SET_CREATED] is Source.PEER


@pytest.mark.parametrize("what", ["images", "size", "sets", "name"])
def test_two_requests_at_once_are_within_a_limit_together_or_one_is_refused(
    newark: Site, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What was looked at before the transaction that makes the set may be different in it."""
    if what == "images":
        allow(newark, 1)
    elif what == "sets":
        Settings(newark.database).set(MAXIMUM_REPLICATION_SETS, "1")
    elif what == "size":
        newark.replication.peers.change("London", PeerChange(secondary_size_limit=MIB + 1))
    requests, (peer,) = newark.replication.peer_api._halves, newark.replication.peers._records()
    pools, names = requests._resources.pools, iter(["OneDR" if what == "name" else "TwoDR"])

    class Between(dict[str, Any]):
        """Asked for its pool by a request that has been checked."""

        def get(self, *arguments: Any) -> Any:
            for name in names:
                requests.create(peer, new_set(name, "Two"))
            return super().get(*arguments)

    monkeypatch.setattr(requests, "_resources", replace(requests._resources, pools=Between(pools)))
    with pytest.raises((PeerLimitReached, InUse, NameInUse)):
        requests.create(peer, new_set("OneDR", "One"))
    assert len(newark.replication.sets.all()) == 1
    assert [image.name for image in newark.pool.images()] == ["Two"]


def new_set(name: str, volume: str) -> CreateSet:
    member = NewMember(primary_name=volume, secondary_name=volume, size_bytes=MIB)
    return CreateSet(
        set_uuid=str(uuid.uuid4()),
        settings=messages.SetSettings(name=name),
        generation=1,
        primary_pool="A",
        secondary_pool="A",
        members=[member],
    )


def test_two_systems_at_once_are_within_the_limit_of_peer_connections(
    newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    Settings(newark.database).set(MAXIMUM_PEER_CONNECTIONS, "2")
    requests = newark.replication.peer_api._pairing
    check, others = requests._check_new_peer, iter(["Other"])

    def check_later(name: str, certificate: bytes) -> None:
        check(name, certificate)
        for other in others:
            with newark.database.transaction() as connection:
                values = {"name": other, "system_uuid": other, "system_name": other, "address": "o:1"}
                peer_records.insert_peer(connection, values | {"certificate": b"o", "created_at": 0.0})

    monkeypatch.setattr(requests, "_check_new_peer", check_later)
    pair_ = Pair(username="manage", password=PASSWORD, certificate=b"c", host="h", port=1)
    hello = Hello(version=1, system_uuid=str(uuid.uuid4()), system_name="Third", software="Offsite")
    monkeypatch.setattr("offsite.replication.inbound.pairing_service.check_pinnable", lambda *_: None)
    with pytest.raises(InUse, match="has 2 peer connections"):
        requests.pair(pair_, hello, "h")
