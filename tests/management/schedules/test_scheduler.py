"""The scheduler on a virtual clock: what starts when, through restarts, crashes and steps of the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import tzinfo

import pytest
from sqlalchemy import Connection, update

from offsite.errors import StateDirectoryError
from offsite.events import SCHEDULE_EXPIRED, START_MISSED, TASK_FAILED
from offsite.management.schedules.records import TaskRecord
from offsite.management.schedules.recurrence import next_start
from offsite.management.schedules.scheduler import LOOK_SECONDS, STARTS_AT_A_TIME, in_a_thread
from offsite.management.schedules.specification import Specification
from offsite.management.schedules.tables import schedules as table
from offsite.management.task_runner.task_work import TaskWork
from offsite.store.settings import TIME_ZONE
from tests.management.schedules.scheduling import Office, utc

TASK = "create task type TakeSnapshot source-volume Sales snapshot-prefix Sales retention-count 100 Take"


class Crash(BaseException):
    """The process ends here."""


def make(office: Office, specification: str, name: str = "Hourly") -> None:
    if not office.bench.rows("show volumes"):
        office.bench.do("create volume pool A size 1MiB Sales")
        office.bench.do(TASK)
    office.bench.do(f'create schedule schedule-specification "{specification}" task-name Take {name}')


def messages(office: Office, code: int) -> list[str]:
    return [message for _, message in office.told(code)]


def test_a_task_is_started_at_each_of_its_times(office: Office) -> None:
    make(office, "start 2027-01-04 11:00 every 1 hours count 3")
    office.run_until(utc(2027, 1, 4, 10, 59, 59))
    assert office.starts() == []
    office.run_until(utc(2027, 1, 5))
    assert office.starts() == ["04 11:00", "04 12:00", "04 13:00"]
    assert office.bench.names("show snapshots") == ["Sales_S0001", "Sales_S0002", "Sales_S0003"]
    (row,) = office.bench.rows("show schedules")
    assert (row["status"], row["next-time"], row["starts"]) == ("Expired", None, 3)
    assert messages(office, SCHEDULE_EXPIRED.code) == ["Schedule Hourly of task Take has expired."]
    assert office.told(START_MISSED.code) == []


def test_schedules_take_turns_by_when_they_are_due(office: Office) -> None:
    make(office, "start 2027-01-04 11:30 every 2 hours count 2", "Second")
    make(office, "start 2027-01-04 11:00 expires 2027-01-04 11:00", "First")
    make(office, "start 2027-01-04 11:00 every 1 hours between 13:00 and 13:30 count 1", "Third")
    office.run_until(utc(2027, 1, 5))
    assert office.starts() == ["04 11:00", "04 11:30", "04 13:00", "04 13:30"]
    assert {row["status"] for row in office.bench.rows("show schedules")} == {"Expired"}


def test_the_shortest_sleep_is_until_what_is_due_and_the_longest_until_the_clock_is_looked_at(office: Office) -> None:
    assert office.scheduler.step() == office.clock.at + LOOK_SECONDS
    make(office, "start 2027-01-04 10:05")
    assert office.scheduler.step() == office.clock.at + LOOK_SECONDS
    office.clock.at = utc(2027, 1, 4, 10, 4, 50)
    assert office.scheduler.step() == office.clock.at + 10
    office.clock.at += 10
    assert office.scheduler.step() == office.clock.at, "more may be due"
    assert office.starts() == ["04 10:05"]


def test_who_sleeps_is_woken_when_schedules_change(office: Office) -> None:
    woken: list[int] = []
    office.bench.system.schedules.wake = lambda: woken.append(1)
    make(office, "start 2027-01-04 11:00")
    assert len(woken) == 1
    office.bench.do('set schedule schedule-specification "start 2027-01-04 11:30" Hourly')
    assert len(woken) == 2
    office.bench.do("set setting name time-zone value Europe/London")
    assert len(woken) == 3


# -- slow starts -----------------------------------------------------------------------------------------------


def test_a_start_that_takes_long_holds_up_no_other(office: Office) -> None:
    """As that of a set whose hooks take a minute: others would be late, and be told to have been missed."""
    for name in ("Slow", "Other"):
        make(office, "start 2027-01-04 11:00 every 1 hours", name)
    office.holds_starts_up = True
    office.run_until(utc(2027, 1, 4, 11, 0, 30))
    assert set(office.held_up) == {"start-Slow", "start-Other"}
    office.held_up.pop("start-Other")()
    assert office.bench.names("show snapshots") == ["Sales_S0001"]
    office.held_up.pop("start-Slow")()
    assert office.bench.names("show snapshots") == ["Sales_S0001", "Sales_S0002"]


def test_a_start_waits_for_the_one_before_it_of_the_same_schedule(office: Office) -> None:
    make(office, "start 2027-01-04 11:00 every 1 hours")
    office.holds_starts_up = True
    office.run_until(utc(2027, 1, 4, 13, 30))
    first = office.held_up.pop("start-Hourly")
    office.run_until(utc(2027, 1, 4, 13, 31))
    assert office.held_up == {}
    first()
    office.run_until(utc(2027, 1, 4, 13, 32))
    office.held_up.pop("start-Hourly")()
    assert messages(office, START_MISSED.code) == [
        "2 starts of schedule Hourly were missed, the first at 2027-01-04 12:00. Task Take is now started once."
    ]


def test_no_more_starts_at_a_time_than_there_may_be_threads(office: Office) -> None:
    for number in range(STARTS_AT_A_TIME + 1):
        make(office, "start 2027-01-04 11:00", f"S{number}")
    office.holds_starts_up = True
    office.clock.at = utc(2027, 1, 4, 11)
    for _ in range(STARTS_AT_A_TIME + 1):
        office.scheduler.step()
    assert len(office.held_up) == STARTS_AT_A_TIME
    office.held_up.popitem()[1]()
    office.scheduler.step()
    assert len(office.held_up) == STARTS_AT_A_TIME


def test_a_stop_waits_for_the_starts_that_are_under_way(office: Office) -> None:
    make(office, "start 2027-01-04 11:00")
    office.holds_starts_up = True
    office.run_until(utc(2027, 1, 4, 11))
    begun = time.monotonic()
    office.scheduler.stop(0.1)
    assert 0.1 <= time.monotonic() - begun < 5, "but not for ever"
    in_a_thread("start", office.held_up.popitem()[1])
    office.scheduler.stop(30)
    assert office.bench.names("show snapshots") == ["Sales_S0001"]


def test_a_start_whose_end_cannot_be_recorded_is_found_at_the_next_start(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(office, "start 2027-01-04 11:00")

    def fail(*_: object, **__: object) -> None:
        raise StateDirectoryError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("offsite.management.schedules.records.update_task", fail)
        office.run_until(utc(2027, 1, 4, 11))
    assert office.starts() == [] and office.bench.names("show snapshots") == []
    office.restarted()
    office.run_until(utc(2027, 1, 4, 11, 1))
    assert office.starts() == ["04 11:00"]


# -- missed starts ---------------------------------------------------------------------------------------------


def test_starts_that_were_missed_while_the_system_was_down_are_made_up_for_once(office: Office) -> None:
    make(office, "start 2027-01-04 11:00 every 1 hours")
    office.run_until(utc(2027, 1, 4, 11, 30))
    office.clock.at = utc(2027, 1, 4, 15, 10)  # down meanwhile: 12:00, 13:00, 14:00 and 15:00 passed
    office.restarted()
    office.run_until(utc(2027, 1, 4, 16, 30))
    assert office.starts() == ["04 11:00", "04 15:10", "04 16:00"]
    assert messages(office, START_MISSED.code) == [
        "4 starts of schedule Hourly were missed, the first at 2027-01-04 12:00. Task Take is now started once."
    ]


def test_a_start_that_is_due_just_now_makes_up_for_the_missed_ones(office: Office) -> None:
    make(office, "start 2027-01-04 11:00 every 1 hours")
    office.clock.at = utc(2027, 1, 4, 12, 0, 30)
    office.run_until(utc(2027, 1, 4, 12, 59))
    assert office.starts() == ["04 12:00"]
    assert messages(office, START_MISSED.code) == [
        "A start of schedule Hourly was missed, at 2027-01-04 11:00. Task Take is now started once."
    ]


def test_a_start_that_is_a_moment_late_was_not_missed(office: Office) -> None:
    make(office, "start 2027-01-04 11:00 expires 2027-01-04 11:00")
    office.clock.at = utc(2027, 1, 4, 11, 0, 59)
    office.run_until(utc(2027, 1, 4, 12))
    assert office.starts() == ["04 11:00"]
    assert office.told(START_MISSED.code) == []


def test_the_only_start_of_all_is_made_up_for(office: Office) -> None:
    make(office, "start 2027-01-04 11:00")
    office.clock.at = utc(2027, 2, 1)
    office.restarted()
    office.run_until(utc(2027, 2, 2))
    assert office.starts() == ["01 00:00"]
    assert office.bench.rows("show schedules")[0]["status"] == "Expired"


def test_after_its_end_nothing_is_made_up_for_and_that_is_told(office: Office) -> None:
    make(office, "start 2027-01-04 11:00 every 1 hours expires 2027-01-04 12:30")
    office.clock.at = utc(2027, 1, 4, 15)
    office.restarted()
    office.run_until(utc(2027, 1, 5))
    assert office.starts() == []
    assert messages(office, START_MISSED.code) == [
        "2 starts of schedule Hourly were missed, the first at 2027-01-04 11:00. The schedule has expired: missed "
        "starts are not repeated."
    ]
    assert len(office.told(SCHEDULE_EXPIRED.code)) == 1
    assert office.bench.rows("show schedules")[0]["status"] == "Expired"


def test_years_of_missed_minutes_are_counted_up_to_a_limit(office: Office) -> None:
    office.bench.do("set setting name minimum-schedule-interval value 1")
    make(office, "start 2027-01-04 11:00 every 1 minutes")
    office.clock.at = utc(2032, 1, 4, 11)
    office.run_until(utc(2032, 1, 4, 11, 1, 30))
    assert office.starts() == ["04 11:00", "04 11:01"]
    assert messages(office, START_MISSED.code)[0].startswith("At least 1000 starts of schedule Hourly were missed")


# -- the clock -------------------------------------------------------------------------------------------------


def test_a_clock_that_is_put_back_doubles_no_start(office: Office) -> None:
    make(office, "start 2027-01-04 11:00 every 1 hours")
    office.run_until(utc(2027, 1, 4, 12, 30))
    for restart in (False, True):
        office.clock.at = utc(2027, 1, 4, 10, 45)
        if restart:
            office.restarted()
        office.run_until(utc(2027, 1, 4, 12, 59))
    assert office.starts() == ["04 11:00", "04 12:00"]
    office.run_until(utc(2027, 1, 4, 13, 30))
    assert office.starts() == ["04 11:00", "04 12:00", "04 13:00"]
    assert office.told(START_MISSED.code) == []


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("hours", [1, 23])
def test_a_clock_that_is_put_back_by_less_than_a_day_doubles_no_start_however_far_apart_they_are(
    office: Office, hours: int, restart: bool
) -> None:
    """The next start of a weekly one is days after what it would be if it were made anew."""
    make(office, "start 2027-01-04 11:00 every 1 weeks")
    office.run_until(utc(2027, 1, 4, 11, 30))
    office.clock.at -= hours * 3600
    if restart:
        office.restarted()
    while office.clock.at < utc(2027, 1, 4, 13):
        office.scheduler.step()
        office.clock.at += 1800
    assert office.starts() == ["04 11:00"]
    office.clock.at = utc(2027, 1, 11, 11)
    office.scheduler.step()
    assert office.starts() == ["04 11:00", "11 11:00"]


def test_a_start_is_not_made_of_a_specification_that_was_changed_just_then(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the new one is due at the same instant: its own rules decide about it, and about what follows."""
    make(office, "start 2027-01-04 11:00 every 1 hours")
    changed = "start 2027-01-04 11:00 every 2 hours count 5"

    def change_and_find(found: Specification, after: float, zone: tzinfo) -> float | None:
        with office.bench.system.database.transaction() as connection:
            connection.execute(update(table).values(specification=changed))
        return next_start(found, after, zone)

    office.clock.at = utc(2027, 1, 4, 11)
    with monkeypatch.context() as patch:
        patch.setattr("offsite.management.schedules.scheduler.next_start", change_and_find)
        office.scheduler.step()
    assert office.starts() == [] and office.bench.rows("show schedules")[0]["starts"] == 0
    office.run_until(utc(2027, 1, 4, 13, 30))
    assert office.starts() == ["04 11:00", "04 13:00"]


