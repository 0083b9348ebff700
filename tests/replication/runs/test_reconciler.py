"""What two systems do about their sets when nobody asks: the other half hears of changes, and a missing one is told."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy.exc import IntegrityError

from offsite import events
from offsite.clock import Clock
from offsite.errors import InUse, NotAllowed, OffsiteError, PeerRefused, ProtocolError, StateDirectoryError
from offsite.pools.protocol import Rename
from offsite.replication.link.channel import PeerChannel
from offsite.replication.link.dialer import DialedConnection
from offsite.replication.points import point_records
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.set_records import SetRecord
from offsite.replication.runs.attempt import Attempt
from offsite.replication.runs.reconciler import settings_of
from offsite.replication.sets.settings import ChosenSettings
from offsite.replication.sets.status import Status
from offsite.replication.wire import frames
from offsite.replication.wire.errors import NotPaired
from offsite.replication.wire.messages import AnyMessage, ChangeSet, Done, Holds, PrimaryNames, SetSettings, SetsHeld
from tests.replication.sites import WAIT_SECONDS, Site, pair
from tests.systems import wait_until

MIB = 1 << 20

pytestmark = pytest.mark.usefixtures("pairs")  # `soon` comes first: the systems start with its times


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.runs.reconciler.SOON_SECONDS", 0.05)
    monkeypatch.setattr("offsite.replication.runs.reconciler.SELDOM_SECONDS", 0.2)


@pytest.fixture
def pairs(london: Site, newark: Site) -> None:
    volume = london.create_volume("Sales", MIB)
    pair(london, newark)
    london.create_set("SalesDR", volume, "Newark")


def record(site: Site, name: str = "SalesDR") -> object:
    return site.replication.sets.record(name)


def test_the_secondary_shows_the_set_as_it_is_on_the_primary(london: Site, newark: Site) -> None:
    settings = ChosenSettings(
        queue_policy="discard",
        snapshot_history="both",
        snapshot_basename="h",
        snapshot_count=3,
        snapshot_retention_priority="low",
    )
    london.replication.sets.modify("SalesDR", settings, "Renamed")
    wait_until("it was told", lambda: [s.name for s in newark.replication.sets.all()] == ["Renamed"])
    there = newark.replication.sets.record("Renamed")
    for name in ("queue_policy", "snapshot_history", "snapshot_basename", "snapshot_count"):
        assert getattr(there, name) == getattr(settings, name)
    assert there.snapshot_retention_priority == "low"
    london.replication.suspend("Renamed")
    wait_until("it shows it", lambda: newark.replication.sets.get("Renamed").status is Status.SUSPENDED)
    london.replication.resume("Renamed")
    wait_until("it shows it", lambda: newark.replication.sets.get("Renamed").status is Status.UNSYNCHRONIZED)


def test_what_changed_while_the_peer_was_gone_is_told_when_it_is_back(london: Site, newark: Site) -> None:
    newark.replication.stop()
    london.replication.sets.modify("SalesDR", ChosenSettings(queue_policy="discard"))
    newark.open()
    newark.start()
    wait_until("it was told", lambda: newark.replication.sets.record("SalesDR").queue_policy == "discard")


def test_what_changes_during_a_visit_is_told_by_the_next_one_at_once(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The visit has read the records before: a suspension that is lifted just then would be shown for a minute."""
    reconciler = london.replication.reconciler
    tell, changes = reconciler._tell, [ChosenSettings(queue_policy="discard")]

    def tell_and_change(*arguments: object) -> None:
        tell(*arguments)  # type: ignore[arg-type]  # passed on as it came
        if changes:
            london.replication.sets.modify("SalesDR", changes.pop())

    monkeypatch.setattr("offsite.replication.runs.reconciler.SOON_SECONDS", 600.0)
    monkeypatch.setattr("offsite.replication.runs.reconciler.SELDOM_SECONDS", 600.0)
    monkeypatch.setattr(reconciler, "_tell", tell_and_change)
    reconciler.set_changed()
    wait_until("it was told", lambda: newark.replication.sets.record("SalesDR").queue_policy == "discard", 10)


def test_the_secondary_hears_what_the_primary_is_called_now(london: Site, newark: Site) -> None:
    london.pool.apply([Rename(london.image_id("Sales"), "Sales2026")])
    london.replication.volumes_renamed()
    wait_until("it was told", lambda: newark.replication.sets.get("SalesDR").primary_volume == "Sales2026")
    assert newark.replication.sets.get("SalesDR").secondary_volume == "Sales"


