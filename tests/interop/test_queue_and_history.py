"""Queue policy and snapshot history between two real processes (ME4 1.5 and 1.6), and snapshots as what is sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.replication import SECONDS, Replicated, events, snapshots
from tests.systems import two_systems, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    with two_systems(tmp_path_factory.mktemp("queue")) as systems:
        yield Replicated(*systems)


def await_history(pair: Replicated, name: str, *expected: str) -> None:
    pair.await_on_both(f"{name} keeps {expected}", lambda system: pair.history(name, system) == list(expected))


def keep(count: int, basename: str, history: str = "both") -> list[str]:
    return ["snapshot-history", history, "snapshot-basename", basename, "snapshot-count", str(count)]


def test_the_latest_request_is_queued_and_sends_the_instant_at_which_it_was_made(pair: Replicated) -> None:
    """Three requests: one runs, the second is dropped for the third; every one of them takes a number."""
    pair.make_volume("Q")
    pair.make_set("QDR", "Q", *keep(16, "q"))
    assert pair.show("QDR")["queue-policy"] == "queue-latest"
    digests = []
    with pair.slowly():
        for request in range(3):
            pair.write("Q", request)
            digests.append(pair.london.digest("Q"))
            if request == 0:
                pair.begin("QDR")
            else:
                pair.london.ask("replicate", "QDR")
                assert pair.show("QDR")["queue-count"] == 1
        pair.write("Q", 3)
        assert pair.states("QDR") == ["queued", "dropped", "running"]
        assert [events(pair.london, code, "QDR") != [] for code in (580, 586)] == [True, True]
    pair.await_success("QDR")
    assert pair.states("QDR") == ["success", "dropped", "success"]
    assert (pair.show("QDR")["queue-count"], pair.newark.digest("Q")) == (0, digests[2])
    await_history(pair, "QDR", "q_0000", "q_0002")
    for system in (pair.london, pair.newark):
        assert [system.digest(name) for name in ("q_0000", "q_0002")] == [digests[0], digests[2]]


def test_discard_drops_a_request_and_is_refused_while_one_is_queued(pair: Replicated) -> None:
    pair.make_volume("D", size_mib=8)
    pair.make_set("DDR", "D", *keep(16, "d"))
    with pair.slowly():
        pair.begin("DDR")
        pair.london.ask("replicate", "DDR")
        sentence = pair.london.refused("set", "replication-set", "queue-policy", "discard", "DDR")
        assert "DDR has a queued run" in sentence and "clear its queue first" in sentence
        assert pair.show("DDR")["queue-policy"] == "queue-latest"
        pair.london.ask("clear", "replication-queue", "DDR")
        pair.london.ask("set", "replication-set", "queue-policy", "discard", "DDR")
        pair.london.ask("replicate", "DDR")
        assert pair.states("DDR") == ["dropped", "dropped", "running"]
        assert len(events(pair.london, 587, "DDR")) == 2
        assert pair.show("DDR")["queue-count"] == 0
    wait_until("the run ends", lambda: pair.states("DDR") == ["dropped", "dropped", "success"])
    pair.replicate("DDR")
    await_history(pair, "DDR", "d_0000", "d_0003")
    wait_until("Newark hears of it", lambda: pair.show("DDR", pair.newark)["queue-policy"] == "discard")


def test_wait_waits_for_a_queued_request_and_tells_a_dropped_one_by_its_exit_status(pair: Replicated) -> None:
    """What a nightly script goes by: 0 once its own run is done, 3 when nothing was sent for it."""
    pair.make_volume("W", size_mib=8)
    pair.make_set("WDR", "W")
    with pair.slowly():
        pair.begin("WDR")
        waiting = pair.london.popen("replicate", "WDR", "--wait")
        wait_until("it is queued", lambda: pair.show("WDR")["queue-count"] == 1)
        mine = pair.runs("WDR")[0]["run"]
        replaced = pair.london.popen("replicate", "WDR", "--wait")
        wait_until("it took the place", lambda: pair.runs("WDR")[0]["run"] != mine)
        assert waiting.wait(SECONDS) == 3
        assert f"run {mine} of replication set WDR was dropped: a newer request" in waiting.communicate()[1]
        mine = pair.runs("WDR")[0]["run"]
    said = replaced.communicate(timeout=60)
    assert replaced.returncode == 0, said
    assert said[0].startswith(f"Run {mine} has ended. WDR is up to date"), said
    assert f"Run {mine} is queued behind the run in progress" in said[1]

    pair.london.ask("set", "replication-set", "queue-policy", "discard", "WDR")
    pair.write("W", size_mib=8)
    with pair.slowly():
        pair.begin("WDR")
        for more in ([], ["--wait"], ["--json"]):
            dropped = pair.london.popen("replicate", "WDR", *more)
            said = dropped.communicate(timeout=SECONDS)
            assert dropped.returncode == 3, said
            assert "queue policy is discard" in "".join(said)


def test_the_oldest_of_a_history_goes_but_for_what_is_mapped_and_a_name_in_use_is_passed_over(pair: Replicated) -> None:
    pair.make_volume("H", written_mib=0)
    pair.make_set("HDR", "H", *keep(2, "h"))
    newark = pair.newark
    newark.ask("create", "volume", "pool", "A", "size", "1MiB", "h_0002")
    pair.replicate("HDR")
    newark.map("h_0000")
    for _ in range(3):
        pair.write("H")
        pair.replicate("HDR")
    wait_until("two are left", lambda: pair.history("HDR", pair.london) == ["h_0003", "h_0004"])
    wait_until("two, and the mapped one", lambda: pair.history("HDR", newark) == ["h_0000", "h_0003", "h_0004"])
    assert [len(events(system, 661, "HDR")) for system in (pair.london, newark)] == [1, 1]
    assert len(events(newark, 660, "HDR")) == 1
    assert newark.ask("show", "volumes", "h_0002")["volumes"][0]["volume-type"] == "base", "the name was in use"

    newark.ask("unmap", "volume", "initiator", "nbd:unix", "h_0000")
    newark.ask("create", "snapshots", "volumes", "H", "by-hand")
    pair.replicate("HDR")
    wait_until("the oldest are gone", lambda: pair.history("HDR", newark) == ["h_0004", "h_0005"])
    assert "by-hand" in snapshots(newark), "what was made by hand is not managed"

    pair.london.ask("delete", "replication-set", "HDR")
    for system in (pair.london, newark):
        assert {"h_0004", "h_0005"} <= set(snapshots(system)), "they stay, as ordinary snapshots"
        system.ask("delete", "snapshot", "h_0004,h_0005")


def test_a_history_of_the_secondary_alone_is_taken_when_a_run_has_ended_well(pair: Replicated) -> None:
    pair.make_volume("S")
    pair.make_set("SDR", "S", *keep(4, "s", "secondary"))
    with pair.slowly():
        pair.begin("SDR")
        assert pair.history("SDR", pair.newark) == []
        pair.london.ask("abort", "replication", "SDR")
    pair.replicate("SDR")
    wait_until("it has one", lambda: pair.history("SDR", pair.newark) == ["s_0001"])
    assert pair.history("SDR", pair.london) == []
    assert pair.same("S", "s_0001")


def test_a_set_is_renamed_and_its_basename_changed_during_a_run(pair: Replicated) -> None:
    """The name at once; the basename already for what the secondary keeps of this run, whose primary has the old."""
    pair.make_volume("N")
    pair.make_set("NDR", "N", *keep(4, "old"))
    with pair.slowly():
        run = pair.begin("NDR")
        pair.london.ask("set", "replication-set", "name", "Renamed", "snapshot-basename", "new", "NDR")
        assert pair.runs("Renamed")[0]["state"] == "running"
        wait_until("Newark hears of it", lambda: "Renamed" in str(pair.newark.ask("show", "replication-sets")))
    last = pair.await_success("Renamed")
    assert (last["run"], last["error"]) == (run["run"], "")
    assert pair.history("Renamed", pair.london) == ["old_0000"]
    wait_until("it has one", lambda: pair.history("Renamed", pair.newark) == ["new_0000"])
    assert pair.same("old_0000", "new_0000")
    assert "replication set 'NDR' does not exist" in pair.newark.refused("show", "replication-sets", "NDR")


def test_a_snapshot_is_sent_instead_of_what_the_volume_holds(pair: Replicated) -> None:
    pair.make_volume("M")
    pair.make_set("MDR", "M")
    pair.london.ask("create", "snapshots", "volumes", "M", "Monday")
    pair.write("M")
    run = pair.replicate("MDR", "snapshot", "Monday")
    assert run["snapshot"] == "Monday"
    assert pair.same("Monday", "M") and not pair.same("M")
    pair.replicate("MDR")
    assert pair.same("M")


def test_a_snapshot_is_a_primary_like_any_volume(pair: Replicated) -> None:
    pair.make_volume("P")
    pair.london.ask("create", "snapshots", "volumes", "P", "Image")
    pair.make_set("ImageDR", "Image")
    pair.write("P")
    pair.replicate("ImageDR")
    assert pair.same("Image") and not pair.same("P", "Image")
    assert pair.replicate("ImageDR")["changed-bytes-numeric"] == 0, "nobody has written to it"


def test_a_primary_is_expanded_rolled_back_and_renamed_like_any_volume(pair: Replicated) -> None:
    """Also during a run, which sends the instant of its request. The other side shows the new name."""
    london = pair.london
    pair.make_volume("V")
    pair.make_set("VDR", "V")
    pair.replicate("VDR")
    london.ask("create", "snapshots", "volumes", "V", "V-before")
    pair.write("V", 1, 3)
    digest = london.digest("V")
    with pair.slowly():
        pair.begin("VDR")
        london.ask("rollback", "volume", "snapshot", "V-before", "V")
        london.ask("expand", "volume", "size", "1MiB", "V")
        london.ask("set", "volume", "name", "V2", "V")
    pair.await_success("VDR")
    assert pair.newark.digest("V") == digest
    pair.replicate("VDR")
    assert pair.same("V2", "V")
    assert pair.newark.ask("show", "volumes", "V")["volumes"][0]["size"] == "5 MiB"
    pair.await_on_both("the name is shown", lambda system: pair.show("VDR", system)["primary-volume-name"] == "V2")


def test_snapshots_of_a_history_have_the_retention_priority_of_their_set(pair: Replicated) -> None:
    pair.make_volume("R")
    pair.make_set("RDR", "R", *keep(16, "r"), "snapshot-retention-priority", "medium")
    pair.replicate("RDR")
    for system in (pair.london, pair.newark):
        (taken,) = system.ask("show", "snapshots", "r_0000")["snapshots"]
        assert (taken["retention-priority"], taken["master-volume-name"]) == ("medium", "R")
