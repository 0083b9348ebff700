"""Sessions end by themselves, by logout, and when their user changes."""

from __future__ import annotations

import pytest

from offsite.management.accounts import sessions as module
from offsite.management.accounts.sessions import SessionExpired, Sessions
from offsite.management.accounts.users import User, UserChanged
from offsite.management.command_table.command import Role

ANNA, OTTO = User("anna", Role.MANAGE), User("otto", Role.MONITOR)


def as_they_were(user: User) -> User:
    return user


class OwnedClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


def test_a_key_stands_for_its_user_until_it_was_unused_for_half_an_hour() -> None:
    clock = OwnedClock()
    sessions = Sessions(clock, as_they_were)
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
        Sessions(OwnedClock(), as_they_were).user(key)
    assert refusal.value.code == -10027


def test_a_session_that_was_closed_is_over() -> None:
    sessions = Sessions(OwnedClock(), as_they_were)
    key, other = sessions.open(ANNA), sessions.open(ANNA)
    sessions.close(key)
    sessions.close("never opened")
    assert sessions.user(other) == ANNA
    with pytest.raises(SessionExpired):
        sessions.user(key)


def test_all_sessions_of_a_user_end_together_and_others_stay() -> None:
    sessions = Sessions(OwnedClock(), as_they_were)
    keys, other = [sessions.open(ANNA) for _ in range(3)], sessions.open(OTTO)
    sessions.close_all("anna")
    for key in keys:
        with pytest.raises(SessionExpired):
            sessions.user(key)
    assert sessions.user(other) == OTTO


def test_who_has_too_many_ends_their_own_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_OF_USER_MAX", 2)
    sessions = Sessions(OwnedClock(), as_they_were)
    of_another = sessions.open(OTTO)
    first, second = sessions.open(ANNA), sessions.open(ANNA)
    sessions.user(first)
    third = sessions.open(ANNA)
    assert sessions.user(first) == sessions.user(third) == ANNA
    assert sessions.user(of_another) == OTTO
    with pytest.raises(SessionExpired):
        sessions.user(second)


def test_a_session_that_is_used_all_the_time_ends_twelve_hours_after_the_login() -> None:
    clock = OwnedClock()
    sessions = Sessions(clock, as_they_were)
    key = sessions.open(ANNA)
    while clock.seconds < 12 * 3600:
        assert sessions.user(key) == ANNA
        clock.seconds += 600
    assert sessions.user(key) == ANNA
    clock.seconds += 1
    with pytest.raises(SessionExpired):
        sessions.user(key)


def test_a_session_has_the_role_that_its_user_has_now() -> None:
    now: User | None = ANNA

    def current(_user: User) -> User:
        if now is None:
            raise UserChanged("gone")
        return now

    sessions = Sessions(OwnedClock(), current)
    key = sessions.open(ANNA)
    now = User("anna", Role.MONITOR)
    assert sessions.user(key).role is Role.MONITOR
    now = None
    with pytest.raises(SessionExpired):
        sessions.user(key)
    now = ANNA
    with pytest.raises(SessionExpired):
        sessions.user(key)
