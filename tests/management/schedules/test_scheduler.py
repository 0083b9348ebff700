"""The scheduler on a virtual clock: what starts when, through restarts, crashes and steps of the clock."""

from __future__ import annotations

from offsite.events import SCHEDULE_EXPIRED
from tests.management.schedules.scheduling import Office, utc

SNAPSHOT_TASK = "create task type TakeSnapshot source-volume Sales snapshot-prefix Sales retention-count 100 Take"


def make(office: Office, specification: str, name: str = "Hourly") -> None:
    if not office.bench.rows("show volumes"):
        office.bench.do("create volume pool A size 1MiB Sales")
        office.bench.do(SNAPSHOT_TASK)
    office.bench.do(f'create schedule schedule-specification "{specification}" task-name Take {name}')


def test_a_task_is_started_at_each_of_its_times(office: Office) -> None:
    make(office, "start 2027-01-04 11:00 every 1 hours count 3")
    office.run_until(utc(2027, 1, 4, 10, 59, 59))
    assert office.starts() == []
    office.run_until(utc(2027, 1, 5))
    assert office.starts() == ["04 11:00", "04 12:00", "04 13:00"]
    assert office.bench.names("show snapshots") == ["Sales_S0001", "Sales_S0002", "Sales_S0003"]
    (row,) = office.bench.rows("show schedules")
    assert (row["status"], row["next-time"], row["starts"]) == ("Expired", None, 3)
    assert len(office.told(SCHEDULE_EXPIRED.code)) == 1