@pytest.mark.parametrize(("group", "members"), [(None, ["one", "two"]), ("Group", ["one"])])
def test_names_that_do_not_fit_the_set_are_refused(
    london: Site, newark: Site, group: str | None, members: list[str]
) -> None:
    peers, of = london.replication.peers, newark.replication.sets.record("SalesDR")
    change = ChangeSet(
        generation=1,
        set_uuid=of.uuid,
        settings=SetSettings(name="Other"),
        primary=PrimaryNames(group=group, members=members),
    )
    with peers.connect(peers.record("Newark")) as connection, pytest.raises(OffsiteError, match="the 1 members"):
        connection.channel.ask(connection.asking, change, Done)
    assert newark.replication.sets.record("SalesDR") == of


def test_a_name_that_another_set_has_there_leaves_the_old_one(london: Site, newark: Site) -> None:
    newark.create_set("Taken", newark.create_volume("Own", MIB), "London", None, "FromNewark")
    london.replication.sets.delete("Taken", local_only=True)
    london.replication.sets.modify("SalesDR", ChosenSettings(queue_policy="discard"), "Taken")
    wait_until("it was told", lambda: newark.replication.sets.record("SalesDR").queue_policy == "discard")
    assert newark.replication.sets.record("Taken").role == "primary"


def test_only_the_primary_may_change_a_set(london: Site, newark: Site) -> None:
    with pytest.raises(NotAllowed, match="cannot be changed; do it on system London"):
        newark.replication.sets.modify("SalesDR", ChosenSettings(queue_policy="discard"))
    with pytest.raises(NotAllowed, match="cleared of queued runs; do it on system London"):
        newark.replication.clear_queue("SalesDR")
    peers, of = newark.replication.peers, newark.replication.sets.record("SalesDR")
    with peers.connect(peers.record("London")) as connection, pytest.raises(NotAllowed, match="is also primary here"):
        change = ChangeSet(generation=1, set_uuid=of.uuid, settings=SetSettings(name="Hijacked"))
        connection.channel.ask(connection.asking, change, Done)
    assert london.replication.sets.record("SalesDR").role == "primary"


@pytest.mark.parametrize("deleted_at", ["london", "newark"])
def test_a_half_that_is_left_over_is_told_and_can_be_deleted(london: Site, newark: Site, deleted_at: str) -> None:
    gone, left = (london, newark) if deleted_at == "london" else (newark, london)
    gone.replication.sets.delete("SalesDR", local_only=True)
    wait_until("it is found", lambda: left.replication.sets.get("SalesDR").status is Status.NOT_READY)
    told = [message for kind, message in left.events if kind is events.SET_HALF_MISSING]
    assert told == [f"Replication set name: SalesDR, does not exist on system {gone.name}."]
    left.replication.sets.delete("SalesDR")
    assert left.replication.sets.all() == []
    assert len(told) == 1


