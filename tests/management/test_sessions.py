"""Sessions end by themselves, by logout, and when their user changes."""

from __future__ import annotations

import pytest

from offsite.management import sessions as module
from offsite.management.sessions import SessionExpired, Sessions
from offsite.management.table import Role
from offsite.management.users import User

ANNA, OTTO = User("anna", Role.MANAGE), User("otto", Role.MONITOR)


class OwnedClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


def test_a_key_stands_for_its_user_until_it_was_unused_for_half_an_hour() -> None:
    clock = OwnedClock()
    sessions = Sessions(clock)
    key = sessions.open(ANNA)
    assert len(key) == 32
    assert int(key, 16)
    for _ in range(3):
        clock.seconds += module.IDLE_SECONDS - 1
        assert sessions.user(key) == ANNA
    clock.seconds += module.IDLE_SECONDS + 1
    with pytest.raises(SessionExpired):
        sessions.user(key)


@pytest.mark.parametrize("key", ["", "0" * 32, "\udce4", "x" * 100_000])
def test_an_unknown_key_is_refused_with_me4s_code(key: str) -> None:
    with pytest.raises(SessionExpired) as refusal:
        Sessions(OwnedClock()).user(key)
    assert refusal.value.code == -10027


def test_a_session_that_was_closed_is_over() -> None:
    sessions = Sessions(OwnedClock())
    key, other = sessions.open(ANNA), sessions.open(ANNA)
    sessions.close(key)
    sessions.close("never opened")
    assert sessions.user(other) == ANNA
    with pytest.raises(SessionExpired):
        sessions.user(key)


def test_all_sessions_of_a_user_end_together_and_others_stay() -> None:
    sessions = Sessions(OwnedClock())
    keys, other = [sessions.open(ANNA) for _ in range(3)], sessions.open(OTTO)
    sessions.close_all("anna")
    for key in keys:
        with pytest.raises(SessionExpired):
            sessions.user(key)
    assert sessions.user(other) == OTTO


def test_with_too_many_the_one_unused_for_longest_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_MAX", 2)
    sessions = Sessions(OwnedClock())
    first, second = sessions.open(ANNA), sessions.open(ANNA)
    sessions.user(first)
    third = sessions.open(ANNA)
    assert sessions.user(first) == sessions.user(third) == ANNA
    with pytest.raises(SessionExpired):
        sessions.user(second)
