"""What becomes of a request to replicate: policy, numbers, sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.errors import InUse, NotAllowed, SnapshotNotFound
from offsite.pools.protocol import Clone, Snapshot
from offsite.replication.points import point_records
from offsite.replication.records import run_records
from offsite.replication.records.run_states import RunEvent
from offsite.replication.records.run_writer import change_run
from offsite.replication.sets.settings import ChosenSettings
from tests.replication.runs.test_dispatcher import Quiet


@pytest.fixture
def london(tmp_path: Path) -> Iterator[Quiet]:
    site = Quiet(tmp_path / "london", "London")
    site.add_peer()
    site.add_set("S")
    yield site
    site.database.close()


def states(site: Quiet) -> list[str]:
    """Oldest first."""
    return [run.state for run in reversed(site.runs("S"))]


def images(site: Quiet, kind: str) -> list[str]:
    return sorted(image.name for image in site.pool.images() if image.kind == kind)


def modify(site: Quiet, **settings: object) -> None:
    site.replication.sets.modify("S", ChosenSettings(**settings))  # type: ignore[arg-type]  # names and values of Settings


def test_discard_drops_what_comes_while_a_run_is_under_way(london: Quiet) -> None:
    modify(london, queue_policy="discard")
    assert [london.replication.replicate("S").state for _ in range(3)] == ["running", "dropped", "dropped"]
    assert states(london) == ["running", "dropped", "dropped"]
    assert len(images(london, "internal")) == 1
    london.step()
    london.succeed(london.attempts[0])
    assert london.replication.replicate("S").state == "running"


def test_every_request_takes_a_number_whatever_becomes_of_it(london: Quiet) -> None:
    """ME4: the number grows with dropped and failed requests, too, so that names tell how many there were."""
    modify(london, queue_policy="discard")
    london.replication.replicate("S")
    london.replication.replicate("S")
    with pytest.raises(SnapshotNotFound):
        london.step()
        london.succeed(london.attempts[0])
        london.replication.replicate("S", last_snapshot=True)
    london.replication.replicate("S")
    assert [run.snapshot_number for run in reversed(london.runs("S"))] == [0, 1, 2, 3]
    assert states(london) == ["success", "dropped", "failed", "running"]


def test_the_policy_cannot_become_discard_while_a_run_is_queued(london: Quiet) -> None:
    london.replication.replicate("S")
    london.replication.replicate("S")
    with pytest.raises(InUse, match="clear its queue first"):
        modify(london, queue_policy="discard")
    assert london.replication.clear_queue("S")
    assert not london.replication.clear_queue("S")
    modify(london, queue_policy="discard")
    assert states(london) == ["running", "dropped"]
    assert len(images(london, "internal")) == 1


def test_a_snapshot_is_sent_instead_of_the_volume(london: Quiet) -> None:
    volume = london.image_id("VS")
    london.write(volume, 0, b"monday")
    (monday,) = london.pool.apply([Snapshot(volume, "Monday")])
    london.write(volume, 0, b"friday")
    (inner,) = london.pool.apply([Snapshot(monday.id, "Inner")])
    london.pool.apply([Clone(volume, "Copy")])
    run = london.replication.replicate("S", snapshot="Monday").run
    assert london.content(f"<{run} 0>").startswith(b"monday")
    assert london.runs("S")[0].source == "Monday"
    assert london.replication.replicate("S", snapshot=inner.uuid).state == "queued", (
        "a snapshot of a snapshot, by serial"
    )
    (strange,) = london.pool.apply([Snapshot(london.image_id("Copy"), "Strange")])
    with pytest.raises(NotAllowed, match="Strange is not a snapshot of VS"):
        london.replication.replicate("S", snapshot="Strange")
    with pytest.raises(SnapshotNotFound, match="'VS'"):
        london.replication.replicate("S", snapshot="VS")
    assert strange.kind == "snapshot"


def test_the_last_snapshot_is_the_newest_one(london: Quiet) -> None:
    with pytest.raises(SnapshotNotFound, match="VS has no snapshot"):
        london.replication.replicate("S", last_snapshot=True)
    for name in ("One", "Two", "Three"):
        london.pool.apply([Snapshot(london.image_id("VS"), name)])
    london.replication.replicate("S", last_snapshot=True)
    assert london.runs("S")[0].source == "Three"


def test_the_last_snapshot_is_the_newest_one_also_after_the_clock_was_put_back(london: Quiet) -> None:
    """Monday's was sent in place of Tuesday's, whose time was an earlier one."""
    volume = london.image_id("VS")
    london.pool.apply([Snapshot(volume, "Monday", created_at=2_000.0)])
    london.pool.apply([Snapshot(volume, "Tuesday", created_at=1_000.0)])
    run = london.replication.replicate("S", last_snapshot=True).run
    assert london.runs("S")[0].source == "Tuesday"
    with london.database.read() as connection:
        point = point_records.find_point(connection, 1, run)
    assert point.taken_at == 1_000.0, "the instant of the data, not of the request"


def test_what_runs_have_left_behind_is_not_the_last_snapshot(london: Quiet) -> None:
    """That of a queued run is taken after a newer one, and holds older data."""
    modify(london, snapshot_history="both", snapshot_basename="h", snapshot_count=2)
    london.replication.replicate("S")
    london.replication.replicate("S")
    london.pool.apply([Snapshot(london.image_id("VS"), "Tuesday")])
    london.step()
    london.succeed(london.attempts[0])
    london.step()
    newest = max(london.pool.images(), key=lambda image: image.id)
    assert newest.name == "h_0001"
    london.succeed(london.attempts[0])
    london.replication.replicate("S", last_snapshot=True)
    assert london.runs("S")[0].source == "Tuesday"


def test_the_last_run_is_the_one_that_ended_last_whatever_the_clock_says(london: Quiet) -> None:
    ended = []
    for now, event in ((5_000.0, RunEvent.COMPLETE), (4_000.0, RunEvent.ABORT), (3_000.0, RunEvent.FAIL)):
        with london.database.transaction() as connection:
            change_run(connection, 1, event.name, RunEvent.START, now)
            change_run(connection, 1, event.name, event, now)
        last = london.replication.sets.get("S").last_run
        assert last is not None
        ended.append(last.state)
    assert ended == ["success", "aborted", "failed"]


def test_a_request_that_fails_while_an_older_run_goes_on_is_not_the_last_once_that_has_ended(london: Quiet) -> None:
    with london.database.transaction() as connection:
        for run in ("older", "newer"):
            change_run(connection, 1, run, RunEvent.START, 0.0)
        change_run(connection, 1, "newer", RunEvent.FAIL, 2.0)
        change_run(connection, 1, "older", RunEvent.COMPLETE, 1.0)
        last = run_records.last_ended_run(connection, 1)
    assert last is not None and last.uuid == "older"


def test_history_on_both_takes_the_primarys_when_the_run_starts(london: Quiet) -> None:
    """That of a queued run shows the instant at which it was queued, and is there only once it runs."""
    modify(london, snapshot_history="both", snapshot_basename="h", snapshot_count=2)
    volume = london.image_id("VS")
    london.write(volume, 0, b"first")
    london.replication.replicate("S")
    london.write(volume, 0, b"queue")
    london.replication.replicate("S")
    london.write(volume, 0, b"later")
    assert images(london, "snapshot") == ["h_0000"]
    london.step()
    london.succeed(london.attempts[0])
    london.step()
    assert images(london, "snapshot") == ["h_0000", "h_0001"]
    assert london.content("h_0000").startswith(b"first") and london.content("h_0001").startswith(b"queue")
    queued = next(image for image in london.pool.images() if image.name == "h_0001")
    assert queued.parent_id == volume, "a snapshot of the volume, not of something hidden"
    london.succeed(london.attempts[0])
    london.replication.replicate("S")
    assert images(london, "snapshot") == ["h_0001", "h_0002"]
