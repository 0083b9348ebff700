"""Which number the snapshots that a run has left on the primary get when the secondary has kept it under another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from offsite.pools.protocol import Rename, Snapshot
from offsite.replication.points.history_following import Following, find_following
from offsite.replication.points.snapshot_history import history_of
from offsite.replication.records.run_records import find_run
from offsite.replication.records.run_states import RunEvent
from offsite.replication.records.run_writer import request_run
from tests.replication.points.test_snapshot_history import keep, need_group
from tests.replication.runs.test_dispatcher import Quiet


@pytest.fixture
def site(tmp_path: Path) -> Quiet:
    site = Quiet(tmp_path / "london", "London")
    site.add_peer()
    site.add_set("S")
    return site


def follow(site: Quiet, new_number: int | None) -> Following:
    """What becomes of run 1, which has left h_0001 here; it is done."""
    of = site.replication.sets.record("S")
    with site.database.transaction() as connection:
        request_run(connection, of.id, "run-1", 1, RunEvent.START, 0.0)
        run = find_run(connection, "run-1")
        assert run is not None
        following = find_following(connection, site.pool, site.needs, run, new_number)
    site.pool.apply(list(following.renames), lambda connection, _: following.write(connection, of.id))
    return following


def history(site: Quiet) -> list[tuple[str, int]]:
    with site.database.read() as connection:
        return [(site.pool.image(each.image_id).name, each.number) for each in history_of(connection, 1)]


def test_it_gets_the_name_and_the_number_that_it_has_on_the_secondary(site: Quiet) -> None:
    keep(site, 1)
    assert follow(site, 5).renames != ()
    assert history(site) == [("h_0005", 5)]
    assert site.runs("S")[0].snapshot_number == 5
    assert site.replication.sets.record("S").next_snapshot_number == 6


def taken_name(site: Quiet, _image_id: int) -> None:
    volume = site.replication.sets.record("S").members[0].image_id
    site.pool.apply([Snapshot(volume, "h_0005")])


def renamed_by_a_user(site: Quiet, image_id: int) -> None:
    site.pool.apply([Rename(image_id, "mine")])


def needed(site: Quiet, image_id: int) -> None:
    need_group(site, image_id)


@pytest.mark.parametrize("why", [taken_name, renamed_by_a_user, needed])
def test_it_keeps_its_name_where_another_would_take_something_away(
    site: Quiet, why: Callable[[Quiet, int], None]
) -> None:
    """A name that is in use, one that a user has given, and one by which something knows it."""
    image_id = keep(site, 1)
    assert image_id is not None
    why(site, image_id)
    name = site.pool.image(image_id).name
    following = follow(site, 5)
    assert (following.renames, following.keeps_names) == ((), True)
    assert history(site) == [(name, 1)]
    assert "keep their names" in following.sentence("S")
    assert site.runs("S")[0].snapshot_number == 5, "the run has the number all the same"


def test_what_the_secondary_has_not_kept_stays_here_as_it_is(site: Quiet) -> None:
    keep(site, 1)
    assert follow(site, None).renames == ()
    assert history(site) == [("h_0001", 1)]
    assert site.runs("S")[0].snapshot_number == 1