def test_a_clock_that_is_set_forward_has_missed_starts_made_up_for_once(office: Office) -> None:
    make(office, "start 2027-01-04 11:00 every 1 hours")
    office.run_until(utc(2027, 1, 4, 11, 30))
    office.clock.at += 3 * 3600
    office.run_until(utc(2027, 1, 4, 15, 30))
    assert office.starts() == ["04 11:00", "04 14:30", "04 15:00"]
    assert len(office.told(START_MISSED.code)) == 1


@pytest.mark.parametrize("restart", [False, True])
def test_a_clock_that_was_wrong_by_years_does_not_end_replication_until_then(office: Office, restart: bool) -> None:
    """Without this the next start would be years away, and nobody would notice."""
    make(office, "start 2027-01-04 11:00 every 1 hours")
    office.run_until(utc(2027, 1, 4, 11, 30))
    office.clock.at = utc(2037, 1, 1)
    office.run_until(utc(2037, 1, 1, 0, 30))
    office.clock.at = utc(2027, 1, 4, 12, 30)
    if restart:
        office.restarted()
    office.run_until(utc(2027, 1, 4, 13, 30))
    assert office.starts() == ["04 11:00", "01 00:00", "04 13:00"]


def test_another_time_zone_makes_next_starts_anew(office: Office) -> None:
    make(office, "start 2027-01-05 11:00 every 1 days")
    make(office, "start 2027-01-04 10:30", "Due")
    office.clock.at = utc(2027, 1, 4, 10, 30)
    office.bench.do("set setting name time-zone value America/New_York")
    due, hourly = office.bench.rows("show schedules")
    assert due["next-time"] == utc(2027, 1, 4, 10, 30), "what is due already stays due"
    assert hourly["next-time"] == utc(2027, 1, 5, 16)
    office.bench.do("set setting name time-zone value UTC")
    assert office.bench.rows("show schedules Hourly")[0]["next-time"] == utc(2027, 1, 5, 11)


