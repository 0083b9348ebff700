"""Commands about tasks and schedules, and what tasks do, on real systems."""

from __future__ import annotations

import time

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
from offsite.events import (
    SCHEDULE_CHANGED,
    SCHEDULE_CREATED,
    SCHEDULE_DELETED,
    TASK_CHANGED,
    TASK_CREATED,
    TASK_DELETED,
    TASK_FAILED,
    TASK_STARTED,
)
from offsite.management.command_table.reply import Question
from offsite.management.schedules import schedules as schedules_module
from offsite.management.schedules import tasks as tasks_module
from offsite.management.schedules.records import TaskRecord
from offsite.management.task_runner import task_work
from tests.management.management_bench import MONITOR, PASSWORD, Bench
from tests.management.schedules.scheduling import Office, utc

HOURLY = "start 2027-01-04 11:00 every 1 hours"


def volume(office: Office, name: str = "Sales") -> None:
    office.bench.do(f"create volume pool A size 1MiB {name}")


def schedule(office: Office, task: str, name: str = "Hourly", specification: str = HOURLY) -> None:
    office.bench.do(f'create schedule schedule-specification "{specification}" task-name {task} {name}')


def pair(london: Office, newark: Office) -> None:
    address = newark.bench.system.addresses["peer"]
    london.bench.do(
        f"create peer-connection remote-port-address {address} remote-username manage Newark",
        secrets={"remote-password": PASSWORD},
    )


def replicated(offices: tuple[Office, Office]) -> tuple[Office, Office]:
    """London's volume Sales is in set SalesDR."""
    london, newark = offices
    pair(london, newark)
    volume(london)
    london.bench.do("create replication-set peer-connection Newark primary-volume Sales SalesDR")
    return london, newark


def question(bench: Bench, line: str) -> str:
    asked = bench.answer(line, asks=True)
    assert isinstance(asked, Question)
    return asked.text


def messages(office: Office, code: int) -> list[str]:
    return [message for _, message in office.told(code)]


def wait_for_run(office: Office, count: int) -> None:
    deadline = time.monotonic() + 30
    while [run["state"] for run in office.bench.rows("show replication-runs SalesDR")].count("success") < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- taking snapshots ------------------------------------------------------------------------------------------


def test_a_task_takes_snapshots_and_lets_the_oldest_go(office: Office) -> None:
    volume(office)
    (row,) = office.bench.do(
        "create task type takesnapshot source-volume Sales snapshot-prefix Sales retention-count 2 "
        "snapshot-retention-priority low Take"
    ).rows
    expected = ("Take", "TakeSnapshot", "Sales", "Ready", "Idle", 2, "low")
    names = ("name", "task-type", "object", "status", "state", "retention-count", "snapshot-retention-priority")
    assert tuple(row[each] for each in names) == expected
    schedule(office, "Take")
    office.bench.write("Sales", 0, b"as of eleven")
    office.run_until(utc(2027, 1, 4, 11))
    office.bench.write("Sales", 0, b"as of twelve")
    office.run_until(utc(2027, 1, 4, 12, 30))
    assert office.bench.names("show snapshots") == ["Sales_S0001", "Sales_S0002"]
    assert office.bench.read("Sales_S0002", 0, 12) == b"as of twelve"
    assert office.bench.rows("show snapshots")[0]["retention-priority"] == "low"
    office.run_until(utc(2027, 1, 4, 14, 30))
    assert office.bench.names("show snapshots") == ["Sales_S0003", "Sales_S0004"]
    assert messages(office, TASK_STARTED.code)[-1] == (
        "Task Take was started by schedule Hourly: snapshot Sales_S0004 of Sales was taken."
    )
    office.bench.do("set task retention-count 1 snapshot-prefix Other Take")
    office.run_until(utc(2027, 1, 4, 15, 30))
    assert office.bench.names("show snapshots") == ["Other_S0005"]


