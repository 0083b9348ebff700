"""What the tests of schedules work on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.management.management_bench import bench_in
from tests.management.schedules.scheduling import Office, OwnedClock, WallOf, utc


@pytest.fixture
def offices(tmp_path: Path) -> Iterator[tuple[Office, Office]]:
    """London and Newark, with one clock."""
    clock = OwnedClock(utc(2027, 1, 4, 10))
    with ExitStack() as stack:
        made = [
            Office(stack.enter_context(bench_in(tmp_path / name, name, clock, WallOf(clock))), clock)
            for name in ("London", "Newark")
        ]
        yield made[0], made[1]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    clock = OwnedClock(utc(2027, 1, 4, 10))
    with bench_in(tmp_path / "London", "London", clock, WallOf(clock)) as bench:
        yield Office(bench, clock)
