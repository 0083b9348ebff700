"""What the operator is told about how full a pool is, and how often."""

from __future__ import annotations

import pytest

from offsite import events
from offsite.errors import BadParameter
from offsite.events import EventKind
from offsite.pools.space import SpaceWatch, Thresholds


@pytest.fixture
def told() -> list[tuple[EventKind, str]]:
    return []


@pytest.fixture
def watch(told: list[tuple[EventKind, str]]) -> SpaceWatch:
    return SpaceWatch("A", 4096, 1000, Thresholds(), lambda kind, message: told.append((kind, message)))


def test_each_threshold_is_told_once_on_the_way_up_and_once_down(
    watch: SpaceWatch, told: list[tuple[EventKind, str]]
) -> None:
    for used in (0, 499, 500, 501, 600, 749, 750, 899, 900, 950, 950):
        watch.check(used)
    assert [kind for kind, _ in told] == [
        events.POOL_THRESHOLD_CROSSED,
        events.POOL_THRESHOLD_CROSSED,
        events.POOL_HIGH_THRESHOLD_CROSSED,
    ]
    assert "50.0 %" in told[0][1]
    assert "low" in told[0][1]
    told.clear()
    watch.check(899)
    watch.check(100)
    assert [kind for kind, _ in told] == [events.POOL_THRESHOLD_CLEARED] * 3


def test_a_leap_crosses_all_thresholds_at_once(watch: SpaceWatch, told: list[tuple[EventKind, str]]) -> None:
    watch.check(1000)
    assert len(told) == 3


def test_new_thresholds_count_from_the_next_look(watch: SpaceWatch, told: list[tuple[EventKind, str]]) -> None:
    watch.check(400)
    assert told == []
    watch.set_thresholds(Thresholds(10, 20, 30))
    watch.check(400)
    assert len(told) == 3


def test_a_full_pool_is_told_once_a_minute(
    watch: SpaceWatch, told: list[tuple[EventKind, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("offsite.pools.space.time.monotonic", lambda: now[0])
    for seconds in (0, 1, 59, 1, 30):
        now[0] += seconds
        watch.tell_full(1000, "no free page is left")
    assert [kind for kind, _ in told] == [events.POOL_FULL] * 2


def test_a_small_pool_is_told_to_have_space_again(
    told: list[tuple[EventKind, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have no 64 pages in all."""
    now = [1000.0]
    monkeypatch.setattr("offsite.pools.space.time.monotonic", lambda: now[0])
    watch = SpaceWatch("A", 4096, 40, Thresholds(), lambda kind, message: told.append((kind, message)))
    watch.tell_full(40, "no free page is left")
    now[0] += 10
    watch.set_available(39, 1)
    assert watch.refusal
    watch.set_available(38, 2)
    assert not watch.refusal
    assert [kind for kind, _ in told] == [events.POOL_FULL, events.POOL_SPACE_BACK]


@pytest.mark.parametrize("values", [(0, 50, 90), (60, 50, 90), (50, 95, 90), (50, 75, 101)])
def test_thresholds_that_make_no_sense_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(BadParameter, match=f"low {values[0]}"):
        Thresholds(*values)
