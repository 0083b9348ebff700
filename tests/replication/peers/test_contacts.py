"""Operators are told when a peer is gone and when it is back, and when its clock differs: once, and on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from offsite import events
from offsite.events import EventKind
from offsite.replication.peers.contact_records import ContactRecord
from offsite.replication.peers.contacts import Contacts
from offsite.replication.transfer.receiver.endpoint import ReceiverEndpoint
from offsite.replication.wire.messages import Done, Ping, Position
from offsite.store.settings import CLOCK_SKEW_WARNING, PEER_GONE_AFTER, Settings
from tests.replication.runs.test_dispatcher import Quiet
from tests.replication.sites import WAIT_SECONDS, Site, pair
from tests.systems import wait_until

MIB = 1 << 20


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.runs.reconciler.SOON_SECONDS", 0.1)
    monkeypatch.setattr("offsite.replication.runs.reconciler.SELDOM_SECONDS", 0.2)


@pytest.fixture
def pairs(soon: None, london: Site, newark: Site) -> None:
    del soon
    for site in (london, newark):
        Settings(site.database).set(PEER_GONE_AFTER, "1")
    pair(london, newark)


def told(site: Site, kind: EventKind) -> list[str]:
    return [message for each, message in site.events if each is kind]


def visits(site: Site, peer: str) -> None:
    peers = site.replication.peers
    with peers.connect(peers.record(peer)) as connection:
        connection.channel.ask(connection.asking, Ping(), Done)


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Quiet]:
    """A system that visits nobody: a test says how its visits go, and when."""
    site = Quiet(tmp_path / "quiet", "London")
    site.add_peer()
    yield site
    site.database.close()


# -- gone and back


def test_an_outage_is_told_once_with_the_instant_of_the_first_visit_that_failed(quiet: Quiet) -> None:
    peer, contacts, began = quiet.replication.peers.record("Newark"), quiet.replication.contacts, quiet.clock.time
    for seconds, told_by_then in ((0, 0), (299, 0), (300, 1), (600, 1), (86400, 1)):
        quiet.clock.time = began + seconds
        contacts.failed(peer, "no way there")
        assert [kind for kind, _ in quiet.told] == [events.PEER_GONE] * told_by_then, seconds
    assert contacts.about(peer).gone_since == began


def test_of_two_connections_only_one_tells(quiet: Quiet) -> None:
    """The other one has looked at the record just before."""
    peer, contacts = quiet.replication.peers.record("Newark"), quiet.replication.contacts
    contacts.failed(peer, "no way there")
    quiet.clock.time += 300
    contacts.failed(peer, "no way there")
    for _ in range(2):
        contacts._tell_back(peer)
    contacts.heard(peer, quiet.clock.time + 3600, 0.0)
    contacts._note_skew(peer, ContactRecord(), 30.0)
    assert [kind for kind, _ in quiet.told] == [events.PEER_GONE, events.PEER_BACK, events.CLOCKS_DIFFER]


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize(("here", "there"), [("london", "newark"), ("newark", "london")])
@pytest.mark.parametrize("with_a_set", [False, True])
def test_a_peer_that_is_gone_is_told_and_that_it_is_back(
    request: pytest.FixtureRequest, london: Site, here: str, there: str, with_a_set: bool
) -> None:
    """From either side: the secondary tells of the primary's end, too; and with or without a set."""
    if with_a_set:
        london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    left: Site = request.getfixturevalue(here)
    gone: Site = request.getfixturevalue(there)
    wait_until(
        "it was heard", lambda: not left.replication.contacts.is_silent(left.replication.peers.record(gone.name))
    )
    gone.stop()
    wait_until("it is told", lambda: bool(told(left, events.PEER_GONE)))
    (sentence,) = told(left, events.PEER_GONE)
    assert f"System {gone.name} (peer connection {gone.name}) has been unreachable since" in sentence
    assert left.replication.peers.get(gone.name).contact.gone_since is not None
    left.restart()  # it is still gone, which is no news
    for _ in range(3):
        left.replication.reconciler.step()
    record = left.replication.peers.record(gone.name)
    left.replication.contacts.failed(record, "again")
    wait_until("it would be told", lambda: left.replication.contacts.is_silent(record))
    gone.open()
    gone.start()
    wait_until("it is told", lambda: bool(told(left, events.PEER_BACK)))
    assert left.replication.peers.get(gone.name).contact.gone_since is None
    assert (len(told(left, events.PEER_GONE)), len(told(left, events.PEER_BACK))) == (1, 1)


