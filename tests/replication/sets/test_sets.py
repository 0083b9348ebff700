"""Replication sets: made and taken away on both systems, or on none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from offsite import events
from offsite.errors import BadParameter, InUse, NameInUse, NotAllowed, ObjectNotFound, PeerUnreachable, VolumeNotFound
from offsite.events import Source
from offsite.pools.groups import Groups
from offsite.pools.protocol import Delete, Snapshot
from offsite.replication.inbound.peer_api import PeerApi
from offsite.replication.link.dialer import DialedConnection
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.sets.creation import NewSet
from offsite.replication.sets.status import Status, status_of
from tests.replication.proxy import Proxy
from tests.replication.sites import Site, pair

MIB = 1 << 20


@pytest.fixture
def volume(london: Site, newark: Site) -> int:
    pair(london, newark)
    return london.create_volume("Sales", MIB)


def names(site: Site) -> list[str]:
    return sorted(image.name for image in site.pools["A"].images())


def untouched(london: Site, newark: Site) -> bool:
    """Nothing but what the tests made themselves."""
    return not london.replication.sets.all() and not newark.replication.sets.all() and names(newark) == []


def test_a_set_is_on_both_systems(london: Site, newark: Site, volume: int) -> None:
    here = london.create_set("SalesDR", volume, "Newark", "A", "SalesCopy")
    there = newark.replication.sets.get("SalesDR")
    assert (here.role, here.primary_volume, here.secondary_volume) == ("primary", "Sales", "SalesCopy")
    assert (there.role, there.primary_volume, there.secondary_volume) == ("secondary", "Sales", "SalesCopy")
    assert (here.pool, here.record.remote_pool, there.pool, there.record.remote_pool) == ("A", "A", "A", "A")
    assert (here.peer_name, there.peer_name) == ("Newark", "London")
    assert here.uuid == there.uuid and here.record.generation == there.record.generation == 1
    assert here.status is there.status is Status.UNSYNCHRONIZED
    assert here.image_ids == (volume,)
    assert there.image_ids == (newark.image_id("SalesCopy"),)
    assert here.recovery_point_at is None and here.lag_seconds is None and here.last_run is None
    assert newark.pools["A"].image(newark.image_id("SalesCopy")).size_bytes == MIB
    assert london.events[-1][0] is newark.events[-1][0] is events.SET_CREATED


def test_what_a_peer_has_a_system_do_is_told_as_caused_by_the_peer(london: Site, newark: Site, volume: int) -> None:
    """So that it cannot push out the events of users: each source has a place of its own."""
    london.create_set("SalesDR", volume, "Newark")
    london.run_to_end("SalesDR")
    london.replication.sets.delete("SalesDR")
    told = {kind for kind, source in newark.sources if source is Source.PEER}
    assert {events.PEER_CREATED, events.SET_CREATED, events.RUN_COMPLETED, events.SET_DELETED} <= told
    assert {source for _, source in newark.sources} == {Source.PEER}
    assert Source.PEER not in {source for _, source in london.sources}


def test_the_secondary_is_called_as_the_primary_by_default(london: Site, newark: Site, volume: int) -> None:
    london.create_set("SalesDR", volume, "Newark")
    assert names(newark) == ["Sales"]


def test_a_snapshot_can_be_replicated(london: Site, newark: Site, volume: int) -> None:
    london.write(volume, 0, b"on monday")
    (snapshot,) = london.pools["A"].apply([Snapshot(volume, "Monday")])
    london.write(volume, 0, b"on friday")
    london.create_set("MondayDR", snapshot.id, "Newark")
    assert london.run_to_end("MondayDR").state == "success"
    assert newark.content("Monday").startswith(b"on monday")


def test_what_exists_on_the_remote_is_refused_by_name(london: Site, newark: Site, volume: int) -> None:
    other = newark.create_volume("Sales", MIB)
    with pytest.raises(NameInUse, match=r"Newark: .*'Sales'"):
        london.create_set("SalesDR", volume, "Newark")
    newark.pools["A"].apply([])
    assert not london.replication.sets.all() and not newark.replication.sets.all()
    assert newark.image_id("Sales") == other

    newark.create_set("Backwards", other, "London", None, "FromNewark")
    with pytest.raises(NameInUse, match="'Backwards'"):
        london.create_set("Backwards", volume, "Newark", None, "Fresh")


def test_a_set_of_that_name_on_the_remote_alone(london: Site, newark: Site, volume: int) -> None:
    newark.create_set("DR", newark.create_volume("Own", MIB), "London")
    london.replication.sets.delete("DR", local_only=True)
    with pytest.raises(NameInUse, match="Newark: replication set 'DR' already exists"):
        london.create_set("DR", volume, "Newark")
    assert not london.replication.sets.all()


def test_what_is_refused_changes_nothing(london: Site, newark: Site, volume: int) -> None:
    create = london.create_set
    with pytest.raises(ObjectNotFound, match=r"Newark: pool 'C' does not exist; pools of this system: A"):
        create("SalesDR", volume, "Newark", "C")
    with pytest.raises(BadParameter, match="replication set name"):
        create('bad"name', volume, "Newark")
    with pytest.raises(BadParameter, match="secondary volume name"):
        create("SalesDR", volume, "Newark", "A", "a,b")
    with pytest.raises(ObjectNotFound, match="'Paris'"):
        create("SalesDR", volume, "Paris")
    with pytest.raises(VolumeNotFound):
        create("SalesDR", 12345, "Newark")
    assert untouched(london, newark)


def test_an_image_can_be_in_one_set_alone(london: Site, newark: Site, volume: int) -> None:
    create = london.create_set
    create("SalesDR", volume, "Newark")
    with pytest.raises(NameInUse, match="'SalesDR'"):
        create("SalesDR", london.create_volume("Other", MIB), "Newark")
    with pytest.raises(InUse, match="Sales is already in replication set SalesDR"):
        create("Second", volume, "Newark", None, "Second")
    london.run_to_end("SalesDR")
    (base,) = [image for image in london.pools["A"].images() if image.kind == "internal"]
    with pytest.raises(NotAllowed, match="is internal to replication"):
        create("Inner", base.id, "Newark", None, "Inner")
    with pytest.raises(InUse, match="Sales is already in replication set SalesDR"):
        newark.create_set("Chain", newark.image_id("Sales"), "London", None, "Chain")


def test_a_remote_that_is_gone_leaves_nothing_behind(london: Site, newark: Site, volume: int) -> None:
    newark.replication.stop()
    with pytest.raises(PeerUnreachable):
        london.create_set("SalesDR", volume, "Newark")
    assert not london.replication.sets.all()
    newark.open()
    newark.start()


@pytest.fixture
def proxied(london: Site, newark: Site, volume: int) -> Proxy:
    """London reaches Newark through a link that we hold in our hands."""
    assert volume, "they are paired by now"
    proxy = Proxy(newark.port)
    with london.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE peers SET address = ?", (proxy.address,))
    return proxy


def test_a_volume_that_is_deleted_while_the_peer_is_reached_is_told(
    london: Site, newark: Site, volume: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = london.replication.peers.connect

    def delete_and_connect(peer: PeerRecord) -> DialedConnection:
        london.pool.apply([Delete(volume)])
        return connect(peer)

    monkeypatch.setattr(london.replication.peers, "connect", delete_and_connect)
    with pytest.raises(VolumeNotFound, match="Sales was just deleted"):
        london.create_set("SalesDR", volume, "Newark")
    assert untouched(london, newark)


def test_a_group_that_changes_while_the_peer_is_reached_is_told(
    london: Site, newark: Site, volume: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, groups = london.replication.peers.connect, Groups(london.database)
    group = groups.create("Office", [volume])
    more = london.create_volume("Post", MIB)

    def add_and_connect(peer: PeerRecord) -> DialedConnection:
        groups.add("Office", [more])
        return connect(peer)

    monkeypatch.setattr(london.replication.peers, "connect", add_and_connect)
    with pytest.raises(InUse, match="members of volume group Office were just changed"):
        london.replication.sets.create(NewSet("SalesDR", "Newark", (volume,), group))
    assert untouched(london, newark)


def test_who_makes_a_set_does_not_wait_for_ever_for_who_makes_another(
    london: Site, newark: Site, volume: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its peer may not answer."""
    monkeypatch.setattr("offsite.replication.sets.creation.CREATING_SECONDS", 0.05)
    creation = london.replication.sets._creation
    with creation._creating, pytest.raises(InUse, match="another replication set is being created"):
        london.create_set("SalesDR", volume, "Newark")
    assert untouched(london, newark)
    london.create_set("SalesDR", volume, "Newark")


