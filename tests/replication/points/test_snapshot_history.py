"""Snapshot history: names, numbers, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Table, insert

from offsite.access.tables import maps
from offsite.errors import BadParameter
from offsite.management.schedules.tables import tasks
from offsite.names import check_name
from offsite.pools.needs import Need
from offsite.pools.protocol import Change, ImageInfo, Records, Snapshot
from offsite.pools.tables import volume_group_members, volume_groups
from offsite.replication.naming.snapshot_names import check_basename, renumbered, snapshot_names
from offsite.replication.naming.snapshot_numbers import SNAPSHOT_NUMBERS, is_behind, later_number, number_after
from offsite.replication.points import snapshot_history
from offsite.replication.points.history_rotation import HistoryTerms, rotate, terms_of
from offsite.replication.points.snapshot_history import Keeping, check_count
from offsite.replication.records import run_records, set_records
from offsite.replication.records.run_states import RunEvent
from offsite.replication.records.run_writer import change_run, use_number
from tests.replication.runs.test_dispatcher import Quiet

MIB = 1 << 20


@pytest.mark.parametrize(
    ("basename", "rule"),
    [
        ("", "0 bytes; 1 to 26"),
        ("x" * 27, "27 bytes; 1 to 26"),
        ("ä" * 14, "28 bytes; 1 to 26"),
        ("a.b", "'.'"),
        ("a,b", "','"),
        ("a<b", "'<'"),
        ('a"b', "'\"'"),
        ("a\\b", "\\\\"),
        ("a\nb", "allowed"),
        (" a", "begins with a space"),
    ],
)
def test_basenames_that_break_a_rule(basename: str, rule: str) -> None:
    with pytest.raises(BadParameter, match=rule):
        check_basename(basename)


@given(st.text(min_size=1, max_size=26), st.integers(0, SNAPSHOT_NUMBERS - 1), st.integers(1, 16))
def test_what_is_a_basename_always_gives_names_that_a_volume_may_have(text: str, number: int, members: int) -> None:
    try:
        basename = check_basename(text, of_group=members > 1)
    except BadParameter:
        return
    names = snapshot_names(basename, number, members)
    assert len(set(names)) == members
    for name in names:
        assert check_name(name, "snapshot name") == name


def test_a_group_leaves_room_for_the_member_in_the_name() -> None:
    check_basename("x" * 22, of_group=True)
    with pytest.raises(BadParameter, match="1 to 22 are allowed for a volume group"):
        check_basename("x" * 23, of_group=True)
    assert snapshot_names("db", 7, 1) == ["db_0007"]
    assert snapshot_names("db", 7, 2) == ["db_0007-1", "db_0007-2"]


@pytest.mark.parametrize("count", [0, 17, -1])
def test_counts_outside_their_limits(count: int) -> None:
    with pytest.raises(BadParameter, match="1 to 16"):
        check_count(count)


@pytest.fixture
def site(tmp_path: Path) -> Quiet:
    site = Quiet(tmp_path / "london", "London")
    site.add_peer()
    return site


MIDNIGHT = 1_000_000.0


def keep(site: Quiet, number: int, priority: str = "never-delete", now: float = MIDNIGHT) -> int | None:
    """The image of the history snapshot of run `number`."""
    of = site.replication.sets.record("S")
    keeping = Keeping(of.id, f"run-{number}", "h", number, priority, MIDNIGHT - 60, now)
    volume = of.members[0].image_id
    with site.database.read() as connection:
        found = keeping.find(connection, 1)
    if found is None:
        return None
    return site.pool.apply(found.snapshots([volume], [volume]), found.write)[0].id


def rotated(site: Quiet, terms: HistoryTerms, now: float = MIDNIGHT) -> list[tuple[int, str]]:
    """What was told."""
    told: list[tuple[int, str]] = []
    of = site.replication.sets.record("S")
    rotate(
        site.database, site.pool, site.needs, of, terms, now, lambda kind, message: told.append((kind.code, message))
    )
    return told


def kept(site: Quiet) -> list[int]:
    with site.database.read() as connection:
        return [each.number for each in snapshot_history.history_of(connection, 1)]


def test_the_oldest_beyond_the_count_go_and_that_is_told(site: Quiet) -> None:
    site.add_set("S")
    told = []
    for number in range(5):
        keep(site, number)
        told += rotated(site, HistoryTerms(3))
    assert kept(site) == [2, 3, 4]
    assert sorted(i.name for i in site.pool.images() if i.kind == "snapshot") == ["h_0002", "h_0003", "h_0004"]
    assert told == [
        (612, f"Snapshot h_000{n} was deleted from pool A: the history of replication set S keeps the newest 3.")
        for n in range(2)
    ]


def test_age_is_the_order_in_which_they_came_not_their_numbers(site: Quiet) -> None:
    """After 99999 comes 0; and a number that a primary makes up does not make all others old."""
    site.add_set("S")
    for number in (99_998, 99_999, 0, 1):
        keep(site, number)
        rotated(site, HistoryTerms(2))
    assert kept(site) == [0, 1]


def test_no_more_go_at_a_time_than_the_terms_say(site: Quiet) -> None:
    site.add_set("S")
    for number in range(8):
        keep(site, number)
    rotated(site, HistoryTerms(1, let_go_max=2))
    assert kept(site) == [2, 3, 4, 5, 6, 7]


def test_what_something_needs_takes_no_place_among_what_may_go(site: Quiet) -> None:
    """Else a few maps would keep the secondary's history from ever getting shorter."""
    site.add_set("S")
    ids = [keep(site, number) for number in range(6)]
    for image_id in ids[:3]:
        need_map(site, image_id or 0)
    rotated(site, HistoryTerms(1, let_go_max=2))
    assert kept(site) == [0, 1, 2, 5]


