"""The bench on which the tests of this folder work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.targets.nbd.nbd_bench import NbdBench, bench_in


@pytest.fixture
def bench(short_directory: Path) -> Iterator[NbdBench]:
    yield from bench_in(short_directory)