def test_a_short_silence_is_not_told(london: Site, newark: Site) -> None:
    pair(london, newark)
    newark.stop()
    record = london.replication.peers.record("Newark")
    wait_until("a visit failed", lambda: london.replication.contacts.is_silent(record))
    newark.open()
    newark.start()
    wait_until("it is back", lambda: not london.replication.contacts.is_silent(record))
    assert not told(london, events.PEER_GONE)
    assert not told(london, events.PEER_BACK)


@pytest.mark.usefixtures("pairs")
def test_a_peer_that_speaks_with_us_is_not_gone_though_we_cannot_reach_it(london: Site, newark: Site) -> None:
    visits(london, "Newark")
    peer, contacts = newark.replication.peers.record("London"), newark.replication.contacts
    contacts.failed(peer, "no way there")
    visits(london, "Newark")
    assert not contacts.is_silent(peer)


@pytest.mark.usefixtures("pairs")
def test_a_peer_that_a_run_goes_on_with_is_not_gone_though_no_visit_gets_through(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On both sides: a visit gives each word a second, which a link that a run fills may not have left."""
    london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    london.write(london.image_id("Sales"), 0, b"x" * 4096)
    for site in (london, newark):
        site.replication._tickers[1].stop(WAIT_SECONDS)
    monkeypatch.setattr("offsite.replication.peers.contacts.ALIVE_SECONDS", 0.0)
    sides = [(london, london.replication.peers.record("Newark")), (newark, newark.replication.peers.record("London"))]
    store, failed = ReceiverEndpoint.store, list[str]()

    def store_while_visits_fail(side: ReceiverEndpoint, *arguments: Any) -> Position:
        for site, peer in sides:
            site.replication.contacts.failed(peer, "no room on the link")
            failed.append(peer.name)
        return store(side, *arguments)

    monkeypatch.setattr(ReceiverEndpoint, "store", store_while_visits_fail)
    london.run_to_end("SalesDR")
    assert failed
    for site, peer in sides:
        assert not site.replication.contacts.is_silent(peer)


# -- clocks


def test_a_skew_that_changes_is_told_once_and_so_is_its_end(quiet: Quiet) -> None:
    peer, contacts = quiet.replication.peers.record("Newark"), quiet.replication.contacts
    for ahead_seconds in (3600.0, 3600.0, 7200.0, 3600.0, 0.0, 0.0, 2.0, 2.9):
        contacts.heard(peer, quiet.clock.time + ahead_seconds, 0.0)
    assert [kind for kind, _ in quiet.told] == [events.CLOCKS_DIFFER, events.CLOCKS_AGREE]
    after_a_start = Contacts(quiet.database, quiet.report, quiet.clock).about(peer).skew
    assert after_a_start is not None, "also one that is not told is on record, though not each change of it"
    assert abs(after_a_start.seconds - 2.9) <= after_a_start.uncertainty_seconds


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("ahead_seconds", [3600.0, -3600.0, 9.0])
def test_clocks_that_differ_are_told_on_both_sides_and_when_they_agree_again(
    london: Site, newark: Site, ahead_seconds: float
) -> None:
    london.wall_clock.ahead_seconds = ahead_seconds
    for site in (london, newark):
        wait_until("it is told", lambda site=site: bool(told(site, events.CLOCKS_DIFFER)))  # type: ignore[misc]
    how = ("ahead", "behind") if ahead_seconds > 0 else ("behind", "ahead")
    assert f"from this system's: it is {abs(ahead_seconds):.0f}." in told(newark, events.CLOCKS_DIFFER)[0]
    assert f"s {how[0]}." in told(newark, events.CLOCKS_DIFFER)[0]
    assert f"s {how[1]}." in told(london, events.CLOCKS_DIFFER)[0]
    newark.restart()
    visits(newark, "London")
    skew = newark.replication.peers.get("London").contact.skew
    assert skew is not None
    assert abs(skew.seconds - ahead_seconds) <= skew.uncertainty_seconds + 0.1
    london.wall_clock.ahead_seconds = 0.0
    for site in (london, newark):
        wait_until("it is over", lambda site=site: bool(told(site, events.CLOCKS_AGREE)))  # type: ignore[misc]
        assert (len(told(site, events.CLOCKS_DIFFER)), len(told(site, events.CLOCKS_AGREE))) == (1, 1)


@pytest.mark.usefixtures("pairs")
def test_the_least_skew_that_is_told_is_a_setting(london: Site, newark: Site) -> None:
    Settings(newark.database).set(CLOCK_SKEW_WARNING, "7200")
    london.wall_clock.ahead_seconds = 3600.0
    wait_until("London tells it", lambda: bool(told(london, events.CLOCKS_DIFFER)))
    visits(newark, "London")
    assert not told(newark, events.CLOCKS_DIFFER)


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("ahead_seconds", [3600.0, -3600.0])
def test_the_lag_on_the_secondary_is_by_the_clock_of_the_primary(
    london: Site, newark: Site, ahead_seconds: float
) -> None:
    london.wall_clock.ahead_seconds = ahead_seconds
    london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    london.run_to_end("SalesDR")
    visits(newark, "London")

    def lag(site: Site) -> float | None:
        return site.replication.sets.get("SalesDR").lag_seconds

    here, there = lag(london), lag(newark)
    assert here is not None
    assert there is not None
    assert abs(here - there) < 60
    london.stop()
    newark.restart()  # the primary's clock is on record
    there = lag(newark)
    assert there is not None
    assert 0 <= there < 120
    newark.wall_clock.ahead_seconds -= 600.0  # set back since: what is on record is of another time than this clock's
    newark.replication.contacts._contacts.clear()
    assert lag(newark) is None
    london.open()
    london.start()


def test_a_lag_that_nobody_can_know_is_unknown(london: Site, newark: Site) -> None:
    pair(london, newark)
    london.create_set("SalesDR", london.create_volume("Sales", MIB), "Newark")
    london.run_to_end("SalesDR")
    london.wall_clock.ahead_seconds = -3600.0
    shown = london.replication.sets.get("SalesDR")
    assert shown.recovery_point_at is not None
    assert shown.lag_seconds is None
    newark.replication.contacts.remote_time = lambda _: None  # type: ignore[assignment,method-assign]  # it was never told
    shown = newark.replication.sets.get("SalesDR")
    assert shown.recovery_point_at is not None
    assert shown.lag_seconds is None


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("ahead_seconds", [-4e9, 4e9])
def test_a_clock_that_shows_no_date_ends_no_connection(london: Site, newark: Site, ahead_seconds: float) -> None:
    london.wall_clock.ahead_seconds = ahead_seconds
    visits(london, "Newark")
    visits(newark, "London")


def test_what_is_heard_of_a_peer_that_was_deleted_just_now_is_no_fault(london: Site, newark: Site) -> None:
    """Its records would break a rule of the database."""
    pair(london, newark)
    peer, contacts = london.replication.peers.record("Newark"), london.replication.contacts
    london.replication.peers.delete("Newark", local_only=True)
    contacts.heard(peer, 1_000_000.0, 0.0)
    Settings(london.database).set(PEER_GONE_AFTER, "1")
    contacts.failed(peer, "gone")
    contacts._contacts[peer.system_uuid].silent_since = -1e9
    contacts.failed(peer, "gone")
    assert not told(london, events.CLOCKS_DIFFER) and not told(london, events.PEER_GONE)


class SteppedClock:
    """Stands still but for what a test lets pass."""

    time = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time - 1_700_000_000.0


def test_what_a_hello_waits_for_here_is_no_skew_of_the_clocks(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its time is looked at, a commit may hold up what is put on record of the peer's start."""
    pair(london, newark)
    for ticker in (*london.replication._tickers, *newark.replication._tickers):
        ticker.stop(WAIT_SECONDS)
    of, contacts, clock = newark.replication.introductions, newark.replication.contacts, SteppedClock()
    hello = london.replication.introductions.hello(newark.authority.certificate_der)
    hello = msgspec.structs.replace(hello, now=clock.now() - 0.1)
    peer, check = newark.replication.peers.record("London"), of._check_peer

    def check_and_wait(*arguments: Any) -> None:
        check(*arguments)
        clock.time += 30.0

    monkeypatch.setattr(of, "_check_peer", check_and_wait)
    monkeypatch.setattr(of, "_clock", clock)
    monkeypatch.setattr(contacts, "_clock", clock)
    contacts._contacts.clear()
    of.meet(peer.certificate, hello, 0.2)
    skew = contacts.about(peer).skew
    assert skew is not None and abs(skew.seconds) <= 0.2
