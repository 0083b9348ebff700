"""Changes of a peer connection, over real sockets on loopback: who may change what; a refusal changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from offsite import events
from offsite.access.certificates import Authority
from offsite.clock import SystemClock
from offsite.errors import (
    AuthenticationFailed,
    BadParameter,
    CertificateChanged,
    InUse,
    NameInUse,
    ObjectNotFound,
    OffsiteError,
    PeerRefused,
    PeerUnreachable,
)
from offsite.replication.bandwidth.calendar import parse_calendar
from offsite.replication.inbound.session import Session
from offsite.replication.link.channel import PeerChannel
from offsite.replication.link.dialer import Dialer
from offsite.replication.link.identity import SystemIdentity
from offsite.replication.peers.modification import NO_LIMIT, PeerChange
from offsite.replication.peers.pairing import Login, ask_to_pair
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.run_states import RunEvent
from offsite.replication.records.run_writer import change_run
from offsite.replication.records.set_records import all_sets
from offsite.replication.wire.messages import Message, Ping
from offsite.store.settings import TIME_ZONE
from offsite.store.settings import Settings as SystemSettings
from tests.replication.proxy import Proxy
from tests.replication.sites import PASSWORD, WAIT_SECONDS, Site, Unintroduced, pair, random_bytes

LOGIN = Login("manage", PASSWORD)


def change(site: Site, peer: str, /, **values: object) -> None:
    site.replication.peers.change(peer, PeerChange(**values))  # type: ignore[arg-type]


@contextmanager
def refused(*sites: Site, error: type[OffsiteError], match: str) -> Iterator[None]:
    """The peers of both systems stay as they were."""

    def state() -> list[object]:
        found: list[object] = []
        for site in sites:
            with site.database.read() as connection:
                found.append(connection.exec_driver_sql("SELECT * FROM peers").all())
        return found

    before = state()
    with pytest.raises(error, match=match):
        yield
    assert state() == before


def new_certificate(site: Site) -> None:
    """The system loses its keys, and starts with others."""
    site.replication.stop()
    site.authority = Authority(site.directory / "other-keys", site.name, ["127.0.0.1"])
    site.open()
    site.start()


def connected(one: Site, other: Site) -> bool:
    """Both ways, as it is at this instant."""
    for site, peer in ((one, other.name), (other, one.name)):
        site.replication.peers.reachability.forget()
        if not site.replication.peers.online(peer):
            return False
    return True


def await_connected(one: Site, other: Site) -> None:
    """On a busy machine a peer may miss the deadline of a look at it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not connected(one, other):
        assert time.monotonic() < deadline, f"{one.name} and {other.name} are still not connected"


def with_set(london: Site, newark: Site) -> int:
    """Returns the id of a set that is primary in London."""
    pair(london, newark)
    london.create_set("SalesDR", london.create_volume("Sales", 1 << 20), "Newark")
    with london.database.read() as connection:
        return all_sets(connection)[0].id


@contextmanager
def way_to(site: Site) -> Iterator[Proxy]:
    """Another address of a system."""
    made = Proxy(site.port)
    yield made
    made.close()


@pytest.fixture
def proxy(newark: Site) -> Iterator[Proxy]:
    with way_to(newark) as made:
        yield made


def test_a_new_name_is_a_matter_of_this_system_alone(london: Site, newark: Site) -> None:
    pair(london, newark)
    change(london, "Newark", name="East")
    assert [peer.name for peer in london.replication.peers.all()] == ["East"]
    assert [peer.name for peer in newark.replication.peers.all()] == ["London"]
    kind, message = london.events[-1]
    assert kind is events.PEER_CHANGED
    assert message == "Peer connection Newark was changed: its name is East."
    change(london, "East", name="East")


