"""Commands about volume groups, and what other commands do with groups and retention priorities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
from sqlalchemy import insert

from offsite.errors import (
    BadParameter,
    InUse,
    MapNotFound,
    NameInUse,
    NotAllowed,
    ObjectNotFound,
    OffsiteError,
    SnapshotNotFound,
    VolumeNotFound,
)
from offsite.management.command_table.reply import Question
from offsite.pools.protocol import Change, ImageInfo, Records
from offsite.replication.records.tables import peers, replication_sets, set_members
from tests.management.management_bench import MONITOR, Bench


@pytest.fixture
def books(bench: Bench) -> Bench:
    """Volumes Taxes and Sales in the group Books, the volume Other and a snapshot Monday of Sales in none."""
    for name in ("Taxes", "Sales", "Other"):
        bench.do(f"create volume pool A size 1MiB {name}")
    bench.do("create snapshots volumes Sales Monday")
    bench.do("create volume-group volumes Taxes,Sales Books")
    return bench


def members(bench: Bench) -> dict[object, object]:
    return {row["group-name"]: row["volume-names"] for row in bench.rows("show volume-groups")}


def put_in_set(bench: Bench, group: str, role: Literal["primary", "secondary"]) -> None:
    """Records of a replication set, Sales DR, that has the group: no second system is needed for its rules."""
    found = bench.system.groups.get(group)
    peer = {
        "id": 1, "name": "Newark", "system_uuid": "n", "system_name": "Newark", "address": "127.0.0.1:9",
        "certificate": b"", "created_at": 0.0,
    }  # fmt: skip
    of = {
        "id": 1, "uuid": "s", "name": "SalesDR", "role": role, "state": "ready", "peer_id": 1, "remote_pool": "A",
        "generation": 1, "created_at": 0.0, "group_id": found.id, "remote_group": group,
    }  # fmt: skip
    with bench.system.database.transaction() as connection:
        connection.execute(insert(peers).values(peer))
        connection.execute(insert(replication_sets).values(of))
        for position, image_id in enumerate(found.image_ids):
            member = {"set_id": 1, "position": position, "image_id": image_id, "remote_name": f"r{position}"}
            connection.execute(insert(set_members).values(member))


# Groups and their members


def test_a_group_is_shown_with_its_volumes_and_they_with_their_group(books: Bench) -> None:
    (row,) = books.rows("show volume-groups Books")
    assert (row["storage-pool-name"], row["member-count"], row["volume-names"]) == ("A", 2, "Sales, Taxes")
    assert [part["volume-name"] for part in row.parts] == ["Sales", "Taxes"]
    assert [(each["volume-name"], each["volume-group"]) for each in books.rows("show volumes")] == [
        ("Monday", "UNGROUPEDVOLUMES"),
        ("Other", "UNGROUPEDVOLUMES"),
        ("Sales", "Books"),
        ("Taxes", "Books"),
    ]
    assert books.names(f"show volume-groups {row['serial-number']}") == ["Books"]


def test_members_come_and_go(books: Bench) -> None:
    books.do("add volume-group-members volumes Other,Monday Books")
    assert members(books) == {"Books": "Monday, Other, Sales, Taxes"}
    books.do("remove volume-group-members volumes Sales,Taxes Books")
    assert members(books) == {"Books": "Monday, Other"}
    books.do("create volume-group Rest")
    books.do("set volume-group name Ledgers Books")
    assert members(books) == {"Ledgers": "Monday, Other", "Rest": ""}


def test_a_volume_that_is_deleted_leaves_its_group(books: Bench) -> None:
    books.do("delete volumes Sales")
    assert members(books) == {"Books": "Taxes"}


def test_a_group_that_is_deleted_leaves_its_volumes_unless_told_otherwise(books: Bench) -> None:
    ids = [books.system.image(name).image.id for name in ("Sales", "Taxes")]
    books.do("delete volume-groups Books")
    assert members(books) == {}
    assert books.names("show volumes type base") == ["Other", "Sales", "Taxes"]
    books.do("create volume-group volumes Taxes,Sales Books")
    books.do("create volume-group Empty")
    books.do("delete volume-groups delete-volumes yes Books,Empty")
    assert members(books) == {}
    assert books.names("show volumes") == ["Monday", "Other"]
    assert books.target.disconnected == ids


def test_all_stands_for_every_group(books: Bench) -> None:
    books.do("create volume-group volumes Other Rest")
    books.do("delete volume-groups delete-volumes no all")
    assert members(books) == {}
    assert books.names("show volumes type base") == ["Other", "Sales", "Taxes"]
    books.refused("delete volume-groups all", ObjectNotFound, "there are no volume groups")


def test_a_group_that_is_called_all_is_that_group_alone(books: Bench) -> None:
    books.do("create volume-group volumes Other all")
    books.do("delete volume-groups all")
    assert members(books) == {"Books": "Sales, Taxes"}


def test_who_deletes_is_asked_and_told_what_is_lost(books: Bench) -> None:
    for line, words, absent in (
        ("delete volume-groups Books", ["Books", "volumes are kept"], "lost"),
        ("delete volume-groups delete-volumes yes Books", ["Books", "Sales (0 B written)", "Taxes", "lost"], "kept"),
    ):
        question = books.answer(line, asks=True)
        assert isinstance(question, Question)
        assert all(word in question.text for word in words)
        assert absent not in question.text
    assert members(books) == {"Books": "Sales, Taxes"}
    books.refused("delete volume-groups prompt no Books", NotAllowed, "answered with no")


def test_a_new_volume_joins_a_group_which_is_made_if_there_is_none(books: Bench) -> None:
    (row,) = books.rows("create volume pool A size 1MiB volume-group Books New")
    assert row["volume-group"] == row["volume-group-name"] == "Books"
    books.do("create volume pool A size 1MiB volume-group Fresh First access ro")
    assert members(books) == {"Books": "New, Sales, Taxes", "Fresh": "First"}


REFUSED: list[tuple[str, type[OffsiteError], list[str], int]] = [
    ("create volume-group Books", NameInUse, ["'Books' exists already"], -10186),
    ("create volume-group Sales", NameInUse, ["'Sales' is in use by a volume or snapshot"], -10186),
    ("create volume-group Monday", NameInUse, ["'Monday' is in use by a volume or snapshot"], -10186),
    (f"create volume-group {'x' * 33}", BadParameter, ["33 bytes", "1 to 32"], -10058),
    ('create volume-group "a,b"', BadParameter, ["'a,b'", "','"], -10058),
    ("create volume-group volumes Nope New", VolumeNotFound, ["'Nope'"], -10075),
    ("create volume-group volumes Other,Sales New", InUse, ["Sales is in volume group Books already"], -20080),
    ("create volume-group volumes Other,Elsewhere New", BadParameter, ["pool A", "pool B", "of one pool"], -10058),
    (f"create volume-group volumes {','.join(f'v{n}' for n in range(17))} New", BadParameter, ["17", "16"], -10058),
    ("set volume-group name New Nope", ObjectNotFound, ["'Nope'"], -20081),
    ("set volume-group name Sales Books", NameInUse, ["'Sales'"], -10186),
    ("set volume-group name Rest Books", NameInUse, ["'Rest'"], -10186),
    (f"set volume-group name {'x' * 33} Books", BadParameter, ["33 bytes"], -10058),
    ("add volume-group-members volumes Other Nope", ObjectNotFound, ["'Nope'"], -20081),
    ("add volume-group-members volumes Nope Books", VolumeNotFound, ["'Nope'"], -10075),
    ("add volume-group-members volumes Other,Sales Books", InUse, ["Sales is in volume group Books"], -20080),
    ("add volume-group-members volumes Elsewhere Books", BadParameter, ["Elsewhere in pool B"], -10058),
    ("add volume-group-members volumes v0,v1 Full", BadParameter, ["Full", "18 members", "at most 16"], -10058),
    ("remove volume-group-members volumes Sales,Other Books", VolumeNotFound, ["Other is not in"], -10075),
    ("remove volume-group-members volumes Sales Nope", ObjectNotFound, ["'Nope'"], -20081),
    ("delete volume-groups Books,Nope", ObjectNotFound, ["'Nope'"], -20081),
    ("show volume-groups Nope", ObjectNotFound, ["'Nope'"], -20081),
    ("create volume pool A size 1MiB Books", NameInUse, ["'Books' is in use by a volume group"], -10186),
    ("copy volume name Books Sales", NameInUse, ["'Books' is in use by a volume group"], -10186),
    ("set volume name Books Sales", NameInUse, ["'Books' is in use by a volume group"], -10186),
    ("create snapshots volumes Sales Books", NameInUse, ["'Books' is in use by a volume group"], -10186),
    ("create volume pool A size 1MiB volume-group New New", NameInUse, ["'New' is in use by a volume"], -10186),
    ("create volume pool A size 1MiB volume-group Sales New", NameInUse, ["'Sales' is in use by a volume"], -10186),
    ("create volume pool A size 1MiB volume-group Full New", BadParameter, ["Full", "17 members"], -10058),
    ("create volume pool B size 1MiB volume-group Books New", BadParameter, ["pool A", "pool B"], -10058),
    ("create volume pool A size 1MiB volume-group a<b New", BadParameter, ["'<'"], -10058),
    ("create snapshots volumes Books a,b,c", BadParameter, ["2 volumes and 3 snapshot names"], -10058),
    ("create snapshots volumes Books,Sales a", BadParameter, ["Sales is named twice"], -10058),
    ("create snapshots volumes Full,Books a", BadParameter, ["18 volumes", "at most 16"], -10058),
    ("create snapshots volumes Other,Monday a", BadParameter, ["one name for each volume is required"], -10058),
    ("create snapshots volumes Books,Elsewhere a", BadParameter, ["one instant", "pool B"], -10058),
    (f"create snapshots volumes Books {'x' * 31}", BadParameter, ["33 bytes"], -10058),
    ("create snapshots volumes Rest a", VolumeNotFound, ["Rest has no members"], -10075),
    ("create snapshots volumes Sales snapshot-retention-priority now a", BadParameter, ["'now'", "low"], -10058),
    ("set volume Sales", BadParameter, ["no change specified"], -10058),
    ("set volume snapshot-retention-priority low Sales", SnapshotNotFound, ["'Sales' is a volume"], -10050),
    ("set volume snapshot-retention-priority low name Books Monday", NameInUse, ["'Books'"], -10186),
    ("map volume Nope.*", VolumeNotFound, ["'Nope.*'", "no volume or volume group"], -10075),
    ("map volume Sales,Books", BadParameter, ["Sales is named twice"], -10058),
    ("map volume lun 1023 Books", BadParameter, ["1023"], -10058),
    ("unmap volume Books", MapNotFound, ["Sales is not mapped"], -10074),
]  # fmt: skip


@pytest.fixture
def crowded(books: Bench) -> Bench:
    """Books, and: Elsewhere in a pool B, v0 and v1 in no group, Full with all of 16 members, and Rest with none."""
    books.do("create pool size 16MiB B")
    books.do("create volume pool B size 1MiB Elsewhere")
    for number in range(2):
        books.do(f"create volume pool A size 64KiB v{number}")
    for number in range(16):
        books.do(f"create volume pool A size 64KiB volume-group Full f{number}")
    books.do("create volume-group Rest")
    return books


def test_each_refusal_has_its_return_code_names_the_rule_and_changes_nothing(crowded: Bench) -> None:
    for line, error, words, code in REFUSED:
        assert crowded.refused(line, error, *words).code == code, line


def test_long_work_learns_before_it_begins_that_a_group_has_the_name(books: Bench) -> None:
    """The pool would refuse it too, but only at the end of an import or a copy."""
    books.system.check_new_name("Fresh")
    with pytest.raises(NameInUse, match="'Books' is in use by a volume group"):
        books.system.check_new_name("Books")


def test_who_monitors_may_look_at_groups_and_change_none(books: Bench) -> None:
    assert len(books.do("show volume-groups", MONITOR).rows) == 1
    for line in ("create volume-group X", "delete volume-groups Books", "set volume-group name X Books"):
        books.refused(line, NotAllowed, "role manage", user=MONITOR)


def test_what_is_done_with_groups_is_told_as_events(books: Bench) -> None:
    for line in (
        "add volume-group-members volumes Other Books",
        "remove volume-group-members volumes Other Books",
        "set volume-group name Ledgers Books",
        "delete volume-groups Ledgers",
    ):
        books.do(line)
    assert [row["message"] for row in books.rows("show events last 5")] == [
        "Volume group Ledgers was deleted.",
        "Volume group Books was renamed to Ledgers.",
        "Volume group Books: removed Other.",
        "Volume group Books: added Other.",
        "Volume group Books was created with Taxes, Sales.",
    ]


# Groups in replication sets


@pytest.mark.parametrize("role", ["primary", "secondary"])
@pytest.mark.parametrize(
    "line",
    [
        "add volume-group-members volumes Other Books",
        "remove volume-group-members volumes Sales Books",
        "delete volume-groups Books",
        "delete volume-groups delete-volumes yes Books",
        "delete volume-groups all",
        "create volume pool A size 1MiB volume-group Books New",
    ],
)
def test_the_members_of_a_group_in_a_set_are_fixed(
    books: Bench, role: Literal["primary", "secondary"], line: str
) -> None:
    put_in_set(books, "Books", role)
    error = books.refused(line, InUse, "Books", f"{role} volume group of replication set SalesDR", "delete the set")
    assert error.code == -20080


def test_a_primary_group_may_get_another_name(books: Bench) -> None:
    put_in_set(books, "Books", "primary")
    books.do("set volume-group name Ledgers Books")
    assert [each.name for each in books.system.groups.all()] == ["Ledgers"]


def test_a_secondary_group_keeps_its_name(books: Bench) -> None:
    put_in_set(books, "Books", "secondary")
    error = books.refused("set volume-group name Ledgers Books", NotAllowed, "secondary", "SalesDR", "renamed")
    assert error.code == -20082


def test_a_secondary_group_is_not_mapped(books: Bench) -> None:
    put_in_set(books, "Books", "secondary")
    books.refused("map volume Books", NotAllowed, "Sales", "secondary volume of replication set SalesDR", "mapped")


@pytest.mark.parametrize("line", ["delete volumes Sales", "delete volume-groups delete-volumes yes Books"])
def test_what_comes_to_be_in_a_set_at_that_moment_is_not_deleted(
    books: Bench, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """Between the look at what needs it and the deletion: the reason is told, and all is as it was."""
    pool = books.system.pools["A"]
    apply = pool.apply

    def put_and_apply(changes: Sequence[Change], write: Records | None = None) -> list[ImageInfo]:
        put_in_set(books, "Books", "primary")
        return apply(changes, write)

    monkeypatch.setattr(pool, "apply", put_and_apply)
    with pytest.raises(InUse, match="cannot be deleted: it is the primary volume of replication set SalesDR; delete"):
        books.do(line)
    assert members(books) == {"Books": "Sales, Taxes"}
    assert {"Sales", "Taxes"} <= set(books.names("show volumes"))


def test_a_volume_whose_group_is_in_a_set_is_not_deleted(books: Bench) -> None:
    put_in_set(books, "Books", "primary")
    books.refused("delete volumes Sales", InUse, "Sales cannot be deleted", "SalesDR")


def test_a_group_is_shown_with_its_set(books: Bench) -> None:
    put_in_set(books, "Books", "primary")
    (row,) = books.rows("show volume-groups")
    assert (row["cs-replication-role"], row["replication-set"]) == ("primary", "SalesDR")


# Other commands that take groups


def test_snapshots_of_a_group_are_of_one_instant_and_named_in_the_order_of_its_volumes(books: Bench) -> None:
    books.write("Sales", 0, b"sales")
    books.write("Taxes", 0, b"taxes")
    rows = books.rows("create snapshots volumes Books,Other s,t,o")
    assert [(row["name"], row["master-volume-name"]) for row in rows] == [
        ("s", "Sales"),
        ("t", "Taxes"),
        ("o", "Other"),
    ]
    assert len({row["creation-date-time"] for row in rows}) == 1
    assert (books.read("s", 0, 5), books.read("t", 0, 5)) == (b"sales", b"taxes")


def test_one_name_does_for_all_snapshots_of_a_group(books: Bench) -> None:
    rows = books.rows("create snapshots volumes Books Tuesday")
    assert [(row["name"], row["master-volume-name"]) for row in rows] == [
        ("Tuesday-1", "Sales"),
        ("Tuesday-2", "Taxes"),
    ]
    books.do("create volume-group volumes Other Alone")
    assert books.names("create snapshots volumes Alone Tuesday") == ["Tuesday"], "a single member takes it as it is"


@pytest.mark.parametrize("group", ["Books", "Books.*"])
def test_a_group_is_mapped_with_rising_luns_and_unmapped(books: Bench, group: str) -> None:
    books.do(f"map volume initiator tls:web1 lun 5 access ro {group},Other")
    maps = [(view["volume-name"], view.parts[0]["lun"]) for view in books.rows("show maps")]
    assert sorted(maps) == [("Other", "7"), ("Sales", "5"), ("Taxes", "6")]
    assert sorted(map(str, books.names(f"show maps {group}"))) == ["Sales", "Taxes"]
    books.do(f"unmap volume initiator tls:web1 {group}")
    assert books.names("show maps") == ["Other"]


# Retention priorities


def priorities(bench: Bench) -> dict[object, object]:
    return {row["name"]: row["retention-priority"] for row in bench.rows("show snapshots")}


def test_a_snapshot_has_a_retention_priority(books: Bench) -> None:
    books.do("create snapshots volumes Books snapshot-retention-priority medium s,t")
    assert priorities(books) == {"Monday": "never-delete", "s": "medium", "t": "medium"}
    books.do("set volume snapshot-retention-priority high Monday")
    reply = books.do("set volume snapshot-retention-priority never-delete name u t")
    assert (
        reply.message == "Volume t was renamed to u. The retention priority of snapshot u was changed to never-delete."
    )
    assert priorities(books) == {"Monday": "high", "s": "medium", "u": "never-delete"}
