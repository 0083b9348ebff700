"""Whole systems that are put back to an earlier copy: what is seen, shown, told and refused; and the way out."""

from __future__ import annotations

import copy

import pytest

from offsite import events
from offsite.errors import NotAllowed, PeerUnreachable, SetDiverged
from offsite.pools.protocol import Create
from offsite.replication.points.kept_copies import kept_names
from offsite.replication.sets.settings import ChosenSettings
from offsite.replication.sets.status import Status
from offsite.replication.sets.view import SetInfo
from tests.pools.memory_pool import MemoryDisk
from tests.replication.sites import Site, pair, random_bytes
from tests.systems import wait_until

MIB = 1 << 20
Saved = tuple[bytes, MemoryDisk]

pytestmark = pytest.mark.usefixtures("pairs")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.runs.reconciler.SOON_SECONDS", 0.05)
    monkeypatch.setattr("offsite.replication.runs.reconciler.SELDOM_SECONDS", 0.2)


@pytest.fixture
def pairs(soon: None, london: Site, newark: Site) -> None:
    del soon
    volume = london.create_volume("Sales", MIB)
    pair(london, newark)
    london.create_set("SalesDR", volume, "Newark")


def save(site: Site) -> Saved:
    site.pool.flush()
    site.stop()
    saved = (site.directory / "state.db").read_bytes(), copy.deepcopy(site.disk)
    site.open()
    site.start()
    return saved


def put_back(site: Site, saved: Saved, peer: Site) -> None:
    """What is put back is refused as an older or second copy of its system, until it is chosen there."""
    site.stop()
    for name in ("state.db-wal", "state.db-shm"):
        (site.directory / name).unlink(missing_ok=True)
    (site.directory / "state.db").write_bytes(saved[0])
    site.disk = copy.deepcopy(saved[1])
    site.open()
    site.start()
    peers, start = peer.replication.peers, site.replication.introductions.current

    def is_refused() -> bool:
        refused = peers.get(site.name).incarnation.refused
        return refused is not None and refused.start == start

    wait_until("it is refused", is_refused)
    peers.accept(site.name, str(start))


def replicate(london: Site, seed: int) -> bytes:
    """Returns what the primary held."""
    london.write(london.image_id("Sales"), 0, random_bytes(64 << 10, seed))
    assert london.run_to_end("SalesDR").state == "success"
    return london.content("Sales")


def shown(site: Site) -> SetInfo:
    return site.replication.sets.get("SalesDR")


def await_status(site: Site, status: Status) -> None:
    wait_until(f"it is {status.value} on {site.name}", lambda: shown(site).status is status)


def told(site: Site, kind: events.EventKind) -> list[str]:
    return [message for each, message in site.events if each is kind]


def snapshots(site: Site) -> list[str]:
    return sorted(image.name for image in site.pools["A"].images() if image.kind == "snapshot")


@pytest.fixture
def diverged(pairs: None, london: Site, newark: Site) -> bytes:
    """What Newark holds, and London has never had."""
    del pairs
    replicate(london, 1)
    saved = save(london)
    newest = replicate(london, 2)
    put_back(london, saved, newark)
    await_status(london, Status.DIVERGED)
    return newest


@pytest.mark.usefixtures("diverged")
def test_a_visit_finds_it_without_a_run_and_both_operators_are_told(london: Site, newark: Site) -> None:
    await_status(newark, Status.DIVERGED)
    (here,) = told(london, events.SET_DIVERGED)
    (there,) = told(newark, events.SET_DIVERGED)
    assert "resolve replication-set use primary SalesDR" in here and "on Newark" in here
    assert "an operator decides on London" in there
    assert (shown(london).lag_seconds, shown(london).recovery_point_at) == (None, None), "it is not a copy of London's"
    assert shown(newark).lag_seconds is not None
    assert (shown(london).difference or "?")[1:] in here and "is diverged" in (shown(newark).difference or "")


def test_nothing_that_can_be_asked_for_touches_the_copy(london: Site, newark: Site, diverged: bytes) -> None:
    before = newark.internal_names()
    for ask in (
        lambda: london.replication.replicate("SalesDR"),
        lambda: london.replication.resume("SalesDR"),
    ):
        with pytest.raises(SetDiverged, match="which this system never had"):
            ask()
    london.replication.suspend("SalesDR")
    assert shown(london).status is Status.DIVERGED
    with pytest.raises(NotAllowed, match="suspended"):
        london.replication.use_primary("SalesDR")
    london.replication.resume("SalesDR")
    london.restart()
    await_status(london, Status.DIVERGED)
    assert (newark.content("Sales"), newark.internal_names()) == (diverged, before)
    assert len(told(london, events.SET_DIVERGED)) == 1, "it is on record, and not told anew at each start"


def test_the_way_out_keeps_the_copy_and_sends_what_is_here(london: Site, newark: Site, diverged: bytes) -> None:
    question = london.replication.resolution_question("SalesDR")
    for part in ("Newark holds the data of", "digest", "kept there as a snapshot", "KiB are sent"):
        assert part in question
    resolved = london.replication.use_primary("SalesDR")
    wait_until("it is there", lambda: newark.content("Sales") == london.content("Sales"))
    assert snapshots(newark) == resolved.snapshots
    assert newark.content(resolved.snapshots[0]) == diverged
    for site in (london, newark):
        await_status(site, Status.READY)
        assert shown(site).difference is None
    assert told(london, events.DIVERGENCE_DECIDED) != [] and told(newark, events.COPY_KEPT) != []
    replicate(london, 5)
    assert newark.content(resolved.snapshots[0]) == diverged


