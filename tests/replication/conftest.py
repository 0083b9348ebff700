"""Two replicating systems, and the helpers of this folder within reach of its tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from sites import Site


def _site(directory: Path, name: str) -> Iterator[Site]:
    from sites import Site

    site = Site(directory, name).start()
    yield site
    site.stop()


@pytest.fixture
def london(tmp_path: Path) -> Iterator[Site]:
    yield from _site(tmp_path / "london", "London")


@pytest.fixture
def newark(tmp_path: Path) -> Iterator[Site]:
    yield from _site(tmp_path / "newark", "Newark")
