"""What the tests of commands work on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.management.management_bench import Bench, bench_in


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """One system, London, with pool A."""
    with bench_in(tmp_path / "London", "London") as made:
        yield made


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[[str], Bench]]:
    """Makes a system by its name."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(bench_in(tmp_path / name, name))