def test_what_is_refused_before_anyone_is_asked(london: Site, newark: Site, tmp_path: Path) -> None:
    paris = Site(tmp_path / "paris", "Paris").start()
    pair(london, newark)
    pair(london, paris)
    paris.stop()
    for values, error, match in (
        ({}, BadParameter, "no change specified"),
        ({"name": "a,b"}, BadParameter, "peer connection name 'a,b'"),
        ({"name": "Paris"}, NameInUse, "'Paris'"),
        ({"name": "Paris", "bandwidth_limit": 10**6}, NameInUse, "'Paris'"),
        ({"address": "host:0"}, BadParameter, "is not HOST"),
    ):
        with refused(london, newark, error=error, match=match):
            change(london, "Newark", **values)
    with refused(london, newark, error=ObjectNotFound, match="'Rome'"):
        change(london, "Rome", name="X")


def test_a_new_address_is_taken_when_the_same_system_answers_there(london: Site, newark: Site, proxy: Proxy) -> None:
    pair(london, newark)
    change(london, "Newark", address=proxy.address)
    assert london.replication.peers.get("Newark").address == proxy.address
    assert proxy.bytes_there > 0
    await_connected(london, newark)
    assert f"its address is {proxy.address} (it was {newark.address})" in london.events[-1][1]


def test_a_new_address_where_another_or_nobody_answers_is_refused(london: Site, newark: Site, tmp_path: Path) -> None:
    paris = Site(tmp_path / "paris", "Paris").start()
    pair(london, newark)
    with refused(london, newark, error=CertificateChanged, match=paris.authority.fingerprint):
        change(london, "Newark", address=paris.address)
    address = paris.address
    paris.stop()
    with refused(london, newark, error=PeerUnreachable, match="cannot reach"):
        change(london, "Newark", address=address, name="East")
    newark.replication.peers.delete("London", local_only=True)
    with refused(london, newark, error=PeerRefused, match="does not know this system"):
        change(london, "Newark", address=newark.address.replace("127.0.0.1", "localhost"))


RUN = "0" * 36


def nothing_by_itself(site: Site) -> None:
    """Runs that a test puts on record stay as they are."""
    for ticker in site.replication._tickers:
        ticker.stop(5)


def test_a_new_address_is_refused_while_a_run_uses_it(london: Site, newark: Site, proxy: Proxy) -> None:
    set_id = with_set(london, newark)
    nothing_by_itself(london)
    with london.database.transaction() as connection:
        change_run(connection, set_id, RUN, RunEvent.START, 0.0)
    for login in (None, LOGIN):
        with refused(london, newark, error=InUse, match=r"replication sets SalesDR are replicating.*suspend"):
            change(london, "Newark", address=proxy.address, login=login)
    assert proxy.bytes_there == 0, "nobody was asked"
    change(london, "Newark", name="East", address=newark.address, login=LOGIN, bandwidth_limit=10**6)
    with london.database.transaction() as connection:
        change_run(connection, set_id, RUN, RunEvent.COMPLETE, 1.0)
    change(london, "East", address=proxy.address)


@pytest.mark.parametrize("state", ["preparing", "queued", "running"])
def test_a_suspended_set_does_not_hold_up_a_new_address(london: Site, newark: Site, proxy: Proxy, state: str) -> None:
    """Else nobody could tell it where a peer has gone to that its run waits for."""
    set_id = with_set(london, newark)
    nothing_by_itself(london)
    with london.database.transaction() as connection:
        change_run(connection, set_id, RUN, RunEvent.START, 0.0)
        connection.exec_driver_sql(f"UPDATE runs SET state = '{state}'")
    with refused(london, newark, error=InUse, match="SalesDR"):
        change(london, "Newark", address=proxy.address)
    with london.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE replication_sets SET suspended = 1")
    change(london, "Newark", address=proxy.address)


