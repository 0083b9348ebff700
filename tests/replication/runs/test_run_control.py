"""Abort between two real systems: whatever it meets, it ends, and both sides agree about what has become of the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from offsite import events
from offsite.errors import NotAllowed
from offsite.replication.points import point_records
from offsite.replication.sets.status import Status
from offsite.replication.transfer.receiver.endpoint import ReceiverEndpoint
from offsite.replication.wire.messages import Ask, Commit, Committed, Holds
from tests.replication.proxy import Proxy
from tests.replication.sites import Site, pair, random_bytes
from tests.systems import wait_until

MIB = 1 << 20


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.runs.reconciler.SOON_SECONDS", 0.1)
    monkeypatch.setattr("offsite.replication.runs.retry_policy.FIRST_SECONDS", 0.05)


@pytest.fixture
def link(london: Site, newark: Site) -> Iterator[Proxy]:
    """Set SalesDR with 8 MiB of data to send, over a link that we hold in our hands."""
    volume = london.create_volume("Sales", 16 * MIB)
    london.write(volume, MIB, random_bytes(8 * MIB))
    pair(london, newark)
    london.create_set("SalesDR", volume, "Newark")
    proxy = Proxy(newark.port)
    with london.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE peers SET address = ?", (proxy.address,))
    yield proxy
    proxy.close()


def states(site: Site) -> list[str]:
    return [run.state for run in site.runs("SalesDR")]


def point_states(site: Site) -> list[str]:
    with site.database.read() as connection:
        return [point.state for point in point_records.set_points(connection, 1)]


def cut_off_at_commit(monkeypatch: pytest.MonkeyPatch, link: Proxy) -> threading.Event:
    """The secondary commits, and its answer does not get through. Set when that has happened."""
    commit, committed = ReceiverEndpoint.commit, threading.Event()

    def commit_and_be_cut_off(side: ReceiverEndpoint, message: Commit) -> Committed:
        answer = commit(side, message)
        link.stalled.set()
        committed.set()
        return answer

    monkeypatch.setattr(ReceiverEndpoint, "commit", commit_and_be_cut_off)
    return committed


def test_an_abort_half_way_leaves_nothing_on_either_side(london: Site, newark: Site, link: Proxy) -> None:
    link.stall_at = link.bytes_there + 3 * MIB
    london.replication.replicate("SalesDR")
    wait_until("it is half way", lambda: newark.internal_names() != [] and link.stalled.is_set())
    begun = time.monotonic()
    link.stalled.clear()
    assert london.replication.abort("SalesDR")
    assert time.monotonic() - begun < 5
    assert states(london) == ["aborted"]
    wait_until("the secondary knows", lambda: states(newark) == ["aborted"])
    for site in (london, newark):
        assert site.internal_names() == []
        assert point_states(site) == []
        assert site.replication.sets.get("SalesDR").status is Status.UNSYNCHRONIZED
    assert newark.content("Sales") == bytes(16 * MIB)
    assert london.run_to_end("SalesDR").state == "success"
    assert newark.content("Sales") == london.content("Sales")


def test_an_abort_and_a_visit_do_not_cut_each_other_off(
    london: Site, newark: Site, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both settle aborted runs. Whoever asks the secondary later takes the run over from who asked before."""
    monkeypatch.setattr("offsite.replication.runs.reconciler.PATIENCE_SECONDS", 20.0)
    look, visits = ReceiverEndpoint.look, list[threading.Thread]()

    def visit() -> None:
        london.replication.reconciler.set_changed()
        london.replication.reconciler.step()

    def look_and_be_visited(side: ReceiverEndpoint, ask: Ask) -> Holds:
        held = look(side, ask)
        if not visits:
            visits.append(threading.Thread(target=visit))
            visits[0].start()
            visits[0].join(20)
        return held

    link.stall_at = link.bytes_there + 3 * MIB
    london.replication.replicate("SalesDR")
    wait_until("it is half way", lambda: newark.internal_names() != [] and link.stalled.is_set())
    monkeypatch.setattr(ReceiverEndpoint, "look", look_and_be_visited)
    link.stalled.clear()
    assert london.replication.abort("SalesDR")
    assert not visits[0].is_alive()
    assert states(newark) == ["aborted"]
    assert london.internal_names() == newark.internal_names() == []


def test_an_abort_that_the_peer_does_not_hear_is_settled_when_it_is_back(
    london: Site, newark: Site, link: Proxy
) -> None:
    link.stall_at = link.bytes_there + 3 * MIB
    london.replication.replicate("SalesDR")
    wait_until("it is half way", lambda: newark.internal_names() != [] and link.stalled.is_set())
    begun = time.monotonic()
    assert not london.replication.abort("SalesDR")
    assert time.monotonic() - begun < 5
    assert states(london) == ["aborted"]
    assert london.internal_names() == [], "nothing of it was committed: its images need not wait"
    assert newark.internal_names() != []
    link.stalled.clear()
    wait_until("it is settled", lambda: point_states(london) == [] and newark.internal_names() == [])
    assert states(newark) == ["aborted"]