def test_snapshots_that_something_needs_are_spared_and_let_go_later(offices: tuple[Office, Office]) -> None:
    london, newark = offices
    pair(london, newark)
    volume(london)
    bench = london.bench
    bench.do("create task type TakeSnapshot source-volume Sales snapshot-prefix s retention-count 1 Take")
    schedule(london, "Take")
    london.run_until(utc(2027, 1, 4, 11, 30))
    bench.do("map volume s_S0001")
    london.run_until(utc(2027, 1, 4, 12, 30))
    bench.do("create volume-group volumes s_S0002 Group")
    london.run_until(utc(2027, 1, 4, 13, 30))
    bench.do("create task type ResetSnapshot snapshot-volume s_S0003 Reset")
    london.run_until(utc(2027, 1, 4, 14, 30))
    bench.do("create replication-set peer-connection Newark primary-volume s_S0004 DR")
    london.run_until(utc(2027, 1, 4, 15, 30))
    needed = ["s_S0001", "s_S0002", "s_S0003", "s_S0004"]
    assert bench.names("show snapshots") == [*needed, "s_S0005"]
    kept = [message.split(": ")[1] for message in (told for _, told in london.told(660))]
    assert kept == [
        "s_S0001 cannot be deleted, because it is mapped to all initiators.",
        "s_S0002 cannot be deleted, because it is in volume group Group.",
        "s_S0003 cannot be deleted, because task Reset uses it.",
        "s_S0004 cannot be deleted, because it is the primary volume of replication set DR.",
    ], "each once"
    bench.do("unmap volume s_S0001")
    bench.do("delete volume-group Group")
    bench.do("delete task Reset")
    bench.do("delete replication-set DR")
    london.run_until(utc(2027, 1, 4, 16, 30))
    assert bench.names("show snapshots") == ["s_S0006"]
    assert london.told(TASK_FAILED.code) == []


def test_a_snapshot_that_was_deleted_by_hand_is_not_missed(office: Office) -> None:
    volume(office)
    office.bench.do("create task type TakeSnapshot source-volume Sales snapshot-prefix s retention-count 2 Take")
    schedule(office, "Take")
    office.run_until(utc(2027, 1, 4, 12, 30))
    office.bench.do("delete snapshot s_S0002")
    office.run_until(utc(2027, 1, 4, 13, 30))
    assert office.bench.names("show snapshots") == ["s_S0001", "s_S0003"]


def test_a_name_in_use_is_skipped_and_numbers_begin_again(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_work, "NUMBERS", 4)
    volume(office)
    volume(office, "s_S0001")
    office.bench.do("create volume-group s_S0003")
    office.bench.do("create task type TakeSnapshot source-volume Sales snapshot-prefix s retention-count 9 Take")
    schedule(office, "Take")
    office.run_until(utc(2027, 1, 4, 12, 30))
    assert office.bench.names("show snapshots") == ["s_S0002", "s_S0004"]
    office.run_until(utc(2027, 1, 4, 13, 30))
    assert "all names from s_S0001 to _S4 are in use" in messages(office, TASK_FAILED.code)[0]
    office.bench.do("delete snapshot s_S0002")
    office.run_until(utc(2027, 1, 4, 14, 30))
    assert office.bench.names("show snapshots") == ["s_S0002", "s_S0004"]


def test_the_longest_prefix_makes_names_that_are_allowed(office: Office) -> None:
    volume(office)
    office.bench.do(
        f"create task type TakeSnapshot source-volume Sales snapshot-prefix {'x' * 26} retention-count 1 Take"
    )
    schedule(office, "Take")
    office.run_until(utc(2027, 1, 4, 11))
    assert office.bench.names("show snapshots") == ["x" * 26 + "_S0001"]


# -- resetting snapshots ---------------------------------------------------------------------------------------


def test_a_task_resets_a_snapshot(office: Office) -> None:
    volume(office)
    office.bench.do("create snapshots volumes Sales Test")
    (row,) = office.bench.do("create task type ResetSnapshot snapshot-volume Test Reset").rows
    assert (row["object"], row["snapshot-volume"]) == ("Test", "Test")
    schedule(office, "Reset")
    office.bench.write("Sales", 0, b"new")
    office.run_until(utc(2027, 1, 4, 11))
    assert office.bench.read("Test", 0, 3) == b"new"
    assert messages(office, TASK_STARTED.code) == [
        "Task Reset was started by schedule Hourly: snapshot Test was reset to the current content of volume Sales."
    ]


