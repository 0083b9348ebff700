"""Commands about volumes and snapshots: what they do, and what they refuse with nothing changed."""

from __future__ import annotations

import os

import pytest

from offsite.errors import (
    BadParameter,
    InUse,
    NameInUse,
    NotAllowed,
    ObjectNotFound,
    OffsiteError,
    SnapshotNotFound,
    VolumeNotFound,
)
from offsite.management.command_table.parser import UsageError
from offsite.management.command_table.reply import Question
from offsite.units import MIB, TIB
from tests.management.management_bench import MONITOR, Bench

REFUSED: list[tuple[str, type[OffsiteError], list[str]]] = [
    (f"create volume pool A size 1MiB {'x' * 33}", BadParameter, ["33 bytes", "1 to 32"]),
    ('create volume pool A size 1MiB "a,b"', BadParameter, ["'a,b'", "','"]),
    ("create volume pool A size 1MiB a<b", BadParameter, ["'a<b'", "'<'"]),
    ("create volume pool A size 1MiB a\\b", BadParameter, ["are not allowed"]),
    ('create volume pool A size 1MiB " a"', BadParameter, ["begins or ends with a space"]),
    ("create volume pool A size 16383B X", BadParameter, ["16383", "16 KiB", "128 TiB"]),
    ("create volume pool A size 0 X", BadParameter, ["0 B"]),
    (f"create volume pool A size {128 * TIB + 1}B X", BadParameter, [str(128 * TIB + 1), "128 TiB"]),
    ("create volume pool A size lots X", BadParameter, ["size", "'lots'"]),
    ("create volume pool B size 1MiB X", ObjectNotFound, ["'B'", "pools of this system: A"]),
    ("create volume pool A size 1MiB Sales", NameInUse, ["'Sales'"]),
    ("create volume pool A size 1MiB Monday", NameInUse, ["'Monday'"]),
    ("create volume pool A size 1MiB lun 1024 X", BadParameter, ["lun", "'1024'", "0 to 1023"]),
    ("create volume pool A size 1MiB access all X", BadParameter, ["access", "'all'", "read-write"]),
    ("create volume pool A size 1MiB initiator nobody X", ObjectNotFound, ["'nobody'", "show initiators"]),
    ("create volume pool A size 1MiB lun 7 initiator tls:web1 X", InUse, ["LUN 7", "tls:web1"]),
    ("create volume pool A X", UsageError, ["size is missing"]),
    ("delete volumes Nope", VolumeNotFound, ["'Nope'"]),
    ("delete volumes Sales,Nope", VolumeNotFound, ["'Nope'"]),
    ("delete volumes Monday", VolumeNotFound, ["'Monday' is a snapshot"]),
    ("delete volumes Sales prompt no", NotAllowed, ["answered with no"]),
    ("expand volume size 128TiB Sales", BadParameter, ["128 TiB"]),
    ("expand volume size 0 Sales", BadParameter, ["0"]),
    ("expand volume size 1MiB Nope", VolumeNotFound, ["'Nope'"]),
    ("set volume name Monday Sales", NameInUse, ["'Monday'"]),
    ("set volume name a,b Sales", BadParameter, ["','"]),
    ("set volume name X Nope", VolumeNotFound, ["'Nope'"]),
    ("copy volume name Monday Sales", NameInUse, ["'Monday'"]),
    ("copy volume name X Nope", VolumeNotFound, ["'Nope'"]),
    ("copy volume destination-pool B name X Sales", ObjectNotFound, ["'B'"]),
    ("rollback volume snapshot Sales Sales", SnapshotNotFound, ["'Sales' is a volume"]),
    ("rollback volume snapshot Nope Sales", SnapshotNotFound, ["'Nope'"]),
    ("rollback volume snapshot Monday Other", NotAllowed, ["'Monday' is not a snapshot of volume 'Other'"]),
    ("rollback volume snapshot Monday Monday", NotAllowed, ["is not a snapshot of volume 'Monday'"]),
    ("create snapshots volumes Sales a,b", BadParameter, ["1 volumes and 2 snapshot names"]),
    ("create snapshots volumes Sales,Other a,Monday", NameInUse, ["'Monday'"]),
    ("create snapshots volumes Sales,Nope a,b", VolumeNotFound, ["'Nope'"]),
    ("create snapshots volumes Sales,Sales a,b", BadParameter, ["'Sales' is listed twice"]),
    ("create snapshots volumes Sales,Other a,a", BadParameter, ["'a' is listed twice"]),
    ("create snapshots volumes Sales x<", BadParameter, ["'<'"]),
    ("delete snapshot Sales", SnapshotNotFound, ["'Sales' is a volume"]),
    ("delete snapshot Nope", SnapshotNotFound, ["'Nope'"]),
    ("reset snapshot Sales", SnapshotNotFound, ["'Sales' is a volume"]),
    ("show volumes Nope", VolumeNotFound, ["'Nope'"]),
    ("show snapshots Sales", SnapshotNotFound, ["'Sales' is a volume"]),
]  # fmt: skip


