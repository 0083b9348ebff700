"""Snapshot history: names, numbers, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from offsite.errors import BadParameter
from offsite.names import check_name
from offsite.pools.protocol import Snapshot
from offsite.replication import history, records
from offsite.replication.history import Keeping, check_basename, check_count, rotate, snapshot_names
from offsite.store.tables.access import maps
from tests.replication.test_conductor import Quiet

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


@given(st.text(min_size=1, max_size=26), st.integers(0, records.SNAPSHOT_NUMBERS - 1), st.integers(1, 16))
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


def keep(site: Quiet, number: int, priority: str = "never-delete") -> int | None:
    """The image of the history snapshot of run `number`."""
    of = site.replication.sets.record("S")
    keeping = Keeping(of.id, f"run-{number}", number, snapshot_names("h", number, 1), priority)
    volume = of.members[0].image_id
    with site.database.read() as connection:
        snapshots, write = keeping.changes(connection, [volume], [volume])
    made = site.pool.apply(snapshots, write)
    return made[0].id if made else None


def kept(site: Quiet) -> list[int]:
    with site.database.read() as connection:
        return [number for _, number, _ in history.history_of(connection, 1)]


def test_the_oldest_beyond_the_count_go(site: Quiet) -> None:
    site.add_set("S")
    for number in range(5):
        keep(site, number)
        rotate(site.database, site.pool, 1, 3)
    assert kept(site) == [2, 3, 4]
    assert sorted(i.name for i in site.pool.images() if i.kind == "snapshot") == ["h_0002", "h_0003", "h_0004"]


def test_what_is_mapped_or_in_a_set_is_spared_until_it_is_not(site: Quiet) -> None:
    site.add_set("S")
    first, second, third = (keep(site, number) for number in range(3))
    with site.database.transaction() as connection:
        connection.execute(insert(maps).values(image_id=first, initiator="i", access="read-only"))
        connection.execute(insert(maps).values(image_id=third, initiator="i", access="no-access"))
        values = {"uuid": "t", "name": "T", "role": "primary", "state": "ready", "peer_id": 1, "remote_pool": "A"}
        members = [records.MemberRecord(second or 0, "T")]
        records.insert_set(connection, values | {"generation": 1, "created_at": 0.0}, members)
    keep(site, 3)
    rotate(site.database, site.pool, 1, 1)
    assert kept(site) == [0, 1, 3], "no-access is no map"
    with site.database.transaction() as connection:
        connection.execute(maps.delete())
    rotate(site.database, site.pool, 1, 1)
    assert kept(site) == [1, 3]


def test_a_name_in_use_is_left_alone(site: Quiet) -> None:
    of = site.add_set("S")
    site.pool.apply([Snapshot(of.members[0].image_id, "h_0001")])
    assert keep(site, 1) is None
    assert keep(site, 2) is not None
    assert kept(site) == [2]


def test_one_that_is_deleted_at_that_moment_is_no_trouble(site: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add_set("S")
    ids = [keep(site, number) for number in range(3)]
    find = history._needed

    def find_and_delete(connection: object, doomed: object) -> set[int]:
        site.pool.by_id.pop(ids[0] or 0)  # a user was quicker
        return find(connection, doomed)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(history, "_needed", find_and_delete)
    rotate(site.database, site.pool, 1, 1)
    assert sorted(i.name for i in site.pool.images() if i.kind == "snapshot") == ["h_0002"]
