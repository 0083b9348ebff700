"""What becomes of sets when one of two real processes is killed or stopped, and what is refused meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.replication import HostDisk, Replicated, events, hidden
from tests.systems import try_to_pair, two_systems, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    with two_systems(tmp_path_factory.mktemp("away")) as systems:
        yield Replicated(*systems)


def test_a_peer_that_is_killed_in_a_run_suspends_the_set_until_it_is_back(pair: Replicated) -> None:
    """By itself, both ways; the event tells the operator, and the run goes on as the same one."""
    pair.make_volume("K", size_mib=8)
    pair.make_set("KDR", "K")
    with pair.slowly():
        run = pair.begin("KDR")["run"]
        pair.newark.kill()
    pair.await_status("KDR", "Suspended")
    (told,) = events(pair.london, 584, "KDR")
    assert (told["severity"], told["recommended-action"] != "") == ("ERROR", True)
    assert "is retried" in told["message"]
    assert pair.show("KDR")["error"] != ""
    assert (
        pair.london.ask("show", "peer-connections", "Newark")["peer-connections"][0]["connection-status"] == "Offline"
    )

    pair.newark.start()
    assert pair.await_success("KDR")["run"] == run
    assert (pair.status("KDR"), pair.show("KDR")["error"]) == ("Ready", "")
    assert pair.same("K")
    assert len(events(pair.london, 581, "KDR")) == 1


def test_a_secondary_whose_primary_is_gone_is_unknown_and_its_snapshots_can_be_used(pair: Replicated) -> None:
    pair.make_volume("U")
    pair.make_set("UDR", "U")
    pair.replicate("UDR")
    pair.london.stop()
    pair.await_status("UDR", "Unknown", pair.newark)
    assert "cannot be suspended; do it on system London" in pair.newark.refused("suspend", "replication-set", "UDR")
    pair.newark.ask("create", "snapshots", "volumes", "U", "Survivor")
    pair.newark.map("Survivor")
    with HostDisk(pair.newark.nbd_socket, "Survivor") as disk:
        disk.write(0, b"the database goes on here".ljust(4096))
        disk.flush()
    pair.london.start()
    pair.await_status("UDR", "Ready", pair.newark)
    assert pair.same("U")


def test_what_was_written_over_there_comes_back_through_a_set_of_its_own(pair: Replicated) -> None:
    """Failing back: the snapshot that was worked on is a primary in turn, over the same peer connection; the old set
    can still be used."""
    pair.make_volume("F")
    pair.make_set("FDR", "F")
    pair.replicate("FDR")
    newark = pair.newark
    newark.ask("create", "snapshots", "volumes", "F", "Worked")
    newark.map("Worked")
    with HostDisk(newark.nbd_socket, "Worked") as disk:
        disk.write(0, b"written while London was away".ljust(4096))
        disk.flush()
    back = ("create", "replication-set", "peer-connection", "London", "primary-volume", "Worked")
    assert "'F'" in newark.refused(*back, "secondary-volume-name", "F", "BackDR")
    newark.ask(*back, "secondary-volume-name", "Restored", "BackDR")
    newark.ask("replicate", "BackDR")
    wait_until("it is back", lambda: newark.last_run("BackDR")["state"] == "success")
    assert pair.same("Restored", "Worked") and not pair.same("F", "Worked")
    assert pair.show("BackDR")["role"] == "secondary"
    assert "secondary volume of replication set BackDR" in pair.london.refused("map", "volume", "Restored")
    pair.write("F")
    pair.replicate("FDR")
    assert pair.same("F")
    newark.ask("delete", "replication-set", "BackDR")


def test_nothing_is_left_of_a_set_whose_peer_is_gone_while_it_is_made(pair: Replicated) -> None:
    pair.make_volume("G", written_mib=0)
    images = hidden(pair.london)
    pair.newark.kill()
    told = pair.london.refused(
        "create", "replication-set", "peer-connection", "Newark", "primary-volume", "G", "name", "GDR"
    )
    assert pair.newark.peer_address in told
    assert "'GDR'" in pair.london.refused("show", "replication-sets", "GDR")
    assert hidden(pair.london) == images
    pair.newark.start()
    assert "'GDR'" in pair.newark.refused("show", "replication-sets", "GDR")
    assert "'G'" in pair.newark.refused("show", "volumes", "G")
    pair.make_set("GDR", "G")
    pair.london.ask("delete", "replication-set", "GDR")


def test_a_set_whose_peer_is_gone_is_deleted_here_alone_and_the_other_half_is_told_of(pair: Replicated) -> None:
    pair.make_volume("L")
    pair.make_set("LDR", "L", "snapshot-history", "both", "snapshot-basename", "l", "snapshot-count", "2")
    images = hidden(pair.london), hidden(pair.newark)
    pair.replicate("LDR")
    pair.newark.kill()
    assert pair.newark.peer_address in pair.london.refused("delete", "replication-set", "--yes", "LDR")
    assert pair.show("LDR")["name"] == "LDR"
    pair.london.ask("delete", "replication-set", "local-only", "LDR")
    assert hidden(pair.london) == images[0]

    pair.newark.start()
    pair.await_status("LDR", "Not Ready", pair.newark)
    wait_until("the operator is told", lambda: events(pair.newark, 588, "LDR") != [])
    (told,) = events(pair.newark, 588, "LDR")
    assert "delete replication-set" in told["recommended-action"]
    assert "L cannot be deleted" in pair.newark.refused("delete", "volumes", "--yes", "L")
    pair.newark.ask("delete", "replication-set", "LDR")
    assert hidden(pair.newark) == images[1]
    for system in (pair.london, pair.newark):
        assert system.ask("show", "snapshots", "l_0000")["snapshots"][0]["name"] == "l_0000"
    pair.newark.map("L")
    pair.newark.ask("delete", "volumes", "L")


def test_a_peer_connection_is_deleted_once_no_set_needs_it(pair: Replicated) -> None:
    for system, peer in ((pair.london, "Newark"), (pair.newark, "London")):
        for more in ((), ("local-only",)):
            told = system.refused("delete", "peer-connection", "--yes", *more, peer)
            assert "KDR" in told and "UDR" in told and "delete those first" in told
    for name in ("KDR", "UDR", "FDR"):
        pair.london.ask("delete", "replication-set", name)
    pair.london.ask("delete", "peer-connection", "Newark")
    for system in (pair.london, pair.newark):
        assert system.ask("show", "peer-connections").get("peer-connections", []) == []
    assert hidden(pair.london) == hidden(pair.newark) == 0
    assert try_to_pair(pair.london, pair.newark.peer_address, pair.newark.password, "East").returncode == 0
