"""Two whole systems over real TLS sockets on loopback, with pools in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sites import Site, pair, random_bytes

MIB = 1 << 20


@pytest.fixture
def london(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "london", "London").start()
    yield site
    site.stop()


@pytest.fixture
def newark(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "newark", "Newark").start()
    yield site
    site.stop()


def test_initial_run_then_differences(london: Site, newark: Site) -> None:
    volume = london.create_volume("Sales", 4 * MIB)
    data = random_bytes(2 * MIB)
    london.write(volume, MIB, data)
    pair(london, newark)
    london.replication.sets.create("SalesDR", volume, "Newark")
    assert newark.content("Sales") == bytes(4 * MIB)

    first = london.run_to_end("SalesDR")
    assert first.state == "success", first
    assert newark.content("Sales") == london.content("Sales")

    london.write(volume, 3 * MIB + 4096, b"x" * 4096)
    second = london.run_to_end("SalesDR")
    assert second.state == "success"
    assert newark.content("Sales") == london.content("Sales")
    assert second.changed_bytes == 4096
