"""A verdict is a claim: these protect that none is made that the numbers do not bear."""

from __future__ import annotations

import pytest

from benchmarks.measure import Line, Measured, Samples, Unit, Unmeasured, at_least, at_most, below, is_reached


def line(**changes: object) -> Line:
    return Line(**{"title": "reads", "unit": Unit.PER_SECOND, "beside": "nbdkit", **changes})  # type: ignore[arg-type] # any field of it


@pytest.mark.parametrize(
    ("target", "own", "other", "verdict"),
    [
        (at_least(1.4), 140.0, 100.0, True),
        (at_least(1.4), 139.9, 100.0, False),
        (at_most(1.2), 120.0, 100.0, True),
        (at_most(1.2), 120.1, 100.0, False),
    ],
)
def test_ratio_of_medians_is_held_against_the_bound(target: object, own: float, other: float, verdict: bool) -> None:
    measured = Measured(Samples.of([1, own, 1e9]), Samples.of([1, other, 1e9]))
    assert is_reached(line(target=target), measured) is verdict


def test_without_a_peer_the_value_itself_is_held_against_the_bound() -> None:
    alone = line(unit=Unit.SECONDS, beside="", target=below(0.002))
    assert is_reached(alone, Measured(Samples.of([0.0019]))) is True
    assert is_reached(alone, Measured(Samples.of([0.002]))) is False


def test_nothing_is_claimed_without_a_target_or_a_measurement() -> None:
    assert is_reached(line(), Measured(Samples.of([1]), Samples.of([1]))) is None
    assert is_reached(line(target=at_least(1)), Unmeasured("no root")) is None


def test_samples_show_their_spread() -> None:
    assert Samples.of([120_321, 100_000, 150_000]).text(Unit.PER_SECOND) == "120,300/s (100,000/s to 150,000/s)"
    assert Samples.of([5, 5]).text(Unit.PER_SECOND) == "5/s"


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (Unit.PER_SECOND, 9_876.4, "9,876/s"),
        (Unit.BYTES_PER_SECOND, 3_704_000_000, "3,704 MB/s"),
        (Unit.BYTES, 20_480_000, "20.48 MB"),
        (Unit.OF_A_CORE, 0.01, "1.00 %"),
        (Unit.OF_A_CORE, -0.00001, "0.00 %"),
        (Unit.SECONDS, 2.5, "2.5 s"),
        (Unit.SECONDS, 0.0123, "12.3 ms"),
        (Unit.SECONDS, 0.000045, "45 µs"),
        (Unit.SECONDS, 1200, "1,200 s"),
    ],
)
def test_numbers_are_written_for_people(unit: Unit, value: float, text: str) -> None:
    assert unit.text(value) == text