def test_an_answer_that_got_lost_leaves_a_set_that_can_be_made_again(
    london: Site, newark: Site, volume: int, proxied: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newark has made its half; London never heard."""
    monkeypatch.setattr("offsite.replication.inbound.peer_api.PeerApi.create_set", cutting(proxied))
    with pytest.raises(PeerUnreachable, match="it is unknown whether Newark created its part of set SalesDR"):
        london.create_set("SalesDR", volume, "Newark")
    assert london.replication.sets.get("SalesDR").status is Status.NOT_READY
    assert names(newark) == ["Sales"]
    with pytest.raises(NotAllowed, match="Not Ready"):
        london.replication.replicate("SalesDR")
    with pytest.raises(NotAllowed, match="created with other parameters"):
        london.create_set("SalesDR", volume, "Newark", None, "Elsewhere")

    monkeypatch.undo()
    made = london.create_set("SalesDR", volume, "Newark")
    assert made.status is Status.UNSYNCHRONIZED
    assert names(newark) == ["Sales"]
    assert london.run_to_end("SalesDR").state == "success"
    proxied.close()


def test_an_answer_that_got_lost_leaves_a_set_that_can_be_deleted(
    london: Site, newark: Site, volume: int, proxied: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offsite.replication.inbound.peer_api.PeerApi.create_set", cutting(proxied))
    with pytest.raises(PeerUnreachable):
        london.create_set("SalesDR", volume, "Newark")
    london.replication.sets.delete("SalesDR")
    assert not london.replication.sets.all() and not newark.replication.sets.all()
    proxied.close()


def cutting(proxy: Proxy) -> Callable[..., None]:
    create_set = PeerApi.create_set

    def then_cut(self: PeerApi, *arguments: object) -> None:
        create_set(self, *arguments)  # type: ignore[arg-type]  # passed on as it came
        proxy.cut()

    return then_cut


@pytest.mark.parametrize("from_the_secondary", [False, True])
def test_deleting_leaves_ordinary_volumes(london: Site, newark: Site, volume: int, from_the_secondary: bool) -> None:
    london.write(volume, 0, b"sales")
    london.create_set("SalesDR", volume, "Newark")
    london.run_to_end("SalesDR")
    (newark if from_the_secondary else london).replication.sets.delete("SalesDR")
    for site in (london, newark):
        assert not site.replication.sets.all()
        assert names(site) == ["Sales"]
        assert site.content("Sales").startswith(b"sales")
        assert site.events[-1][0] is events.SET_DELETED
        site.needs.check_deletable([site.pool.image(site.image_id("Sales"))])
        assert not site.replication.is_secondary(site.image_id("Sales"))


def test_deleting_here_alone_and_then_over_there(london: Site, newark: Site, volume: int) -> None:
    london.create_set("SalesDR", volume, "Newark")
    london.replication.sets.delete("SalesDR", local_only=True)
    assert not london.replication.sets.all()
    assert newark.replication.sets.all()
    newark.replication.sets.delete("SalesDR")
    assert not newark.replication.sets.all()


def test_deleting_needs_the_peer_unless_local(london: Site, newark: Site, volume: int) -> None:
    london.create_set("SalesDR", volume, "Newark")
    newark.replication.stop()
    with pytest.raises(PeerUnreachable, match=r"SalesDR cannot be deleted on both.*only here, with local-only"):
        london.replication.sets.delete("SalesDR")
    assert london.replication.sets.get("SalesDR").status is Status.UNSYNCHRONIZED
    london.replication.sets.delete("SalesDR", local_only=True)
    newark.open()
    newark.start()
    with pytest.raises(ObjectNotFound, match="'SalesDR'"):
        london.replication.sets.get("SalesDR")


def test_a_run_of_a_set_that_is_gone_over_there_fails_with_what_to_do(london: Site, newark: Site, volume: int) -> None:
    london.create_set("SalesDR", volume, "Newark")
    newark.replication.sets.delete("SalesDR", local_only=True)
    ended = london.run_to_trouble("SalesDR")
    assert ended.error == (
        "Newark: the replication set does not exist here; delete it on the other system with local-only"
    )
    assert london.replication.sets.get("SalesDR").current_run.error == ended.error  # type: ignore[union-attr]
    assert london.replication.abort("SalesDR") is False, "there is no other half to settle it with"
    london.replication.sets.delete("SalesDR")
    assert london.internal_names() == []


def test_the_images_of_a_set_are_guarded(london: Site, newark: Site, volume: int) -> None:
    london.create_set("SalesDR", volume, "Newark")
    london.run_to_end("SalesDR")

    def guarded(site: Site, image_id: int, sentence: str) -> None:
        with pytest.raises(InUse, match=sentence):
            site.needs.check_deletable([site.pool.image(image_id)])

    guarded(london, volume, "primary volume of replication set SalesDR")
    guarded(newark, newark.image_id("Sales"), "secondary volume of replication set SalesDR")
    (base,) = [image for image in london.pools["A"].images() if image.kind == "internal"]
    guarded(london, base.id, "replication set SalesDR uses it")
    assert newark.replication.is_secondary(newark.image_id("Sales"))
    assert not london.replication.is_secondary(volume)
    london.needs.check_deletable([london.pool.image(london.create_volume("Other", MIB))])


def test_a_secondary_whose_primary_is_gone_is_unknown(london: Site, newark: Site, volume: int) -> None:
    london.create_set("SalesDR", volume, "Newark")
    london.replication.stop()
    newark.replication.peers.reachability.forget()
    assert newark.replication.sets.get("SalesDR").status is Status.UNKNOWN
    london.open()
    london.start()


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({"ready": False, "has_base": True, "running": True}, Status.NOT_READY),
        ({"primary_is_gone": True, "running": True}, Status.UNKNOWN),
        ({"running": True, "suspended": True}, Status.SUSPENDED),
        ({"running": True}, Status.RUNNING),
        ({"has_base": True}, Status.READY),
        ({}, Status.UNSYNCHRONIZED),
    ],
)
def test_statuses(facts: dict[str, bool], status: Status) -> None:
    nothing = {"ready": True, "has_base": False, "running": False, "suspended": False, "primary_is_gone": False}
    assert status_of(**(nothing | facts)) is status
