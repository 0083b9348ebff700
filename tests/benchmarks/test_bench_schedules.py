"""The measurement of schedules measures what it says: every schedule is started, and waiting costs little."""

from __future__ import annotations

from pathlib import Path

from benchmarks.schedules import cost_of_schedules


def test_each_schedule_is_started_once_an_hour(tmp_path: Path) -> None:
    cost = cost_of_schedules(tmp_path, count=30, hours=2)
    assert cost.starts == 60
    assert 0 < cost.cpu_share < 0.5