def test_an_abort_that_comes_after_the_commit_keeps_the_base(
    london: Site, newark: Site, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: the secondary has made the point its base, and the answer is on its way. Were the point gone here, the
    next run would have to send everything again."""
    committed = cut_off_at_commit(monkeypatch, link)
    london.replication.replicate("SalesDR")
    assert committed.wait(20)
    assert not london.replication.abort("SalesDR")
    assert states(london) == ["aborted"] and states(newark) == ["success"]
    assert point_states(london) == ["aborted"] and len(london.internal_names()) == 1
    monkeypatch.undo()
    link.stalled.clear()
    wait_until("it is settled", lambda: point_states(london) == ["base"])
    assert states(london) == ["success"]
    assert [message for kind, message in london.events if kind is events.RUN_SETTLED]
    london.write(london.image_id("Sales"), 0, b"x" * 4096)
    ended = london.run_to_end("SalesDR")
    assert (ended.state, ended.changed_bytes) == ("success", 4096)


def test_an_abort_of_a_run_that_was_suspended_before_a_restart_keeps_the_base(
    london: Site, newark: Site, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: of a run that a start has found under way nobody knows whether the secondary has committed it."""
    london.run_to_end("SalesDR")
    london.write(london.image_id("Sales"), 0, b"x" * 4096)
    committed = cut_off_at_commit(monkeypatch, link)
    london.replication.replicate("SalesDR")
    assert committed.wait(20)
    london.replication.suspend("SalesDR")
    london.await_progress("SalesDR", lambda now: now.state == "stopped")
    monkeypatch.undo()
    link.cut()
    link.stalled.clear()
    london.restart()
    assert london.replication.abort("SalesDR")
    assert point_states(london) == ["base"] and len(london.internal_names()) == 1
    london.write(london.image_id("Sales"), MIB, b"y" * 4096)
    ended = london.run_to_end("SalesDR")
    assert (ended.state, ended.changed_bytes) == ("success", 4096)
    assert newark.content("Sales") == london.content("Sales")


def test_an_aborted_run_whose_digest_differs_is_not_told_as_a_success(
    london: Site, newark: Site, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = cut_off_at_commit(monkeypatch, link)
    london.replication.replicate("SalesDR")
    assert committed.wait(20)
    assert not london.replication.abort("SalesDR")
    monkeypatch.undo()
    with newark.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE runs SET digest = ?", ("ab" * 16,))
    link.stalled.clear()
    wait_until("it is told", lambda: london.replication.sets.get("SalesDR").status is Status.DIVERGED)
    kinds = [kind for kind, _ in london.events]
    assert events.RUN_SETTLED not in kinds
    assert kinds.index(events.DIGESTS_DIFFER) < kinds.index(events.SET_DIVERGED)
    assert "resolve replication-set" in events.DIGESTS_DIFFER.recommended_action
    assert states(london) == ["aborted"] and london.internal_names() == []


def test_a_run_after_an_abort_settles_it_by_its_plan(
    london: Site, newark: Site, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has visited the peer in between."""
    monkeypatch.setattr("offsite.replication.runs.reconciler.Reconciler.step", lambda _self: None)
    link.stall_at = link.bytes_there + 3 * MIB
    london.replication.replicate("SalesDR")
    wait_until("it is half way", lambda: newark.internal_names() != [] and link.stalled.is_set())
    assert not london.replication.abort("SalesDR")
    link.stalled.clear()
    assert london.run_to_end("SalesDR").state == "success"
    assert newark.content("Sales") == london.content("Sales")
    assert point_states(london) == point_states(newark) == ["base"]
    assert london.internal_names() == newark.internal_names()


def test_what_cannot_be_aborted(london: Site, newark: Site, link: Proxy) -> None:
    assert link
    with pytest.raises(NotAllowed, match="has no run to abort"):
        london.replication.abort("SalesDR")
    with pytest.raises(NotAllowed, match="secondary here and cannot be aborted; do it on system London"):
        newark.replication.abort("SalesDR")


def test_suspended_half_way_it_goes_on_where_it_was(
    london: Site, newark: Site, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offsite.replication.transfer.receiver.partial_point.FLUSH_BYTES", MIB)
    link.stall_at = link.bytes_there + 5 * MIB
    london.replication.replicate("SalesDR")
    wait_until("it is half way", lambda: link.stalled.is_set())
    begun = time.monotonic()
    london.replication.suspend("SalesDR")
    london.await_progress("SalesDR", lambda now: now.state == "stopped")
    assert time.monotonic() - begun < 1
    link.stalled.clear()
    wait_until("the secondary knows", lambda: newark.replication.sets.get("SalesDR").status is Status.SUSPENDED)
    assert london.replication.sets.get("SalesDR").status is Status.SUSPENDED
    before = link.bytes_there
    london.replication.resume("SalesDR")
    assert london.await_end("SalesDR").state == "success"
    assert newark.content("Sales") == london.content("Sales")
    assert link.bytes_there - before < 6 * MIB, "not all of the 8 MiB again"
