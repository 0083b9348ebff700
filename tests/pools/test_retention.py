"""Retention priorities of snapshots."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from offsite.errors import BadParameter
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Delete
from offsite.pools.retention import priorities, set_priority
from tests.pools.pool_bench import Bench


def test_a_priority_is_kept_changed_and_taken_back(bench: Bench, pool: LocalPool, volume: Callable[..., int]) -> None:
    first, second = volume("a", 1), volume("b", 1)
    with bench.database.transaction() as connection:
        set_priority(connection, first, "low")
        set_priority(connection, second, "high")
        set_priority(connection, second, "medium")
        assert priorities(connection) == {first: "low", second: "medium"}
        set_priority(connection, first, "never-delete")
        assert priorities(connection) == {second: "medium"}
    pool.apply([Delete(second)])
    with bench.database.read() as connection:
        assert priorities(connection) == {}, "it goes with its snapshot"


def test_a_priority_that_there_is_not_is_refused(bench: Bench) -> None:
    with bench.database.transaction() as connection:
        with pytest.raises(BadParameter, match="'now' is not one of never-delete, low, medium, high"):
            set_priority(connection, 1, "now")
        assert priorities(connection) == {}