def test_starts_keep_their_time_on_the_wall_through_daylight_saving(office: Office) -> None:
    office.bench.system.settings.set(TIME_ZONE, "Europe/London")
    make(office, "start 2027-03-27 01:30 every 1 days count 3")
    office.clock.at = utc(2027, 3, 27)
    office.run_until(utc(2027, 3, 30))
    assert office.starts() == ["27 01:30", "28 01:00", "29 00:30"]  # in UTC; 01:30 was left out on the 28th


# -- crashes ---------------------------------------------------------------------------------------------------


def crash_in(office: Office, monkeypatch: pytest.MonkeyPatch, *, done: bool) -> None:
    """The process ends in the work of the next start: before it, or when it is done."""
    real = TaskWork.do

    def work(self: TaskWork, task: TaskRecord, on_record: Callable[[Connection], None]) -> str:
        if done:
            real(self, task, on_record)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(TaskWork, "do", work)
        with pytest.raises(Crash):
            while True:
                office.clock.at = office.scheduler.step()
    office.restarted()


def test_a_start_that_a_crash_has_kept_from_its_work_is_made_up_for(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(office, "start 2027-01-04 11:00 count 1 every 1 hours")
    crash_in(office, monkeypatch, done=False)
    assert office.bench.names("show snapshots") == []
    (row,) = office.bench.rows("show tasks")
    assert row["state"] == "Active"
    office.clock.at = utc(2027, 1, 4, 11, 20)
    office.run_until(utc(2027, 1, 5))
    assert office.starts() == ["04 11:20"]
    assert office.bench.names("show snapshots") == ["Sales_S0001"]
    assert messages(office, START_MISSED.code) == [
        "A start of schedule Hourly was missed, at 2027-01-04 11:00. Task Take is now started once."
    ]
    assert office.bench.rows("show schedules")[0]["starts"] == 1
    assert office.bench.rows("show tasks")[0]["state"] == "Idle"


def test_a_start_whose_work_was_done_before_a_crash_is_not_made_twice(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(office, "start 2027-01-04 11:00 every 1 hours")
    crash_in(office, monkeypatch, done=True)
    office.clock.at = utc(2027, 1, 4, 11, 20)
    office.run_until(utc(2027, 1, 4, 12, 30))
    assert office.bench.names("show snapshots") == ["Sales_S0001", "Sales_S0002"]
    assert office.starts() == ["04 12:00"]
    assert office.told(START_MISSED.code) == []


def test_a_start_whose_task_was_deleted_after_a_crash_is_forgotten(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(office, "start 2027-01-04 11:00")
    crash_in(office, monkeypatch, done=False)
    office.bench.do("delete task Take")
    office.run_until(utc(2027, 1, 5))
    assert office.starts() == []
    assert office.bench.rows("show schedules") == ()


# -- what fails ------------------------------------------------------------------------------------------------


def test_a_start_that_fails_is_told_and_kept_and_the_schedule_goes_on(office: Office) -> None:
    make(office, "start 2027-01-04 11:00 every 1 hours")
    office.bench.do("create snapshots volumes Sales Test")
    office.bench.do("create task type ResetSnapshot snapshot-volume Test Reset")
    office.bench.do("set schedule task-name Reset Hourly")
    office.bench.target.open.append(("nbd:unix", office.bench.system.image("Test").image.id))
    office.run_until(utc(2027, 1, 4, 11, 30))
    (failed,) = messages(office, TASK_FAILED.code)
    assert failed.startswith("Task Reset, started by schedule Hourly, failed: volume Test is in use by initiator")
    (row,) = office.bench.rows("show tasks Reset")
    assert (row["status"], row["last-run-time"]) == ("Error", utc(2027, 1, 4, 11))
    assert "in use by initiator" in str(row["error-message"])
    assert "in use by initiator" in str(office.bench.rows("show schedules")[0]["error-message"])
    office.bench.target.open.clear()
    office.run_until(utc(2027, 1, 4, 12, 30))
    assert office.starts() == ["04 12:00"]
    (row,) = office.bench.rows("show tasks Reset")
    assert (row["status"], row["error-message"], row["last-run-time"]) == ("Ready", "", utc(2027, 1, 4, 12))


def test_a_specification_that_cannot_be_read_any_more_is_told_and_holds_up_no_other(office: Office) -> None:
    """As after a return to an older version."""
    make(office, "start 2027-01-04 11:00 every 1 hours", "Broken")
    make(office, "start 2027-01-04 11:00 every 1 hours")
    with office.bench.system.database.transaction() as connection:
        broken = update(table).where(table.c.name == "Broken").values(specification="start when it suits")
        connection.execute(broken)
    office.bench.do("set setting name time-zone value Europe/London")
    office.run_until(utc(2027, 1, 4, 11, 30))
    assert office.starts() == ["04 11:00"]
    assert "Schedule Broken can no longer start task Take: 'when'" in messages(office, TASK_FAILED.code)[0]
    (row,) = office.bench.rows("show schedules Broken")
    assert (row["status"], row["next-time"]) == ("Invalid", None)
    assert "'when'" in str(row["error-message"])
    office.bench.do('set schedule schedule-specification "start 2027-01-04 12:00" Broken')
    assert office.bench.rows("show schedules Broken")[0]["status"] == "Ready"


def test_a_disk_that_fails_starts_nothing_and_it_is_tried_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the record that it is under way a start could happen twice."""
    make(office, "start 2027-01-04 11:00 every 1 hours")

    def fail(*_: object) -> bool:
        raise StateDirectoryError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("offsite.management.schedules.records.take_start", fail)
        office.clock.at = utc(2027, 1, 4, 11)
        assert office.scheduler.step() == office.clock.at + LOOK_SECONDS
    assert office.bench.names("show snapshots") == []
    office.run_until(utc(2027, 1, 4, 11, 0, 40))
    assert office.starts() == ["04 11:00"]


def test_a_schedule_that_changes_while_its_start_begins_is_not_started(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(office, "start 2027-01-04 11:00")
    real = office.scheduler._take

    def change_first(*arguments: object) -> bool:
        office.bench.do('set schedule schedule-specification "start 2027-01-04 12:00" Hourly')
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(office.scheduler, "_take", change_first)
    office.clock.at = utc(2027, 1, 4, 11)
    office.scheduler.step()
    monkeypatch.undo()
    assert office.bench.names("show snapshots") == []
    office.run_until(utc(2027, 1, 4, 12, 30))
    assert office.starts() == ["04 12:00"]


def test_a_task_that_is_deleted_while_its_start_begins_does_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(office, "start 2027-01-04 11:00")
    real = office.scheduler._do

    def delete_first(*arguments: object) -> None:
        office.bench.do("delete task Take")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(office.scheduler, "_do", delete_first)
    office.run_until(utc(2027, 1, 4, 11, 30))
    assert office.bench.names("show snapshots") == []