def test_each_refusal_names_the_value_and_the_rule_and_changes_nothing(bench: Bench) -> None:
    bench.do("create volume pool A size 8MiB Sales")
    bench.do("create volume pool A size 8MiB Other")
    bench.do("create snapshots volumes Sales Monday")
    bench.do("map volume initiator tls:web1 lun 7 Other")
    for line, error, words in REFUSED:
        bench.refused(line, error, *words)


def test_who_monitors_may_look_and_change_nothing(bench: Bench) -> None:
    bench.do("create volume pool A size 8MiB Sales")
    assert len(bench.do("show volumes", MONITOR).rows) == 1
    for line in ("create volume pool A size 8MiB X", "delete volumes Sales", "set volume name X Sales"):
        bench.refused(line, NotAllowed, "role manage", "user otto", user=MONITOR)


def test_a_size_is_rounded_up_to_four_kibibytes(bench: Bench) -> None:
    (row,) = bench.rows(f"create volume pool A size {MIB + 1}B Sales")
    assert row["size"] == MIB + 4096


def test_a_volume_is_found_by_its_serial_number_too(bench: Bench) -> None:
    (row,) = bench.rows("create volume pool A size 1MiB Sales")
    assert bench.names(f"show volumes {row['serial-number']}") == ["Sales"]


def test_create_maps_too_when_asked_to(bench: Bench) -> None:
    bench.do("create volume pool A size 1MiB access ro initiator tls:web1 lun 3 Sales")
    (view,) = bench.rows("show maps Sales")
    (mapping,) = view.parts
    assert mapping.values == ("tls:web1", "", "read-only", 1, "3")


def test_expand_adds_to_the_size(bench: Bench) -> None:
    bench.do("create volume pool A size 8MiB Sales")
    bench.do("expand volume size 4MiB Sales")
    (row,) = bench.rows("show volumes Sales")
    assert row["size"] == 12 * MIB
    bench.do("expand volume size max Sales")
    (row,) = bench.rows("show volumes Sales")
    (pool,) = bench.rows("show pools A")
    assert row["size"] == (12 * MIB + int(str(pool["total-avail"]))) // 4096 * 4096


def test_a_pool_that_does_not_overcommit_refuses_what_it_cannot_hold(bench: Bench) -> None:
    bench.do("set pool overcommit disabled A")
    bench.refused("create volume pool A size 65MiB Sales", BadParameter, "65 MiB", "does not overcommit")
    bench.do("create volume pool A size 60MiB Sales")
    bench.refused("expand volume size 8MiB Sales", BadParameter, "does not overcommit")


def test_delete_takes_several_and_disconnects_hosts(bench: Bench) -> None:
    bench.do("create volume pool A size 8MiB Sales")
    bench.do("create volume pool A size 8MiB Other")
    bench.do("create snapshots volumes Sales Monday")
    ids = [bench.system.image(name).image.id for name in ("Sales", "Other")]
    bench.do("map volume Sales")
    bench.do("delete volumes Sales,Other")
    assert bench.names("show volumes") == ["Monday"], "snapshots of a deleted volume stay"
    assert bench.target.disconnected == ids
    assert bench.rows("show maps") == ()
    bench.refused("reset snapshot Monday", NotAllowed, "deleted")
    bench.do("delete snapshot Monday")