def test_a_way_out_that_is_cut_can_be_taken_again(london: Site, newark: Site, diverged: bytes) -> None:
    newark.pool.flush()
    newark.stop()
    with pytest.raises(PeerUnreachable):
        london.replication.use_primary("SalesDR")
    assert shown(london).status is Status.DIVERGED
    newark.open()
    newark.start()
    first = london.replication._resolution.use_primary(shown(london).uuid)  # and London stops before its run begins
    london.restart()
    again = london.replication.use_primary("SalesDR")
    assert again.snapshots == first.snapshots == snapshots(newark)
    wait_until("it is there", lambda: newark.content("Sales") == london.content("Sales"))
    assert newark.content(again.snapshots[0]) == diverged


def test_the_snapshot_takes_no_name_that_is_in_use(london: Site, newark: Site, diverged: bytes) -> None:
    taken_at = next(iter(newark.runs("SalesDR"))).started_at
    (usual,) = kept_names(["Sales"], taken_at, set())
    newark.pools["A"].apply([Create(usual, MIB)])
    (kept,) = london.replication.use_primary("SalesDR").snapshots
    assert kept != usual and newark.content(kept) == diverged


@pytest.mark.usefixtures("diverged")
def test_only_a_diverged_set_has_something_to_decide(london: Site, newark: Site) -> None:
    with pytest.raises(NotAllowed, match="cannot be resolved; do it on system London"):
        newark.replication.use_primary("SalesDR")
    london.replication.use_primary("SalesDR")
    wait_until("it is there", lambda: newark.content("Sales") == london.content("Sales"))
    await_status(london, Status.READY)
    for ask in (london.replication.use_primary, london.replication.resolution_question):
        with pytest.raises(NotAllowed, match="no decision is required"):
            ask("SalesDR")


def test_a_run_that_stood_still_meanwhile_goes_on_once_it_is_decided(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run finds it, not a visit: it is not tried again before somebody has decided."""
    replicate(london, 1)
    saved = save(london)
    newest = replicate(london, 2)
    monkeypatch.setattr("offsite.replication.runs.reconciler.Reconciler._compare_bases", lambda *_: None)
    put_back(london, saved, newark)
    run = london.replication.replicate("SalesDR").run
    await_status(london, Status.DIVERGED)
    assert newark.content("Sales") == newest
    assert "is diverged" in (london.runs("SalesDR")[0].error or "")
    assert told(london, events.SET_SUSPENDED_ITSELF) == []
    (kept,) = london.replication.use_primary("SalesDR").snapshots
    london.await_end("SalesDR", run)
    assert (newark.content(kept), newark.content("Sales")) == (newest, london.content("Sales"))


def test_an_abort_leaves_the_copy_alone_too(london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    replicate(london, 1)
    saved = save(london)
    newest = replicate(london, 2)
    monkeypatch.setattr("offsite.replication.runs.reconciler.Reconciler._compare_bases", lambda *_: None)
    put_back(london, saved, newark)
    london.replication.replicate("SalesDR")
    await_status(london, Status.DIVERGED)
    london.replication.abort("SalesDR")
    assert shown(london).status is Status.DIVERGED and shown(london).current_run is None
    assert newark.content("Sales") == newest


def test_what_is_put_right_again_is_seen_and_goes_on(london: Site, newark: Site) -> None:
    replicate(london, 1)
    saved = save(london)
    replicate(london, 2)
    newer = save(london)
    put_back(london, saved, newark)
    await_status(london, Status.DIVERGED)
    put_back(london, newer, newark)
    await_status(london, Status.READY)
    await_status(newark, Status.READY)
    assert replicate(london, 3) == newark.content("Sales")


def test_a_secondary_that_was_restored_is_shown_for_what_it_is_before_any_run(london: Site, newark: Site) -> None:
    replicate(london, 1)
    older = shown(london).recovery_point_at
    saved = save(newark)
    replicate(london, 2)
    newest = shown(london).recovery_point_at
    assert older is not None and newest is not None and older < newest
    put_back(newark, saved, london)
    wait_until("it is seen", lambda: shown(london).recovery_point_at == older)
    assert shown(london).status is Status.READY
    assert shown(london).lag_seconds == pytest.approx(shown(newark).lag_seconds, abs=5)
    assert "an older copy" in (shown(london).difference or "")
    assert len(told(london, events.SECONDARY_IS_OLDER)) == 1
    replicate(london, 3)
    assert newark.content("Sales") == london.content("Sales")
    assert (shown(london).difference, snapshots(newark)) == (None, [])


def test_one_that_holds_nothing_any_more_is_no_copy(london: Site, newark: Site) -> None:
    saved = save(newark)
    replicate(london, 1)
    put_back(newark, saved, london)
    await_status(london, Status.UNSYNCHRONIZED)
    assert (shown(london).lag_seconds, shown(london).recovery_point_at) == (None, None)
    replicate(london, 2)
    await_status(london, Status.READY)


def test_what_one_set_is_refused_on_a_visit_keeps_no_other_from_it(london: Site, newark: Site) -> None:
    """They are visited by their names, and the first of them has other roles over there."""
    london.create_set("AfterwardsDR", london.create_volume("Other", MIB), "Newark")
    with newark.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE replication_sets SET generation = 9 WHERE name = 'AfterwardsDR'")
    london.replication.sets.modify("SalesDR", ChosenSettings(), "Zulu")
    wait_until("it was told", lambda: newark.replication.sets.all()[-1].name == "Zulu")
