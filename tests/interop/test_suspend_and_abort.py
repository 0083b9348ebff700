"""Suspend, resume and abort between two real processes, in every state of a run (ME4 1.7, R8)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.replication import MIB, Replicated, events, hidden, within
from tests.replication.proxy import Proxy
from tests.systems import System, try_to_pair, two_systems, wait_until

pytestmark = pytest.mark.slow

STATES = ["running", "suspended", "with another queued behind it", "waiting for a peer that is gone"]


class ThroughProxy(Replicated):
    """London reaches Newark over a link that a test can cut, and whose bytes it can count."""

    def __init__(self, london: System, newark: System, link: Proxy) -> None:
        super().__init__(london, newark)
        self.link = link

    def lose_peer(self) -> None:
        self.link.refusing = True
        self.link.cut()

    def peer_is_back(self) -> None:
        self.link.refusing = False

    def hidden(self) -> tuple[int, int]:
        return hidden(self.london), hidden(self.newark)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThroughProxy]:
    with two_systems(tmp_path_factory.mktemp("abort"), paired=False) as (london, newark):
        link = Proxy(int(newark.peer_address.rpartition(":")[2]), newark.address)
        done = try_to_pair(london, link.address, newark.password, "Newark")
        assert done.returncode == 0, done.stderr
        yield ThroughProxy(london, newark, link)
        link.close()


def test_suspended_within_a_second_and_resumed_where_it_was(pair: ThroughProxy) -> None:
    pair.make_volume("S", size_mib=8)
    pair.make_set("SDR", "S")
    assert pair.status("SDR") == "Unsynchronized"
    with pair.slowly():
        run = pair.begin("SDR")
        assert pair.status("SDR") == "Running"
        pair.await_status("SDR", "Running", pair.newark)
        with within(1):
            pair.london.ask("suspend", "replication-set", "SDR")
            wait_until("it stands still", lambda: pair.runs("SDR")[0]["phase"] == "stopped")
        assert pair.status("SDR") == "Suspended"
        pair.await_status("SDR", "Suspended", pair.newark)
        assert "SDR is suspended; resume it first" in pair.london.refused("replicate", "SDR")
    before = pair.link.bytes_there
    pair.london.ask("resume", "replication-set", "SDR")
    last = pair.await_success("SDR")
    assert (last["run"], last["error"]) == (run["run"], "")
    assert 6 * MIB < pair.link.bytes_there - before <= 7.5 * MIB, "what was there was not sent again"
    assert pair.same("S")
    pair.await_status("SDR", "Ready", pair.newark)
    assert [len(events(pair.london, code, "SDR")) for code in (582, 581)] == [1, 1]


def test_a_suspension_and_what_stands_still_outlive_a_restart(pair: ThroughProxy) -> None:
    pair.make_volume("O", size_mib=8)
    pair.make_set("ODR", "O")
    with pair.slowly():
        run = pair.begin("ODR")["run"]
        pair.write("O", 0, 1)
        digest = pair.london.digest("O")
        pair.london.ask("replicate", "ODR")
        pair.london.ask("suspend", "replication-set", "ODR")
    pair.london.stop()
    pair.london.start()
    assert (pair.status("ODR"), pair.states("ODR")) == ("Suspended", ["queued", "running"])
    before = pair.link.bytes_there
    pair.london.ask("resume", "replication-set", "ODR")
    pair.await_success("ODR")
    assert [each["state"] for each in pair.runs("ODR")] == ["success", "success"]
    assert pair.runs("ODR")[1]["run"] == run
    assert pair.link.bytes_there - before < 9 * MIB, "what was there was not sent again"
    assert pair.newark.digest("O") == digest


@pytest.fixture(scope="module")
def with_a_base(pair: ThroughProxy) -> ThroughProxy:
    """And a set ADR, whose initial run has been."""
    pair.make_volume("A", size_mib=8)
    pair.make_set("ADR", "A")
    pair.replicate("ADR")
    return pair


@pytest.mark.parametrize("state", STATES)
def test_an_abort_ends_soon_and_leaves_nothing_behind(with_a_base: ThroughProxy, state: str) -> None:
    pair = with_a_base
    base, images = pair.newark.digest("A"), pair.hidden()
    pair.write("A", 0, 4)
    with pair.slowly():
        aborted = pair.begin("ADR")["run"]
        assert pair.hidden() == (images[0] + 1, images[1] + 1), "else there is nothing to leave behind"
        if state == "suspended":
            pair.london.ask("suspend", "replication-set", "ADR")
        if state == "with another queued behind it":
            pair.write("A", 4, 4)
            pair.london.ask("replicate", "ADR")
        if state == "waiting for a peer that is gone":
            pair.lose_peer()
            pair.london.ask("set", "peer-connection", "bandwidth-limit", "none", "Newark")  # it is noticed by sending
            pair.await_status("ADR", "Suspended")
        with within(5):
            pair.london.ask("abort", "replication", "ADR")
        assert next(run for run in pair.runs("ADR") if run["run"] == aborted)["state"] == "aborted"
        assert pair.newark.digest("A") == base
        pair.peer_is_back()
    if state == "with another queued behind it":
        pair.await_success("ADR")
        assert pair.same("A"), "the queued run came next"
    wait_until("nothing is left on either side", lambda: pair.hidden() == images, 20)
    pair.await_status("ADR", "Ready")
    pair.await_status("ADR", "Ready", pair.newark)
    pair.await_on_both("an event tells it", lambda system: events(system, 585, "ADR") != [])
    pair.replicate("ADR")
    assert pair.same("A")


def test_an_initial_run_that_is_aborted_leaves_the_set_as_it_was_made(pair: ThroughProxy) -> None:
    images = pair.hidden()
    pair.make_volume("I", size_mib=8)
    pair.make_set("IDR", "I")
    with pair.slowly():
        pair.begin("IDR")
        pair.london.ask("abort", "replication", "IDR")
        for system in (pair.london, pair.newark):
            pair.await_status("IDR", "Unsynchronized", system)
        wait_until("nothing is left on either side", lambda: pair.hidden() == images, 20)
    assert pair.show("IDR")["last-run-status"] == "Aborted"


def test_a_running_set_is_deleted_only_after_suspend_and_abort(pair: ThroughProxy) -> None:
    images = pair.hidden()
    pair.make_volume("R", size_mib=8)
    pair.make_set("RDR", "R")
    with pair.slowly():
        pair.begin("RDR")
        assert "suspend the set and abort the run first" in pair.london.refused(
            "delete", "replication-set", "-y", "RDR"
        )
        assert "abort it" in pair.newark.refused("delete", "replication-set", "-y", "RDR")
        pair.london.ask("suspend", "replication-set", "RDR")
        assert "has a run in progress" in pair.london.refused("delete", "replication-set", "-y", "RDR")
        pair.london.ask("abort", "replication", "RDR")
        pair.london.ask("delete", "replication-set", "RDR")
    for system in (pair.london, pair.newark):
        assert "replication set 'RDR' does not exist" in system.refused("show", "replication-sets", "RDR")
        assert events(system, 577, "RDR")
        system.map("R")
        system.ask("delete", "volumes", "R")
    assert pair.hidden() == images
