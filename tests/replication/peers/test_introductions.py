"""An older or second copy of a system is not taken for it: real systems, copies of their directories, both ways."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from offsite import events
from offsite.clock import SystemClock
from offsite.errors import BadParameter, IncarnationRefused
from offsite.events import EventKind
from offsite.replication.link.dialer import Dialer
from offsite.replication.peers import incarnation_records
from offsite.replication.peers.incarnation import Start
from offsite.replication.peers.introductions import Introductions
from offsite.replication.transfer.receiver.endpoint import ReceiverEndpoint
from offsite.replication.wire.errors import NotPaired
from offsite.replication.wire.messages import (
    EARLIER_MAX,
    AnyMessage,
    ChangeSet,
    Done,
    ListSets,
    Ping,
    Position,
    SetSettings,
    SetsHeld,
    ToldAcquaintance,
    ToldStart,
    Unpair,
)
from tests.replication.proxy import Proxy
from tests.replication.sites import WAIT_SECONDS, Site, Unintroduced, pair, random_bytes
from tests.systems import wait_until

MIB = 1 << 20


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.runs.reconciler.SOON_SECONDS", 0.1)
    monkeypatch.setattr("offsite.replication.runs.reconciler.SELDOM_SECONDS", 0.2)


@pytest.fixture
def copies() -> Iterator[list[Site]]:
    """Those that a test makes, to be stopped."""
    made: list[Site] = []
    yield made
    for site in made:
        site.stop()


def copy_of(site: Site, copies: list[Site]) -> Site:
    """A copy of its state, not started yet."""
    made = Site.__new__(Site)
    made.__dict__.update(site.__dict__)
    made.directory = site.directory.with_name(f"{site.directory.name}-copy-{len(copies)}")
    made.directory.mkdir()
    with sqlite3.connect(site.directory / "state.db") as old, sqlite3.connect(made.directory / "state.db") as new:
        old.backup(new)
    made.disk, made.events, made.port = copy.deepcopy(site.disk), [], 0
    made.database = made.pool = None  # type: ignore[assignment]  # opened by start_copy
    return made


def start_copy(made: Site, copies: list[Site], port: int = 0) -> Site:
    made.port = port
    made.open()
    made.start()
    copies.append(made)
    return made


def go_away(site: Site) -> None:
    """For good: its fixture need not stop it any more."""
    site.stop()
    site.stop = lambda: None  # type: ignore[method-assign]


def speak(here: Site, there: str) -> None:
    """Raises IncarnationRefused."""
    peers = here.replication.peers
    with peers.connect(peers.record(there)) as connection:
        connection.channel.ask(connection.asking, Ping(), Done)


def told(site: Site, kind: EventKind) -> list[str]:
    return [message for each, message in site.events if each is kind]


def start_of(site: Site) -> str:
    return str(site.replication.introductions.current)


def test_starts_of_the_same_directory_are_one_system(london: Site, newark: Site) -> None:
    pair(london, newark)
    speak(london, "Newark")
    for _ in range(3):
        london.restart()
        newark.restart()
        speak(london, "Newark")
        speak(newark, "London")
    assert newark.replication.introductions.about(newark.replication.peers.record("London")).known.newest == (
        london.replication.introductions.current
    )
    for site in (london, newark):
        assert not told(site, events.PEER_IS_A_COPY)
        assert not told(site, events.SYSTEM_IS_A_COPY)


def test_however_often_a_system_was_started_while_its_peer_was_away(london: Site, newark: Site) -> None:
    """Also when a start was cut before it could say anything."""
    pair(london, newark)
    speak(london, "Newark")
    speak(newark, "London")
    for _ in range(EARLIER_MAX + 10):
        Introductions(london.database, london.identity, london.replication.contacts, lambda *_: None, SystemClock())
    london.restart()
    assert london.replication.introductions.current.number > EARLIER_MAX
    speak(newark, "London")
    speak(london, "Newark")


def test_an_older_copy_is_refused_both_ways_and_both_sides_are_told_once(
    london: Site, newark: Site, copies: list[Site]
) -> None:
    pair(london, newark)
    older = copy_of(london, copies)
    for _ in range(3):
        london.restart()
    speak(london, "Newark")
    newest = start_of(london)
    go_away(london)
    start_copy(older, copies, london.port)  # where London was: so Newark finds it, too
    for _ in range(3):
        with pytest.raises(IncarnationRefused, match=f"Newark regards this system .* as an older copy.*start {newest}"):
            speak(older, "Newark")
        with pytest.raises(IncarnationRefused, match=f"it is an older copy of it and is refused.*{start_of(older)}"):
            speak(newark, "London")
    (here,) = told(newark, events.PEER_IS_A_COPY)
    (there,) = told(older, events.SYSTEM_IS_A_COPY)
    for sentence in (here, there):
        assert start_of(older) in sentence
        assert newest in sentence
        assert "accept-incarnation" in sentence
    newark.restart()
    older.restart()  # what is refused stays so, and is no news
    with pytest.raises(IncarnationRefused):
        speak(newark, "London")
    with pytest.raises(IncarnationRefused):
        speak(older, "Newark")
    assert len(told(newark, events.PEER_IS_A_COPY)) == len(told(older, events.SYSTEM_IS_A_COPY)) == 1
    assert not newark.replication.peers.online("London")
    assert "an older copy" in newark.replication.peers.query(older.address).error


def test_an_operator_may_choose_the_older_one(london: Site, newark: Site, copies: list[Site]) -> None:
    pair(london, newark)
    older = copy_of(london, copies)
    london.restart()
    london.restart()
    speak(london, "Newark")
    start_copy(older, copies)
    with pytest.raises(IncarnationRefused):
        speak(older, "Newark")
    peers = newark.replication.peers
    with pytest.raises(BadParameter, match="'7-abc' of system London is neither"):
        peers.accept("London", "7-abc")
    peers.accept("London", start_of(older))
    speak(older, "Newark")
    with pytest.raises(IncarnationRefused):
        speak(london, "Newark")
    assert told(newark, events.COPY_SETTLED)
    assert told(older, events.COPY_SETTLED)
    assert told(london, events.SYSTEM_IS_A_COPY)
    peers.accept("London", start_of(london))
    speak(london, "Newark")
    with pytest.raises(IncarnationRefused):
        speak(older, "Newark")


def test_a_copy_beside_the_original_is_taken_as_long_as_it_looks_like_a_move_and_then_one_of_the_two_is_chosen(
    london: Site, newark: Site, copies: list[Site]
) -> None:
    pair(london, newark)
    speak(london, "Newark")
    twin = start_copy(copy_of(london, copies), copies)
    speak(twin, "Newark")
    with pytest.raises(IncarnationRefused):
        speak(london, "Newark")
    newark.replication.peers.accept("London", start_of(london))
    speak(london, "Newark")
    for _ in range(2):  # however often it is started
        with pytest.raises(IncarnationRefused, match="a copy that was rejected there"):
            speak(twin, "Newark")
        twin.restart()
    assert told(twin, events.SYSTEM_IS_A_COPY)
    london.restart()
    speak(london, "Newark")
    with pytest.raises(IncarnationRefused):
        speak(twin, "Newark")


def test_a_twin_that_is_started_more_often_does_not_come_to_be_the_newer_one(
    london: Site, newark: Site, copies: list[Site]
) -> None:
    pair(london, newark)
    twin = copy_of(london, copies)
    london.restart()
    speak(london, "Newark")
    start_copy(twin, copies)
    for _ in range(3):
        twin.restart()
        with pytest.raises(IncarnationRefused, match="a second copy of itself"):
            speak(twin, "Newark")
    assert len(told(newark, events.PEER_IS_A_COPY)) == 1
    speak(london, "Newark")


def test_a_copy_of_the_secondary_is_not_replicated_to(london: Site, newark: Site, copies: list[Site]) -> None:
    volume = london.create_volume("Sales", MIB)
    pair(london, newark)
    london.create_set("SalesDR", volume, "Newark")
    london.run_to_end("SalesDR")
    older = copy_of(newark, copies)
    newark.restart()
    newark.restart()
    london.run_to_end("SalesDR")
    go_away(newark)
    start_copy(older, copies, newark.port)
    run = london.replication.replicate("SalesDR").run
    london.await_trouble("SalesDR", "it is an older copy of it and is refused")
    wait_until("the copy knows", lambda: bool(told(older, events.SYSTEM_IS_A_COPY)))
    london.replication.peers.accept("Newark", start_of(older))
    london.await_end("SalesDR", run)  # tried again by itself


def test_a_peer_that_was_made_anew_is_met_for_the_first_time(london: Site, newark: Site, copies: list[Site]) -> None:
    pair(london, newark)
    older = copy_of(london, copies)
    london.restart()
    london.restart()
    speak(london, "Newark")
    start_copy(older, copies)
    newark.replication.peers.delete("London", local_only=True)
    older.replication.peers.delete("Newark", local_only=True)
    pair(older, newark)
    speak(older, "Newark")


def test_who_does_not_tell_its_start_any_more_is_refused(london: Site, newark: Site) -> None:
    """An older version of the software knows nothing of starts, and could be on any copy."""
    pair(london, newark)
    dialer = Dialer(london.authority, Unintroduced(london.identity), SystemClock())
    with (
        dialer.dial(newark.address, newark.authority.certificate_der) as connection,
        pytest.raises(IncarnationRefused, match="does not identify its start"),
    ):
        connection.channel.ask(connection.asking, Ping(), Done)


def test_strangers_are_told_nothing_of_starts(london: Site, newark: Site) -> None:
    with Dialer(london.authority, Unintroduced(london.identity), SystemClock()).dial(newark.address) as connection:
        assert (connection.hello.incarnation, connection.hello.known, connection.hello.now) == (None, None, None)


STRANGE = ToldStart(1 << 40, "0" * 16)
OLD = ToldStart(1, "0" * 16)


@pytest.mark.parametrize("what", ["newer", "refused", "confirmed", "refuses us"])
def test_a_peer_connection_that_is_deleted_while_the_peer_says_who_it_is_is_no_fault(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What would be put on record of it breaks a rule of the database: that ended the thread of all visits."""
    pair(london, newark)
    speak(london, "Newark")
    speak(newark, "London")
    peer, of = newark.replication.peers.record("London"), newark.replication.introductions
    hello = london.replication.introductions.hello(newark.authority.certificate_der)
    told, change = hello.incarnation, msgspec.structs.replace
    assert told is not None
    if what == "newer":
        hello = change(hello, incarnation=change(told, current=STRANGE, earlier=[told.current]))
    elif what == "refused":
        hello = change(hello, incarnation=change(told, current=OLD, earlier=[]))
    elif what == "confirmed":
        with newark.database.transaction() as connection:
            incarnation_records.put_confirmed(connection, peer.id, Start(7, "0" * 16))
    else:
        hello = change(hello, known=ToldAcquaintance(newest=STRANGE))
    find = of._find

    def find_and_delete(certificate: bytes) -> object:
        found = find(certificate)
        newark.replication.peers.delete("London", local_only=True)
        return found

    monkeypatch.setattr(of, "_find", find_and_delete)
    with pytest.raises(NotPaired, match="peer connection London was just deleted"):
        of.meet(peer.certificate, hello, 0.0)