# -- replicating -----------------------------------------------------------------------------------------------


def test_a_task_replicates_a_set(offices: tuple[Office, Office]) -> None:
    london, newark = replicated(offices)
    (row,) = london.bench.do("create task type Replicate replication-set SalesDR Nightly").rows
    assert (row["object"], row["replication-set"], row["last-snapshot"]) == ("SalesDR", "SalesDR", False)
    schedule(london, "Nightly")
    (of,) = london.bench.rows("show replication-sets")
    assert (of["next-run"], of["schedule-names"]) == (utc(2027, 1, 4, 11), "Hourly")
    london.bench.write("Sales", 0, b"sold")
    london.run_until(utc(2027, 1, 4, 11))
    wait_for_run(london, 1)
    assert newark.bench.read("Sales", 0, 4) == b"sold"
    assert messages(london, TASK_STARTED.code) == [
        "Task Nightly was started by schedule Hourly: a run of replication set SalesDR was started."
    ]
    assert london.bench.rows("show replication-sets")[0]["next-run"] == utc(2027, 1, 4, 12)


def test_a_request_that_was_on_record_before_a_crash_is_not_made_twice(
    offices: tuple[Office, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object, **__: object) -> None:
        raise Crash

    london, _ = replicated(offices)
    london.bench.do("create task type Replicate replication-set SalesDR Nightly")
    schedule(london, "Nightly")
    london.clock.at = utc(2027, 1, 4, 11)
    with monkeypatch.context() as patch:
        patch.setattr("offsite.management.schedules.records.update_task", crash)
        with pytest.raises(Crash):
            london.scheduler.step()
    wait_for_run(london, 1)
    london.restarted()
    london.run_until(utc(2027, 1, 4, 11, 30))
    assert len(london.bench.rows("show replication-runs")) == 1
    london.run_until(utc(2027, 1, 4, 12, 30))
    wait_for_run(london, 2)


def test_a_run_that_a_crash_cut_before_its_snapshot_is_made_up_for(
    offices: tuple[Office, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is on record, but has come to nothing: without another start the copy would be a night older."""

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    london, _ = replicated(offices)
    hooks = london.bench.system.state_directory / "hooks"
    hooks.mkdir()
    (hooks / "freeze").write_text("#!/bin/sh\n")
    (hooks / "freeze").chmod(0o700)
    london.bench.do("set replication-set before-snapshot freeze SalesDR")
    london.bench.do("create task type Replicate replication-set SalesDR Nightly")
    schedule(london, "Nightly")
    london.clock.at = utc(2027, 1, 4, 11)
    with monkeypatch.context() as patch:
        patch.setattr("offsite.replication.runs.run_points.RunPoints.take", crash)
        with pytest.raises(Crash):
            london.scheduler.step()
    assert [row["state"] for row in london.bench.rows("show replication-runs")] == ["preparing"]
    london.bench.system.replication.recover()
    london.restarted()
    london.run_until(utc(2027, 1, 4, 11, 30))
    wait_for_run(london, 1)
    assert [row["state"] for row in london.bench.rows("show replication-runs")] == ["success", "failed"]


def test_during_a_run_the_queue_policy_decides(offices: tuple[Office, Office]) -> None:
    london, newark = replicated(offices)
    london.bench.do("create task type Replicate replication-set SalesDR Nightly")
    schedule(london, "Nightly")
    newark.bench.stop_replication()
    london.run_until(utc(2027, 1, 4, 12, 30))
    london.bench.do("clear replication-queue SalesDR")
    london.bench.do("set replication-set queue-policy discard SalesDR")
    london.run_until(utc(2027, 1, 4, 13, 30))
    ends = ("was started.", "was queued; another run is in progress.", "dropped the request; a run is in progress.")
    told = messages(london, TASK_STARTED.code)
    assert len(told) == 3
    assert all(message.endswith(end) for message, end in zip(told, ends, strict=True)), told


def test_the_last_snapshot_is_sent_and_has_to_be_there(offices: tuple[Office, Office]) -> None:
    london, newark = replicated(offices)
    london.bench.do("create task type Replicate replication-set SalesDR last-snapshot Nightly")
    assert london.bench.rows("show tasks")[0]["last-snapshot"] is True
    schedule(london, "Nightly")
    london.run_until(utc(2027, 1, 4, 11))
    assert "Sales has no snapshot" in messages(london, TASK_FAILED.code)[0]
    london.bench.write("Sales", 0, b"then")
    london.bench.do("create snapshots volumes Sales Monday")
    london.bench.write("Sales", 0, b"now!")
    london.run_until(utc(2027, 1, 4, 12))
    wait_for_run(london, 1)
    assert newark.bench.read("Sales", 0, 4) == b"then"
    (row,) = london.bench.do("set task last-snapshot off Nightly").rows
    assert row["last-snapshot"] is False
    london.run_until(utc(2027, 1, 4, 13))
    wait_for_run(london, 2)
    assert newark.bench.read("Sales", 0, 4) == b"now!"


def test_a_suspended_set_shows_in_its_schedule_and_fails_its_starts(offices: tuple[Office, Office]) -> None:
    london, _ = replicated(offices)
    london.bench.do("create task type Replicate replication-set SalesDR Nightly")
    schedule(london, "Nightly")
    london.bench.do("suspend replication-set SalesDR")
    assert london.bench.rows("show schedules")[0]["status"] == "Suspended"
    london.run_until(utc(2027, 1, 4, 11))
    assert "is suspended; resume it first" in messages(london, TASK_FAILED.code)[0]
    london.bench.do("resume replication-set SalesDR")
    assert london.bench.rows("show schedules")[0]["status"] == "Ready"


# -- what goes with what ---------------------------------------------------------------------------------------


def test_with_a_set_go_its_tasks_and_schedules_and_that_is_told(offices: tuple[Office, Office]) -> None:
    london, _ = replicated(offices)
    london.bench.do("create task type Replicate replication-set SalesDR Nightly")
    schedule(london, "Nightly")
    assert "This also deletes task Nightly and schedule Hourly." in question(
        london.bench, "delete replication-set SalesDR"
    )
    reply = london.bench.do("delete replication-set SalesDR")
    assert reply.message == (
        "Replication set SalesDR was deleted. Task Nightly was deleted. Schedule Hourly of task Nightly was deleted."
    )
    assert london.bench.rows("show tasks") == london.bench.rows("show schedules") == ()
    assert messages(london, TASK_DELETED.code) == ["Task Nightly was deleted."]
    assert messages(london, SCHEDULE_DELETED.code) == ["Schedule Hourly of task Nightly was deleted."]


def test_what_goes_because_the_other_system_deleted_the_set_is_told_soon(offices: tuple[Office, Office]) -> None:
    london, newark = replicated(offices)
    london.bench.do("create task type Replicate replication-set SalesDR Nightly")
    schedule(london, "Nightly")
    newark.bench.do("delete replication-set SalesDR")
    london.run_until(london.clock.at + 30)
    assert messages(london, SCHEDULE_DELETED.code) == ["Schedule Hourly of task Nightly was deleted."]


@pytest.mark.parametrize("line", ["delete volumes Sales", "delete volume-groups delete-volumes yes Group"])
def test_with_a_volume_go_its_tasks(office: Office, line: str) -> None:
    volume(office)
    office.bench.do("create volume-group volumes Sales Group")
    office.bench.do("create task type TakeSnapshot source-volume Sales snapshot-prefix s retention-count 1 Take")
    schedule(office, "Take")
    assert "This also deletes task Take and schedule Hourly." in question(office.bench, line)
    assert office.bench.do(line).message.endswith("Task Take was deleted. Schedule Hourly of task Take was deleted.")


def test_with_a_snapshot_goes_the_task_that_resets_it_and_its_own_snapshots_stay(office: Office) -> None:
    volume(office)
    office.bench.do("create snapshots volumes Sales Test")
    office.bench.do("create task type ResetSnapshot snapshot-volume Test Reset")
    office.bench.do("create task type TakeSnapshot source-volume Sales snapshot-prefix s retention-count 1 Take")
    schedule(office, "Take")
    office.run_until(utc(2027, 1, 4, 11))
    assert "This also deletes task Reset." in question(office.bench, "delete snapshot Test")
    assert office.bench.do("delete snapshot Test").message == "Snapshot Test deleted. Task Reset was deleted."
    office.bench.do("delete task Take")
    assert office.bench.names("show snapshots") == ["s_S0001"]
    assert office.bench.rows("show schedules") == ()


def test_with_a_task_go_its_schedules_after_a_question(office: Office) -> None:
    volume(office)
    office.bench.do("create task type TakeSnapshot source-volume Sales snapshot-prefix s retention-count 1 Take")
    assert question(office.bench, "delete task Take") == "Delete task Take?"
    schedule(office, "Take", "One")
    schedule(office, "Take", "Two")
    assert question(office.bench, "delete task Take") == "Delete task Take? Schedules One, Two will be deleted as well."
    reply = office.bench.do("delete task Take")
    assert reply.message == (
        "Task Take was deleted. Schedule One of task Take was deleted. Schedule Two of task Take was deleted."
    )


def test_all_deletes_all(office: Office) -> None:
    volume(office)
    for task in ("all", "Take"):
        office.bench.do(f"create task type TakeSnapshot source-volume Sales snapshot-prefix s retention-count 1 {task}")
    for name in ("all", "One", "Two"):
        schedule(office, "Take", name)
    assert question(office.bench, "delete schedule all") == "Delete schedule all? The task is kept."
    office.bench.do("delete schedule all")
    assert office.bench.names("show schedules") == ["One", "Two"], "one that is called so goes first"
    office.bench.do("delete schedules all")
    assert office.bench.names("show schedules") == []
    office.bench.do("delete task all")
    assert office.bench.names("show tasks") == ["Take"]
    office.bench.do("delete tasks all")
    assert office.bench.names("show tasks") == []
    for line in ("delete tasks all", "delete schedules all"):
        office.bench.refused(line, ObjectNotFound, "nothing to delete")


# -- schedules -------------------------------------------------------------------------------------------------


def test_a_schedule_is_created_changed_and_shown(office: Office) -> None:
    volume(office)
    for name in ("Take", "Take2"):
        office.bench.do(
            f"create task type TakeSnapshot source-volume Sales snapshot-prefix {name} retention-count 1 {name}"
        )
    specification = "start 2027-01-04 11:00 AM, every 1 day, only any weekday of month, count 5"
    (row,) = office.bench.do(f'create schedule schedule-specification "{specification}" task-name Take Daily').rows
    names = ("name", "schedule-specification", "status", "next-time", "task-to-run", "error-message", "task-type")
    assert tuple(row[each] for each in names) == (
        "Daily",
        "start 2027-01-04 11:00 every 1 days only any weekday of month count 5",
        "Ready",
        utc(2027, 1, 4, 11),
        "Take",
        "",
        "TakeSnapshot",
    )
    assert office.bench.rows("show tasks Take")[0]["schedule-names"] == "Daily"
    office.run_until(utc(2027, 1, 4, 12))
    (row,) = office.bench.do("set schedule task-name Take2 Daily").rows
    assert (row["task-to-run"], row["starts"], row["next-time"]) == ("Take2", 1, utc(2027, 1, 5, 11))
    (row,) = office.bench.do('set schedule schedule-specification "start 2027-01-04 12:05" Daily').rows
    assert (row["starts"], row["next-time"]) == (0, utc(2027, 1, 4, 12, 5))
    office.run_until(utc(2027, 1, 4, 13))
    assert office.bench.names("show snapshots") == ["Take2_S0001", "Take_S0001"]
    assert len(messages(office, TASK_CREATED.code)) == 2
    assert messages(office, SCHEDULE_CREATED.code) == [
        "Schedule Daily of task Take was created: start 2027-01-04 11:00 every 1 days only any weekday of month "
        "count 5."
    ]
    assert len(messages(office, SCHEDULE_CHANGED.code)) == 2
    office.bench.do("set task retention-count 2 Take")
    assert messages(office, TASK_CHANGED.code) == ["Task Take was changed."]
    assert office.bench.names("show tasks type Replicate") == []
    assert office.bench.names("show tasks type TakeSnapshot") == ["Take", "Take2"]
    assert office.bench.do("delete schedule Daily").message == "Schedule Daily of task Take2 was deleted."


TAKE = "create task type TakeSnapshot source-volume Sales snapshot-prefix s retention-count 1"
REPLICATE = "create task type Replicate replication-set"
CREATE = f'create schedule schedule-specification "{HOURLY}" task-name Take'
REFUSED: list[tuple[str, type[OffsiteError], list[str]]] = [
    (f"{TAKE} Take", NameInUse, ["'Take'"]),
    (f"{TAKE} {'x' * 33}", BadParameter, ["33 bytes", "1 to 32"]),
    (f'{TAKE} "a,b"', BadParameter, ["','"]),
    (f"{TAKE} a<b", BadParameter, ["'<'"]),
    (f"{TAKE} a\\b", BadParameter, ["are not allowed"]),
    (
        f"{TAKE} snapshot-volume Test New",
        BadParameter,
        ["snapshot-volume is not valid with type TakeSnapshot", "retention-count"],
    ),
    (f"{TAKE} last-snapshot New", BadParameter, ["last-snapshot is not valid with type TakeSnapshot"]),
    ("create task type TakeSnapshot source-volume Sales New", BadParameter, ["TakeSnapshot requires snapshot-prefix"]),
    ("create task type TakeSnapshot snapshot-prefix s retention-count 1 New", BadParameter, ["requires source-volume"]),
    ("create task type ResetSnapshot New", BadParameter, ["requires snapshot-volume"]),
    ("create task type Replicate New", BadParameter, ["requires replication-set"]),
    ("create task type EnableDSD New", BadParameter, ["'EnableDSD'", "TakeSnapshot, ResetSnapshot, Replicate"]),
    (TAKE.replace("Sales", "Nope") + " New", VolumeNotFound, ["'Nope'"]),
    (TAKE.replace("count 1", "count 0") + " New", BadParameter, ["'0'", "1 to 1024"]),
    (TAKE.replace("count 1", "count 1025") + " New", BadParameter, ["'1025'", "1 to 1024"]),
    (TAKE.replace("prefix s", "prefix a.b") + " New", BadParameter, ["'a.b'", "'.'"]),
    (TAKE.replace("prefix s", f"prefix {'x' * 27}") + " New", BadParameter, ["27 bytes", "1 to 26"]),
    (TAKE.replace("prefix s", 'prefix " s"') + " New", BadParameter, ["begins with a space"]),
    ("create task type ResetSnapshot snapshot-volume Sales New", SnapshotNotFound, ["'Sales' is a volume"]),
    (f"{REPLICATE} Nope New", ObjectNotFound, ["'Nope'"]),
    (f"{REPLICATE} GroupDR last-snapshot New", NotAllowed, ["GroupDR replicates a volume group", "last-snapshot"]),
    ("set task last-snapshot on Grouped", NotAllowed, ["GroupDR replicates a volume group"]),
    ("set task Take", BadParameter, ["no change specified for task Take"]),
    ("set task retention-count 3 Nope", ObjectNotFound, ["'Nope'"]),
    ("set task last-snapshot on Take", BadParameter, ["TakeSnapshot has no parameter last-snapshot"]),
    ("set task retention-count 3 Grouped", BadParameter, ["Replicate has no parameter retention-count"]),
    ("set task snapshot-prefix a<b Take", BadParameter, ["'<'"]),
    ("delete task Nope", ObjectNotFound, ["'Nope'", "show tasks"]),
    ("delete task take", ObjectNotFound, ["'take'"]),
    ("show tasks Nope", ObjectNotFound, ["'Nope'"]),
    (f"{CREATE} Hourly", NameInUse, ["'Hourly'"]),
    (f"{CREATE} {'x' * 33}", BadParameter, ["33 bytes"]),
    (f"{CREATE} a<b", BadParameter, ["'<'"]),
    (f'create schedule schedule-specification "{HOURLY}" task-name Nope New', ObjectNotFound, ["task 'Nope'"]),
    (CREATE.replace("11:00", "10:04") + " New", BadParameter, ["5 minutes in the future"]),
    (CREATE.replace("01-04", "02-29") + " New", BadParameter, ["February 2027"]),
    (CREATE.replace("1 hours", "59 minutes") + " New", BadParameter, ["59 minutes"]),
    (CREATE.replace("1 hours", "1 hours please") + " New", BadParameter, ["'please'"]),
    ("set schedule Hourly", BadParameter, ["no change specified for schedule Hourly"]),
    ("set schedule Nope", ObjectNotFound, ["'Nope'"]),
    ("set schedule task-name Take Nope", ObjectNotFound, ["'Nope'"]),
    ("set schedule task-name Nope Hourly", ObjectNotFound, ["task 'Nope'"]),
    ('set schedule schedule-specification "start 2027-01-04 10:04" Hourly', BadParameter, ["5 minutes in the future"]),
    ("delete schedule Nope", ObjectNotFound, ["'Nope'", "show schedules"]),
    ("show schedules Nope", ObjectNotFound, ["'Nope'"]),
]


def test_each_refusal_names_the_value_and_changes_nothing(offices: tuple[Office, Office]) -> None:
    london, newark = replicated(offices)
    volume(london, "Member")
    london.bench.do("create volume-group volumes Member Group")
    london.bench.do("create replication-set peer-connection Newark primary-volume Group GroupDR")
    london.bench.do(f"{TAKE} Take")
    london.bench.do(f"{REPLICATE} GroupDR Grouped")
    schedule(london, "Take")
    for line, error, words in REFUSED:
        london.bench.refused(line, error, *words)
    newark.bench.refused(f"{REPLICATE} SalesDR New", NotAllowed, "SalesDR is secondary on this system", "system London")
    newark.bench.do("create snapshots volumes Sales Check")
    newark.bench.do("create task type ResetSnapshot snapshot-volume Check Allowed")
    newark.bench.do(f"{TAKE} Allowed2")
    for line in (
        f"{TAKE} X",
        "set task retention-count 2 Take",
        "delete task Take",
        f"{CREATE} X",
        "delete schedule X",
    ):
        london.bench.refused(line, NotAllowed, "role manage", user=MONITOR)
    assert london.bench.do("show schedules", MONITOR).rows


def test_there_is_a_limit_to_how_many_there_are(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "TASKS_MAX", 1)
    monkeypatch.setattr(schedules_module, "SCHEDULES_MAX", 1)
    volume(office)
    office.bench.do(f"{TAKE} Take")
    office.bench.refused(f"{TAKE} Take2", InUse, "there are 1 tasks")
    schedule(office, "Take")
    office.bench.refused(f"{CREATE} Two", InUse, "there are 1 schedules")


def test_a_task_is_not_made_of_what_was_deleted_meanwhile(office: Office) -> None:
    for record in (
        TaskRecord("Take", "TakeSnapshot", 0.0, image_id=77, snapshot_prefix="s", retention_count=1),
        TaskRecord("Nightly", "Replicate", 0.0, set_id=77),
    ):
        with pytest.raises(ObjectNotFound, match="was just deleted"):
            office.bench.system.tasks.create(record)
    assert office.bench.rows("show tasks") == ()


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (TaskRecord("Take", "TakeSnapshot", 0.0, image_id=77, snapshot_prefix="s", retention_count=1), "volume"),
        (TaskRecord("Nightly", "Replicate", 0.0, set_id=77), "replication set"),
    ],
)
def test_a_start_whose_object_was_deleted_meanwhile_fails(office: Office, record: TaskRecord, expected: str) -> None:
    with pytest.raises(ObjectNotFound, match=f"{expected}.* was just deleted"):
        task_work.TaskWork(office.bench.system).do(record, lambda _: None)