def test_a_run_that_begins_while_the_new_address_is_tried_is_noticed(
    london: Site, newark: Site, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_id = with_set(london, newark)
    nothing_by_itself(london)

    def begin(_connection: object) -> None:
        with london.database.transaction() as connection:
            change_run(connection, set_id, RUN, RunEvent.START, 0.0)

    monkeypatch.setattr("offsite.replication.peers.modification.ping", begin)
    with refused(london, newark, error=InUse, match="SalesDR"):
        change(london, "Newark", address=proxy.address)


def test_a_peer_that_is_deleted_while_the_new_address_is_tried_stays_so(
    london: Site, newark: Site, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(london, newark)

    def delete(_connection: object) -> None:
        london.replication.peers.delete("Newark", local_only=True)

    monkeypatch.setattr("offsite.replication.peers.modification.ping", delete)
    with pytest.raises(ObjectNotFound, match="was just deleted"):
        change(london, "Newark", address=proxy.address)
    assert london.replication.peers.all() == []


def test_a_run_that_the_peer_sends_does_not_hold_up_a_new_address_of_the_peer(london: Site, newark: Site) -> None:
    """It came in; it is not sent to that address."""
    with_set(london, newark)
    nothing_by_itself(newark)
    with newark.database.transaction() as connection:
        change_run(connection, all_sets(connection)[0].id, RUN, RunEvent.BEGIN, 0.0)
    with way_to(london) as proxy:
        change(newark, "London", address=proxy.address)


@pytest.mark.parametrize("lost", ["here", "there", "both"])
def test_a_lost_certificate_is_replaced_by_logging_in_again(london: Site, newark: Site, lost: str) -> None:
    """From whichever side; the sets stay, and what they sent is not sent again."""
    with_set(london, newark)
    london.write(london.image_id("Sales"), 0, b"before" * 1000)
    assert london.run_to_end("SalesDR").state == "success"
    before = {site.name: site.authority.fingerprint for site in (london, newark)}
    if lost in ("here", "both"):
        new_certificate(london)
    if lost in ("there", "both"):
        new_certificate(newark)
    assert not connected(london, newark)
    london.run_to_trouble("SalesDR")
    london.events.clear()
    newark.events.clear()

    change(london, "Newark", address=newark.address, login=LOGIN)
    await_connected(london, newark)
    replaced = [message for kind, message in london.events if kind is events.PEER_CERTIFICATE_REPLACED]
    over_there = [message for kind, message in newark.events if kind is events.PEER_CERTIFICATE_REPLACED]
    if lost in ("there", "both"):
        assert before["Newark"] in replaced[0] and newark.authority.fingerprint in replaced[0]
    if lost in ("here", "both"):
        assert london.authority.fingerprint in replaced[-1]
        assert before["London"] in over_there[0] and london.authority.fingerprint in over_there[0]
        assert "manage" in over_there[0] and PASSWORD not in over_there[0]
    assert (len(replaced), len(over_there)) == {"here": (1, 1), "there": (1, 0), "both": (2, 1)}[lost]

    assert london.await_end("SalesDR").state == "success", "the run that waited goes on by itself"
    london.write(london.image_id("Sales"), 8192, b"after" * 1000)
    run = london.run_to_end("SalesDR")
    assert (run.state, run.error) == ("success", None)
    assert newark.content("Sales") == london.content("Sales")


def test_logging_in_again_with_nothing_lost_is_harmless(london: Site, newark: Site, proxy: Proxy) -> None:
    pair(london, newark)
    change(newark, "London", name="Home")
    change(london, "Newark", address=proxy.address, login=LOGIN)
    assert london.events[-1][0] is events.PEER_CHANGED
    assert "user manage logged in to system Newark again" in london.events[-1][1]
    assert all(kind is not events.PEER_CERTIFICATE_REPLACED for kind, _ in london.events + newark.events)
    assert newark.replication.peers.online("Home")


def test_a_peer_that_has_forgotten_us_knows_us_again(london: Site, newark: Site) -> None:
    pair(london, newark)
    newark.replication.peers.delete("London", local_only=True)
    change(london, "Newark", login=LOGIN)
    await_connected(london, newark)


def test_the_address_that_the_other_side_has_for_us_stays(london: Site, newark: Site) -> None:
    """Its own user may have set it: the way back need not be the way here."""
    pair(london, newark)
    with way_to(london) as way_back:
        change(newark, "London", address=way_back.address)
        new_certificate(london)
        change(london, "Newark", login=LOGIN)
        assert newark.replication.peers.get("London").address == way_back.address


def test_a_system_with_another_uuid_is_another_system(london: Site, newark: Site) -> None:
    pair(london, newark)
    newark.identity = SystemIdentity("n" * 36, "Newark")
    new_certificate(newark)
    with refused(london, newark, error=BadParameter, match=r"another system.*The password was not sent"):
        change(london, "Newark", login=Login("manage", "wrong"))
    assert events.LOGIN_FAILED not in [kind for kind, _ in newark.events], "a wrong password would have been tried"


def test_a_wrong_password_replaces_nothing(london: Site, newark: Site) -> None:
    pair(london, newark)
    new_certificate(london)
    with refused(london, newark, error=AuthenticationFailed, match="Newark: user 'manage' does not exist"):
        change(london, "Newark", login=Login("manage", "wrong-Password-1"))


def test_the_password_is_not_sent_to_a_system_with_another_fingerprint(london: Site, newark: Site) -> None:
    pair(london, newark)
    new_certificate(newark)
    with refused(london, newark, error=CertificateChanged, match="the password was not sent"):
        change(london, "Newark", login=Login("manage", "wrong", "ab" * 32))
    assert events.LOGIN_FAILED not in [kind for kind, _ in newark.events]
    change(london, "Newark", login=Login("manage", PASSWORD, newark.authority.fingerprint))
    await_connected(london, newark)


def paired_with_third(london: Site, newark: Site, tmp_path: Path) -> Site:
    paris = Site(tmp_path / "paris", "Paris").start()
    pair(london, newark)
    pair(london, paris)
    return paris


def test_the_certificate_of_another_peer_is_taken_for_no_one_else(london: Site, newark: Site, tmp_path: Path) -> None:
    """Someone copied keys from one system to another."""
    paris = paired_with_third(london, newark, tmp_path)
    paris.replication.stop()
    newark.replication.stop()
    newark.authority = paris.authority
    newark.open()
    newark.start()
    with refused(london, newark, error=InUse, match="peer connection Paris already has this certificate"):
        change(london, "Newark", login=LOGIN)
    paris.database.close()


def test_nor_over_there(london: Site, newark: Site, tmp_path: Path) -> None:
    paris = paired_with_third(london, newark, tmp_path)
    identity = SystemIdentity(newark.identity.uuid, "Newark")
    with (
        refused(london, newark, error=InUse, match="London: peer connection Paris already has this certificate"),
        Dialer(paris.authority, Unintroduced(identity), SystemClock()).dial(london.address) as connection,
    ):
        ask_to_pair(connection, LOGIN, paris.authority.certificate_der, ("", 1), replace=True)
    paris.stop()


def test_only_a_request_that_says_so_replaces_a_certificate(london: Site, newark: Site) -> None:
    pair(london, newark)
    new_certificate(london)
    dialer = Dialer(london.authority, Unintroduced(london.identity), SystemClock())
    own = london.authority.certificate_der

    def ask(login: Login, replace: bool) -> None:
        with dialer.dial(newark.address) as connection:
            ask_to_pair(connection, login, own, ("", london.port), replace=replace)

    with refused(newark, error=CertificateChanged, match="use set peer-connection remote-username"):
        ask(LOGIN, replace=False)
    with refused(newark, error=AuthenticationFailed, match="another password"):
        ask(Login("manage", "guess"), replace=True)
    ask(LOGIN, replace=True)
    assert newark.replication.peers.get("London").fingerprint == london.authority.fingerprint


def test_the_old_certificate_is_not_let_in_any_more(london: Site, newark: Site) -> None:
    pair(london, newark)
    thief = Dialer(london.authority, Unintroduced(london.identity), SystemClock())
    new_certificate(london)
    change(london, "Newark", login=LOGIN)
    with pytest.raises(PeerRefused, match="does not know this system's certificate"):
        thief.dial(newark.address, newark.authority.certificate_der)


def test_a_calendar_is_in_the_time_zone_of_the_system(london: Site, newark: Site) -> None:
    """One that is in another zone than the machine is: there it is already tomorrow, or still yesterday."""
    pair(london, newark)
    utc = datetime.fromtimestamp(time.time(), UTC)
    there = "Etc/GMT-12" if utc.hour >= 12 else "Etc/GMT+12"  # 12 hours east of Greenwich, or west of it
    day = utc.astimezone(ZoneInfo(there)).strftime("%a")
    assert day != utc.strftime("%a")
    change(london, "Newark", bandwidth_limit=10**6, bandwidth_calendar=parse_calendar(f"{day} 00:00-24:00 2MB"))
    settings = SystemSettings(london.database)
    settings.set(TIME_ZONE, there)
    assert london.replication.peers.get("Newark").limit_now == 2 * 10**6
    settings.set(TIME_ZONE, "UTC")
    assert london.replication.peers.get("Newark").limit_now == 10**6


def test_limits_are_stored_shown_and_lifted(london: Site, newark: Site) -> None:
    pair(london, newark)
    peer = london.replication.peers.get("Newark")
    assert (peer.bandwidth_limit, peer.bandwidth_calendar, peer.limit_now) == (None, "", None)
    calendar = parse_calendar("Mon-Sun 00:00-24:00 2MB")
    change(london, "Newark", bandwidth_limit=10**6)
    assert london.replication.peers.get("Newark").limit_now == 10**6
    change(london, "Newark", bandwidth_calendar=calendar)
    london.restart()
    peer = london.replication.peers.get("Newark")
    assert (peer.bandwidth_limit, peer.bandwidth_calendar, peer.limit_now) == (10**6, str(calendar), 2 * 10**6)
    change(london, "Newark", bandwidth_limit=NO_LIMIT)
    assert london.replication.peers.get("Newark").limit_now == 2 * 10**6
    change(london, "Newark", bandwidth_calendar=parse_calendar("none"))
    assert london.replication.peers.get("Newark").limit_now is None
    assert "its bandwidth calendar is none" in london.events[-1][1]
    (other,) = newark.replication.peers.all()
    assert other.bandwidth_limit is None, "a limit is for what this system sends"


def test_runs_under_way_hear_of_a_new_limit(london: Site, newark: Site) -> None:
    pair(london, newark)
    peers = london.replication.peers
    pacing = peers.pacing(peers.record("Newark").id)
    assert not pacing.is_limited
    change(london, "Newark", bandwidth_limit=10**6)
    assert pacing.is_limited
    change(london, "Newark", bandwidth_limit=NO_LIMIT)
    assert not pacing.is_limited


@pytest.mark.slow
def test_the_other_side_is_pinged_while_a_run_waits_for_its_bandwidth(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real sessions: a ping between batches is answered, and taken for no Ack."""
    monkeypatch.setattr("offsite.replication.transfer.sender.driver.PING_SECONDS", 0.1)
    pings, answer = 0, Session._answer

    def counted(
        session: Session, channel: PeerChannel, peer: PeerRecord, message: Message, payload: memoryview
    ) -> object:
        nonlocal pings
        pings += isinstance(message, Ping) and session._run is not None
        return answer(session, channel, peer, message, payload)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "_answer", counted)
    with_set(london, newark)
    change(london, "Newark", bandwidth_limit=10**6)
    london.write(london.image_id("Sales"), 0, random_bytes(1 << 20))
    london.run_to_end("SalesDR")
    london.write(london.image_id("Sales"), 0, random_bytes(1 << 20, 1))
    run = london.run_to_end("SalesDR")
    assert (run.state, run.error) == ("success", None)
    assert newark.content("Sales") == london.content("Sales")
    assert pings >= 3


def test_an_answer_from_the_old_address_does_not_count_for_the_new_one(
    london: Site, newark: Site, proxy: Proxy
) -> None:
    pair(london, newark)
    assert london.replication.peers.online("Newark")
    change(london, "Newark", address=proxy.address)
    proxy.refusing = True
    proxy.cut()
    assert not london.replication.peers.online("Newark")


def test_an_answer_that_is_still_awaited_from_the_old_address_does_not_count_either(
    london: Site, newark: Site, proxy: Proxy
) -> None:
    pair(london, newark)
    change(london, "Newark", address=proxy.address)
    proxy.stalled.set()
    assert not london.replication.peers.online("Newark"), "no answer yet"
    change(london, "Newark", address=newark.address)
    assert london.replication.peers.online("Newark")
    proxy.stalled.clear()


def test_a_password_does_not_show_in_what_is_printed() -> None:
    shown: Callable[[object], str] = repr
    assert PASSWORD not in shown(PeerChange(login=LOGIN))
