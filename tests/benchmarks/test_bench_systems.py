"""Figures of runs come from the run's own record: reading the wrong one would be measuring the wrong thing."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import systems
from benchmarks.processes import CannotMeasure

RUN = {
    "run": "u2",
    "state": "success",
    "duration": "1.00 s",
    "phase": "success",
    "duration-numeric": 0.995,
    "end-time-numeric": 1.8e9,
    "changed-bytes-numeric": 4096,
    "wire-bytes-numeric": 4500,
}


def test_the_newest_run_is_the_first() -> None:
    answer = {"replication-runs": [RUN, {**RUN, "run": "u1", "duration-numeric": 9.0}]}
    assert systems.newest_run(answer) == systems.Run("u2", "success", 0.995, 1.8e9, 4096, 4500, "success")


@pytest.mark.parametrize("answer", [None, {}, {"replication-runs": []}, {"replication-runs": [{"run": "u"}]}])
def test_a_record_that_is_not_there_is_no_measurement(answer: Any) -> None:
    with pytest.raises(CannotMeasure, match="cannot be read"):
        systems.newest_run(answer)