def test_what_is_younger_than_the_minimum_age_stays(site: Quiet) -> None:
    site.add_set("S")
    for number in range(4):
        keep(site, number, now=MIDNIGHT + 3600 * number)
    rotated(site, HistoryTerms(1, age_seconds=7200), MIDNIGHT + 3 * 3600)
    assert kept(site) == [2, 3]
    rotated(site, HistoryTerms(1, age_seconds=7200), MIDNIGHT - 86400)
    assert kept(site) == [2, 3], "a clock that was put back makes none older"


def test_without_a_minimum_age_no_clock_matters(site: Quiet) -> None:
    site.add_set("S")
    for number in range(3):
        keep(site, number)
    rotated(site, HistoryTerms(1), MIDNIGHT - 86400)
    assert kept(site) == [2]


def test_the_secondary_keeps_what_its_users_say_and_lets_two_go_at_a_time(site: Quiet) -> None:
    of = replace(site.add_set("S"), role="secondary", snapshot_count=4)
    assert terms_of(of, 1) == HistoryTerms(4, 0.0, 2), "a Commit lowers nothing"
    assert terms_of(of, 16) == HistoryTerms(16, 0.0, 2), "but may raise it"
    assert terms_of(replace(of, snapshot_count=1, minimum_snapshot_count=7), 1).count == 7
    assert terms_of(replace(of, minimum_snapshot_age_hours=48), 1).age_seconds == 48 * 3600
    primary = replace(of, role="primary", snapshot_count=4)
    assert terms_of(primary, 2) == HistoryTerms(2)
    assert terms_of(replace(primary, minimum_snapshot_age_hours=48), 2) == HistoryTerms(2, 48 * 3600)


def need_map(site: Quiet, image_id: int) -> str:
    insert_row(site, maps, image_id=image_id, initiator="i", access="read-only")
    return "it is mapped to i"


def need_group(site: Quiet, image_id: int) -> str:
    insert_row(site, volume_groups, id=1, uuid="g", name="G", created_at=0.0)
    insert_row(site, volume_group_members, image_id=image_id, group_id=1)
    return "it is in volume group G"


def need_task(site: Quiet, image_id: int) -> str:
    values = {"name": "T", "type": "ResetSnapshot", "image_id": image_id, "created_at": 0.0}
    insert_row(site, tasks, **values, last_snapshot=False, next_snapshot_number=1)
    return "task T uses it"


def need_child(site: Quiet, image_id: int) -> str:
    site.pool.apply([Snapshot(image_id, "Drill")])
    return "it is the parent of snapshot Drill"


def need_set(site: Quiet, image_id: int) -> str:
    with site.database.transaction() as connection:
        values = {"uuid": "t", "name": "T", "role": "primary", "state": "ready", "peer_id": 1, "remote_pool": "A"}
        members = [set_records.MemberRecord(image_id, "T")]
        set_records.insert_set(connection, values | {"generation": 1, "created_at": 0.0}, members)
    return "it is the primary volume of replication set T"


def need_run(site: Quiet, image_id: int) -> str:
    """That waits for its hook, and is to send it."""
    of = site.replication.sets.record("S")
    with site.database.transaction() as connection:
        change_run(connection, of.id, "run", RunEvent.PREPARE, 0.0, source=site.pool.image(image_id).name)
    return "a run of replication set S sends it"


def insert_row(site: Quiet, table: Table, **values: object) -> None:
    with site.database.transaction() as connection:
        connection.execute(insert(table).values(values))


NEEDS = [need_map, need_group, need_task, need_child, need_set, need_run]


