"""Puts the helpers of this folder within reach of its tests, and a real system."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from live_system import LiveSystem, running


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSystem]:
    """A system in a process of its own, for all tests of this folder: each uses names of its own."""
    with running(tmp_path_factory.mktemp("live")) as system:
        yield system