# -- connections that are open while an operator chooses


def refuse_another_start(site: Site, peer: Site) -> str:
    """A copy of the peer comes, and is refused. Returns its start."""
    hello = peer.replication.introductions.hello(site.authority.certificate_der)
    assert hello.incarnation is not None
    told = msgspec.structs.replace(hello.incarnation, current=OLD, earlier=[])
    with pytest.raises(IncarnationRefused):
        site.replication.introductions.meet(
            site.replication.peers.record(peer.name).certificate,
            msgspec.structs.replace(hello, incarnation=told),
            0.0,
        )
    return OLD.id


def test_a_run_of_the_start_that_is_given_up_gets_to_no_commit(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection was opened before. The copy that it would replace may be what the chosen one goes on with."""
    volume = london.create_volume("Sales", MIB)
    pair(london, newark)
    london.create_set("SalesDR", volume, "Newark")
    chosen = refuse_another_start(newark, london)
    london.write(volume, 0, b"x" * 4096)
    store, stored = ReceiverEndpoint.store, list[str]()

    def store_and_choose(side: ReceiverEndpoint, *arguments: Any) -> Position:
        if not stored:
            stored.append("once")
            newark.replication.peers.accept("London", chosen)
        return store(side, *arguments)

    monkeypatch.setattr(ReceiverEndpoint, "store", store_and_choose)
    london.replication.replicate("SalesDR")
    london.await_trouble("SalesDR", "Newark")
    assert stored and newark.content("Sales") == bytes(MIB)
    assert newark.replication.sets.get("SalesDR").recovery_point_at is None


CHANGE = ChangeSet(generation=1, set_uuid="u" * 36, settings=SetSettings(name="S"))


@pytest.mark.parametrize("message", [ListSets(), Unpair(), CHANGE])
def test_nothing_is_done_any_more_for_a_start_that_is_given_up(london: Site, newark: Site, message: AnyMessage) -> None:
    pair(london, newark)
    chosen = refuse_another_start(newark, london)
    peers = london.replication.peers
    with peers.connect(peers.record("Newark")) as connection:
        connection.channel.ask(connection.asking, ListSets(), SetsHeld)
        newark.replication.peers.accept("London", chosen)
        with pytest.raises(IncarnationRefused, match="is from another start"):
            connection.channel.ask(connection.asking, message, Done)
    assert newark.replication.peers.record("London")


def test_nothing_more_is_sent_to_a_start_that_is_given_up(london: Site, newark: Site) -> None:
    """A run that is under way would make its copy the base here."""
    volume = london.create_volume("Sales", 8 * MIB)
    london.write(volume, 0, random_bytes(6 * MIB))
    pair(london, newark)
    london.create_set("SalesDR", volume, "Newark")
    link = Proxy(newark.port)
    with london.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE peers SET address = ?", (link.address,))
    chosen = refuse_another_start(london, newark)
    link.stall_at = link.bytes_there + 3 * MIB
    london.replication.replicate("SalesDR")
    assert link.stalled.wait(WAIT_SECONDS)
    london.replication.peers.accept("Newark", chosen)
    london.await_progress("SalesDR", lambda now: now.state == "waiting")
    link.stalled.clear()
    london.await_trouble("SalesDR", "and is refused")
    link.close()