@pytest.mark.parametrize("need", NEEDS)
def test_what_something_needs_stays_which_is_told_once(site: Quiet, need: Callable[[Quiet, int], str]) -> None:
    site.add_set("S")
    first, second = keep(site, 0), keep(site, 1)
    assert first is not None and second is not None
    sentence = need(site, first)
    insert_row(site, maps, image_id=second, initiator="i", access="no-access")
    keep(site, 2)
    told = rotated(site, HistoryTerms(1))
    assert kept(site) == [0, 2], "no-access is no map"
    kinds = {code: message for code, message in told}
    assert kinds[660] == (
        "The history of replication set S keeps more than its 1 snapshots, because some cannot be deleted: h_0000: "
        f"{sentence}."
    )
    assert rotated(site, HistoryTerms(1)) == []


def test_what_a_floor_comes_to_need_stays(site: Quiet) -> None:
    """A floor that is to be, whose finder is registered, keeps what it needs from going."""
    site.add_set("S")
    first = keep(site, 0) or 0
    keep(site, 1)
    site.needs.register(lambda _connection, ids: [(each, Need("it is on display")) for each in ids if each == first])
    assert "h_0000: it is on display." in rotated(site, HistoryTerms(1))[0][1]
    assert kept(site) == [0, 1]


def test_what_is_needed_no_more_goes(site: Quiet) -> None:
    site.add_set("S")
    need_map(site, keep(site, 0) or 0)
    keep(site, 1)
    rotated(site, HistoryTerms(1))
    with site.database.transaction() as connection:
        connection.execute(maps.delete())
    rotated(site, HistoryTerms(1))
    assert kept(site) == [1]


@pytest.mark.parametrize("need", [need_map, need_group, need_task])
def test_what_comes_to_be_needed_at_that_moment_stays(
    site: Quiet, monkeypatch: pytest.MonkeyPatch, need: Callable[[Quiet, int], str]
) -> None:
    """Between the look at what needs it and the deletion, which would have taken the map or task along."""
    site.add_set("S")
    first = keep(site, 0) or 0
    keep(site, 1)
    apply = site.pool.apply

    def need_and_apply(changes: Sequence[Change], write: Records | None = None) -> list[ImageInfo]:
        need(site, first)
        return apply(changes, write)

    monkeypatch.setattr(site.pool, "apply", need_and_apply)
    told = rotated(site, HistoryTerms(1))
    assert kept(site) == [0, 1]
    assert [code for code, _ in told] == [660]


def test_the_next_free_number_takes_the_place_of_one_whose_name_is_in_use(site: Quiet) -> None:
    of = site.add_set("S")
    site.pool.apply([Snapshot(of.members[0].image_id, "h_0001")])
    insert_row(site, volume_groups, id=1, uuid="g", name="h_0002", created_at=0.0)
    assert keep(site, 1) is not None
    assert kept(site) == [3]


def test_a_snapshot_shows_the_instant_of_its_data(site: Quiet) -> None:
    site.add_set("S")
    assert site.pool.image(keep(site, 1) or 0).created_at == MIDNIGHT - 60


def test_when_no_name_is_free_none_is_taken(site: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    of = site.add_set("S")
    monkeypatch.setattr(snapshot_history, "NAMES_TRIED_MAX", 2)
    site.pool.apply([Snapshot(of.members[0].image_id, f"h_000{number}") for number in (1, 2)])
    assert keep(site, 1) is None


def test_one_that_is_deleted_at_that_moment_is_no_trouble(site: Quiet) -> None:
    site.add_set("S")
    ids = [keep(site, number) for number in range(3)]

    def delete(_connection: Connection, _doomed: Sequence[int]) -> Iterator[tuple[int, Need]]:
        site.pool.by_id.pop(ids[0] or 0, None)  # a user was quicker
        return iter(())

    site.needs.register(delete)
    rotated(site, HistoryTerms(1))
    assert sorted(i.name for i in site.pool.images() if i.kind == "snapshot") == ["h_0002"]


def test_numbers_go_round() -> None:
    assert number_after(99_999) == 0
    assert later_number(0, 99_999) == 0 and later_number(99_999, 0) == 0
    assert later_number(7, 7) == 7
    assert is_behind(6, 7) and not is_behind(8, 7)
    assert is_behind(50_000, 0) and not is_behind(49_999, 0), "ahead is less than half a round"
    assert renumbered("a_b_0007-2", 7, 12) == "a_b_0012-2"
    assert renumbered("mine", 7, 12) is None


def test_requests_that_wait_go_on_after_the_number_that_was_used(site: Quiet) -> None:
    of = site.add_set("S")
    with site.database.transaction() as connection:
        for run, number in (("one", 99_997), ("two", 99_998), ("three", 7)):
            event = RunEvent.START if run == "one" else RunEvent.QUEUE
            change_run(connection, of.id, run, event, 0.0, snapshot_number=number)
        use_number(connection, of.id, "one", 99_999)
        found = [run_records.find_run(connection, run) for run in ("one", "two", "three")]
    assert [each and each.snapshot_number for each in found] == [99_999, 0, 7]