def test_a_set_that_is_just_being_deleted_is_not_told_as_one_whose_half_is_missing(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion gets to the other half first; a visit that comes between would warn of what was done on purpose."""
    of = london.replication.sets.record("SalesDR")
    visits: list[str] = []
    with london.replication.reconciler._resources.locks.requesting(of.uuid, of.name):
        newark.replication.sets.delete("SalesDR", local_only=True)
        monkeypatch.setattr(london.replication.dispatcher, "peer_is_back", lambda _peer: visits.append("visit"))
        wait_until("it was visited", lambda: len(visits) > 2)
        assert not london.replication.reconciler.half_missing(of.uuid)
    wait_until("it is found", lambda: london.replication.reconciler.half_missing(of.uuid))


def test_what_comes_late_from_an_older_connection_does_not_stay(london: Site, newark: Site) -> None:
    """R4: the primary believes that the secondary knows; an older message that was on its way has come after."""
    late = ChangeSet(
        generation=1, set_uuid=newark.replication.sets.record("SalesDR").uuid, settings=settings_of(london_set(london))
    )
    london.replication.sets.modify("SalesDR", ChosenSettings(queue_policy="discard"))
    wait_until("it was told", lambda: newark.replication.sets.record("SalesDR").queue_policy == "discard")
    (peer,) = newark.replication.peers._records()
    newark.replication.peer_api.change_set(peer, late)
    assert newark.replication.sets.record("SalesDR").queue_policy == "queue-latest"
    wait_until("it is told again", lambda: newark.replication.sets.record("SalesDR").queue_policy == "discard")


def london_set(london: Site) -> SetRecord:
    return london.replication.sets.record("SalesDR")


def test_a_peer_without_sets_is_not_looked_at_all_the_time(london: Site, newark: Site) -> None:
    """Its next visit would be due, and never be made: the thread would take a whole core. Found by the simulator."""
    reconciler = london.replication.reconciler
    wait_until("it was visited", lambda: reconciler._due != {})
    london.replication.sets.delete("SalesDR")
    wait_until(
        "the next visit would be due", lambda: all(at < time.monotonic() for at in list(reconciler._due.values()))
    )
    next_at = reconciler.step()
    assert next_at is not None and next_at > time.monotonic()
    assert newark.replication.sets.all() == []


def test_a_set_whose_primary_is_busy_cannot_be_deleted_from_the_other_side(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Attempt] = []
    monkeypatch.setattr(london.replication.dispatcher, "_start", begun.append)
    london.replication.replicate("SalesDR")
    with pytest.raises(InUse, match=r"London: .*has a run in progress or queued here"):
        newark.replication.sets.delete("SalesDR")
    assert newark.replication.sets.record("SalesDR").role == "secondary"
    wait_until("its attempt has begun", lambda: begun != [])
    begun[0].work()  # or a stop would wait for it


def test_a_peer_that_refuses_a_visit_is_visited_again(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise NotAllowed("not today")

    visits: list[str] = []
    with monkeypatch.context() as broken:
        broken.setattr("offsite.replication.inbound.peer_api.PeerApi.list_sets", refuse)
        broken.setattr(london.replication.dispatcher, "peer_is_back", lambda _peer: visits.append("visit"))
        wait_until("it is asked again and again", lambda: len(visits) > 2)
    london.replication.sets.modify("SalesDR", ChosenSettings(queue_policy="discard"))
    wait_until("it was told", lambda: newark.replication.sets.record("SalesDR").queue_policy == "discard")


def test_records_that_cannot_be_read_end_no_reconciler(london: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    reconciler = london.replication.reconciler

    def fail() -> None:
        raise StateDirectoryError("the disk failed")

    with monkeypatch.context() as broken:
        broken.setattr(london.database, "read", fail)
        assert reconciler.step() is not None
    assert reconciler.step() is not None


def test_a_peer_that_comes_back_is_noticed_within_seconds(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run would have to wait for hours by the clock alone."""
    monkeypatch.setattr("offsite.replication.runs.retry_policy.FIRST_SECONDS", 600.0)
    newark.replication.stop()
    run = london.replication.replicate("SalesDR").run
    london.await_progress("SalesDR", lambda now: now.state == "waiting")
    newark.open()
    newark.start()
    assert london.await_end("SalesDR", run).state == "success"


# -- visits that go wrong: stepped by hand


@pytest.fixture
def still(london: Site) -> Site:
    """Nothing happens by itself any more on London."""
    for ticker in london.replication._tickers:
        ticker.stop(WAIT_SECONDS)
    return london


def visit(site: Site) -> None:
    reconciler = site.replication.reconciler
    peers, sets = site.replication.peers._records(), site.replication.sets.records()
    reconciler._visit(peers[0], sets)


@pytest.mark.parametrize(
    "error", [PeerRefused("no"), ProtocolError("what?"), NotPaired("who?"), StateDirectoryError("the disk"), OSError()]
)
def test_a_peer_that_refuses_the_second_connection_of_a_visit_ends_it(
    still: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What one set is refused ends a connection. The visit goes on with another, and not for ever."""
    still.create_set("Other", still.create_volume("Other", MIB), "Newark")
    peers = still.replication.peers
    connect, dials = peers.connect, list[str]()

    def connect_once(peer: PeerRecord, patience_seconds: float | None = None) -> DialedConnection:
        dials.append(peer.name)
        assert len(dials) < 5, "it never ends"
        if len(dials) > 1:
            raise error
        return connect(peer, patience_seconds)

    def refuse(*_arguments: object) -> None:
        raise NotAllowed("not this one")

    monkeypatch.setattr(peers, "connect", connect_once)
    monkeypatch.setattr("offsite.replication.inbound.peer_api.PeerApi.change_set", refuse)
    visit(still)
    assert len(dials) == 2


@pytest.mark.parametrize("error", [OSError("the disk"), IntegrityError("INSERT", None, Exception("no such peer"))])
@pytest.mark.parametrize("where", ["connect", "list"])
def test_a_visit_that_fails_on_this_side_ends_no_reconciler(
    still: Site, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    """Its thread would be gone, and with it every visit until the next start."""

    def fail(*_arguments: object) -> None:
        raise error

    if where == "connect":
        monkeypatch.setattr(still.replication.peers, "connect", fail)
    else:
        monkeypatch.setattr(still.replication.reconciler, "_compare", fail)
    visit(still)
    assert not still.replication.contacts.is_silent(still.replication.peers.record("Newark"))
    assert still.replication.reconciler.settle_now(london_set(still)) is (where == "list")


def test_a_peer_that_trickles_holds_up_no_visit(still: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte in time, and the message never: one thread visits all peers."""
    monkeypatch.setattr("offsite.replication.runs.reconciler.PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr("offsite.replication.runs.reconciler.VISIT_SECONDS", 0.5)
    monkeypatch.setattr("offsite.replication.runs.reconciler.SET_SECONDS", 0.1)
    send, ended = PeerChannel.send, threading.Event()

    def trickle(channel: PeerChannel, message: AnyMessage, *payload: Any) -> None:
        if not isinstance(message, SetsHeld | Holds):
            send(channel, message, *payload)
            return
        for byte in frames.encode(message):
            channel._socket.sendall(bytes([byte]))
            if ended.wait(1.0):
                return

    monkeypatch.setattr(PeerChannel, "send", trickle)
    thread = threading.Thread(target=visit, args=(still,), daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS / 2)
    is_over = not thread.is_alive()
    settled = threading.Thread(
        target=still.replication.reconciler.settle_now, args=(_with_an_aborted_run(still),), daemon=True
    )
    settled.start()
    settled.join(WAIT_SECONDS / 2)
    is_settled = not settled.is_alive()
    ended.set()
    assert (is_over, is_settled) == (True, True)


def _with_an_aborted_run(site: Site) -> SetRecord:
    of = london_set(site)
    with site.database.transaction() as connection:
        point_records.insert_point(connection, of.id, "r" * 36, "aborted", 0.0, [])
    return of


# -- when a peer is visited: on a clock of our own, with nothing started


class Visits:
    """The reconciler of London, stepped by hand: when it visits its peer, and whether that answers."""

    def __init__(self, london: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: list[float] = []
        self.time = 1000.0
        reconciler, contacts = london.replication.reconciler, london.replication.contacts
        for ticker in london.replication._tickers:
            ticker.stop(WAIT_SECONDS)
        self.reconciler, self._contacts = reconciler, contacts
        self.answers = True
        monkeypatch.setattr("offsite.replication.runs.reconciler.SOON_SECONDS", 5.0)
        monkeypatch.setattr("offsite.replication.runs.reconciler.SELDOM_SECONDS", 60.0)
        monkeypatch.setattr(reconciler, "_resources", replace(reconciler._resources, clock=cast(Clock, self)))
        monkeypatch.setattr(reconciler, "_visit", self._visit)
        reconciler._due.clear()

    def monotonic(self) -> float:
        return self.time

    def _visit(self, peer: PeerRecord, _sets: object) -> None:
        self.at.append(self.time)
        if self.answers:
            self._contacts.heard(peer, None, 0.0)
        else:
            self._contacts.failed(peer, "gone")

    def pass_seconds(self, seconds: float) -> list[float]:
        """When it visits within so many seconds, counted from now."""
        self.at.clear()
        begun, until = self.time, self.time + seconds
        while True:
            due = self.reconciler.step()
            assert due is not None
            if due > until:
                self.time = until
                return [at - begun for at in self.at]
            self.time = max(due, self.time)


def told_everything(london: Site) -> None:
    wait_until("nothing is owed", lambda: len(london.replication.reconciler._told) == 1)


def test_after_a_run_has_failed_the_peer_is_visited_within_seconds(
    london: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the minute that was left: as soon as it is back, its runs go on."""
    told_everything(london)
    visits = Visits(london, monkeypatch)
    assert visits.pass_seconds(130.0) == [0.0, 60.0, 120.0]
    visits.reconciler.peer_failed()
    assert visits.pass_seconds(10.0) == [5.0]


def test_a_failure_during_a_visit_is_not_forgotten(london: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    told_everything(london)
    visits = Visits(london, monkeypatch)
    visit = visits.reconciler._visit

    def visit_and_fail(peer: PeerRecord, sets: list[SetRecord]) -> None:
        visit(peer, sets)
        if len(visits.at) == 1:
            visits.reconciler.peer_failed()

    monkeypatch.setattr(visits.reconciler, "_visit", visit_and_fail)
    assert visits.pass_seconds(60.0) == [0.0, 5.0]


def test_a_peer_that_does_not_answer_is_visited_every_few_seconds(
    london: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_everything(london)
    visits = Visits(london, monkeypatch)
    visits.answers = False
    assert visits.pass_seconds(16.0) == [0.0, 5.0, 10.0, 15.0]
    visits.answers = True
    assert visits.pass_seconds(130.0) == [4.0, 64.0, 124.0]
