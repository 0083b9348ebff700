"""How far two clocks are apart, for all that is known; and ages that nobody can know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from offsite.replication.peers.clock_skew import LASTS_SECONDS, PeerClock, Skew, age, better, measure

seconds = st.floats(0, 1e4)


@given(st.floats(0, 4e9), seconds, seconds, st.floats(0, 1e6))
def test_the_true_skew_is_within_the_uncertainty(ahead: float, there: float, back: float, monotonic: float) -> None:
    """However long the two words took: the stamp was made in between."""
    stamp = monotonic + there + ahead
    clock = measure(stamp, there + back, monotonic + there + back)
    assert abs(clock.ahead_seconds - ahead) <= clock.uncertainty_seconds + 1e-3


def test_a_closer_measurement_is_kept_until_it_is_old_or_the_clock_was_set() -> None:
    close, vague = PeerClock(100.0, 0.01, 0.0), PeerClock(103.0, 5.0, 60.0)
    assert better(None, vague) is vague
    assert better(vague, close) is close
    assert better(close, vague) is close
    assert better(close, PeerClock(103.0, 5.0, LASTS_SECONDS)).uncertainty_seconds == 5.0
    was_set = PeerClock(3700.0, 5.0, 60.0)
    assert better(close, was_set) is was_set


def test_a_skew_is_told_when_it_is_certain_and_over_when_that_is() -> None:
    assert Skew(5.1, 0.05).is_beyond(5)
    assert Skew(-5.1, 0.05).is_beyond(5)
    assert Skew(5.0, 0.0).is_beyond(5), "the setting is the least that is told"
    assert not Skew(5.1, 0.2).is_beyond(5), "the wait may be all of it"
    assert Skew(0.3, 0.05).is_over(5)
    assert not Skew(0.3, 5.0).is_over(5)
    assert not Skew(4.5, 0.0).is_over(5)
    assert not Skew(4.9, 0.05).is_over(5), "it would be told and taken back all the time"
    assert (str(Skew(7.26, 0)), str(Skew(-7.26, 0))) == ("7.3 s ahead", "7.3 s behind")


def test_an_age_that_nobody_can_know_is_none() -> None:
    assert age(100.0, 160.0) == 60.0
    assert age(100.0, None) is None
    assert age(100.0, 90.0) is None, "an instant in the future"
    assert age(100.0, 99.5) == 0.0, "as good as now"
    assert age(100.0, 95.0, 5.0) == 0.0