def test_a_question_is_asked_only_of_who_can_answer_it(bench: Bench) -> None:
    bench.do("create volume pool A size 8MiB Sales")
    question = bench.answer("delete volumes Sales", asks=True)
    assert isinstance(question, Question)
    assert "Delete Sales" in question.text
    assert not question.secret
    assert bench.names("show volumes") == ["Sales"]
    with pytest.raises(VolumeNotFound):
        bench.answer("delete volumes Nope", asks=True)
    bench.answer("delete volumes prompt yes Sales", asks=True)
    assert bench.names("show volumes") == []


def test_snapshots_of_several_volumes_are_of_one_instant_and_one_pool(bench: Bench) -> None:
    bench.do("create pool size 16MiB B")
    for pool, name in (("A", "a"), ("A", "b"), ("B", "c")):
        bench.do(f"create volume pool {pool} size 8MiB {name}")
    bench.refused("create snapshots volumes a,c s,t", BadParameter, "pool A", "pool B", "one instant")
    rows = bench.rows("create snapshots volumes a,b s,t")
    assert rows[0]["creation-date-time"] == rows[1]["creation-date-time"]
    assert [row["master-volume-name"] for row in rows] == ["a", "b"]
    assert bench.names("show snapshots volume b") == ["t"]
    assert bench.names("show snapshots pool B") == []
    assert bench.names("show volumes type base pool A") == ["a", "b"]


def test_rollback_brings_back_what_was_and_keeps_the_size_that_hosts_see(bench: Bench) -> None:
    bench.do("create volume pool A size 1MiB Sales")
    before = os.urandom(MIB)
    bench.write("Sales", 0, before)
    bench.do("create snapshots volumes Sales Monday")
    bench.do("create snapshots volumes Monday Tuesday")
    bench.do("expand volume size 1MiB Sales")
    bench.write("Sales", 0, os.urandom(2 * MIB))
    bench.do("rollback volume snapshot Tuesday prompt yes Sales")
    assert bench.read("Sales", 0, 2 * MIB) == before + bytes(MIB)
    bench.do("rollback volume snapshot Monday Sales")
    assert bench.read("Sales", 0, 2 * MIB) == before + bytes(MIB)


def test_reset_takes_a_snapshot_anew_under_its_name_and_maps(bench: Bench) -> None:
    bench.do("create volume pool A size 1MiB Sales")
    bench.do("create snapshots volumes Sales Monday")
    bench.do("map volume Monday")
    now = os.urandom(MIB)
    bench.write("Sales", 0, now)
    bench.do("reset snapshot Monday")
    assert bench.read("Monday", 0, MIB) == now
    assert bench.names("show maps") == ["Monday"]


@pytest.mark.parametrize("line", ["rollback volume snapshot Monday Sales", "reset snapshot Monday"])
def test_what_a_host_has_open_is_not_replaced_under_it(bench: Bench, line: str) -> None:
    bench.do("create volume pool A size 1MiB Sales")
    bench.do("create snapshots volumes Sales Monday")
    ids = {each.image.name: each.image.id for each in bench.system.images()}
    bench.target.open = [("tls:web1", ids["Sales"]), ("tls:web2", ids["Monday"])]
    bench.refused(line, InUse, "is in use by initiator tls:web")


def test_a_snapshot_is_renamed_like_a_volume(bench: Bench) -> None:
    bench.do("create volume pool A size 1MiB Sales")
    bench.do("create snapshots volumes Sales Monday")
    bench.do("set volume name Tuesday Monday")
    assert bench.names("show snapshots") == ["Tuesday"]


def test_what_is_done_is_told_as_events(bench: Bench) -> None:
    for line in (
        "create volume pool A size 8MiB Sales",
        "create snapshots volumes Sales Monday",
        "delete snapshot Monday",
    ):
        bench.do(line)
    messages = [str(row["message"]) for row in bench.rows("show events last 3")]
    assert messages == [
        "Snapshot Monday was deleted from pool A.",
        "Snapshots Monday of Sales were taken.",
        "Volume Sales of 8 MiB was created in pool A.",
    ]
