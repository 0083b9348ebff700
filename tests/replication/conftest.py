"""Two replicating systems."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replication.sites import Site


def _site(directory: Path, name: str) -> Iterator[Site]:
    site = Site(directory, name).start()
    yield site
    site.stop()


@pytest.fixture
def london(tmp_path: Path) -> Iterator[Site]:
    yield from _site(tmp_path / "london", "London")


@pytest.fixture
def newark(tmp_path: Path) -> Iterator[Site]:
    yield from _site(tmp_path / "newark", "Newark")
