"""What the tests of this folder share: a real system."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interfaces.live_system import LiveSystem, running


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSystem]:
    """A system in a process of its own, for all tests of this folder: each uses names of its own."""
    with running(tmp_path_factory.mktemp("live")) as system:
        yield system
