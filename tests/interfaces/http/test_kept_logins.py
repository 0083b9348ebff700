"""A login that comes again and again is checked once, and ends as a session does."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.errors import AuthenticationFailed
from offsite.interfaces.http import kept_logins
from offsite.interfaces.http.kept_logins import KeptLogins
from offsite.management.accounts.login_throttle import NETWORK_MAX, PAIR_MAX
from offsite.management.accounts.users import TooManyLogins, User, Users
from tests.management.management_bench import PASSWORD, Bench, bench_in

NEW = {"password": "a new password"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_in(tmp_path / "London", "London") as made:
        yield made


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the logins whose password was checked."""
    names: list[str] = []
    original = Users._check

    def counted(users: Users, name: str, password: str, is_known: bool) -> User | None:
        names.append(name)
        return original(users, name, password, is_known)

    monkeypatch.setattr(Users, "_check", counted)
    return names


@pytest.fixture
def logins(bench: Bench) -> KeptLogins:
    return KeptLogins(bench.system.users, bench.system.sessions)


def test_a_right_login_is_checked_once(logins: KeptLogins, checked: list[str]) -> None:
    for _ in range(3):
        assert logins.user("manage", PASSWORD, "here").name == "manage"
    assert checked == ["manage"]


def test_a_wrong_login_is_checked_each_time_and_has_to_wait_after_some(logins: KeptLogins, checked: list[str]) -> None:
    logins.user("manage", PASSWORD, "here")
    for _ in range(20):
        with pytest.raises(AuthenticationFailed):
            logins.user("manage", "a wrong guess", "there")
    assert len(checked) == 1 + PAIR_MAX
    with pytest.raises(AuthenticationFailed, match="try again in"):
        logins.user("manage", "a wrong guess", "there")


def test_a_right_password_from_another_network_is_checked_as_any(logins: KeptLogins, checked: list[str]) -> None:
    for source in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"):  # the last two are of one network
        logins.user("manage", PASSWORD, source)
    assert checked == ["manage"] * 3


def test_no_guess_is_answered_elsewhere_once_too_many_were_wrong(logins: KeptLogins, checked: list[str]) -> None:
    logins.user("manage", PASSWORD, "192.0.2.1")
    for _ in range(NETWORK_MAX):
        with pytest.raises(AuthenticationFailed):
            logins.user(secrets.token_hex(4), "a wrong guess", "192.0.2.2")
    with pytest.raises(TooManyLogins):
        logins.user("manage", PASSWORD, "192.0.2.2")
    assert checked.count("manage") == 1


def test_a_kept_login_is_refused_where_too_many_guesses_were_wrong(logins: KeptLogins) -> None:
    """Else who guesses on from there would be told of the right one."""
    logins.user("manage", PASSWORD, "here")
    for number in range(PAIR_MAX):
        assert logins.user("manage", PASSWORD, "here"), "and what is kept takes back no failure"
        with pytest.raises(AuthenticationFailed, match="is wrong"):
            logins.user("manage", f"wrong guess {number}", "here")
    with pytest.raises(TooManyLogins):
        logins.user("manage", PASSWORD, "here")


def test_what_was_compared_with_kept_logins_counts_also_unchecked(
    logins: KeptLogins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else guesses made while many passwords are being checked would count for nothing."""
    logins.user("manage", PASSWORD, "here")

    def busy(*_: object) -> None:
        raise TooManyLogins("too many logins are being checked; try again in a moment")

    monkeypatch.setattr(Users, "_check", busy)
    for _ in range(PAIR_MAX):
        with pytest.raises(TooManyLogins, match="being checked"):
            logins.user("manage", "a wrong guess", "here")
    with pytest.raises(TooManyLogins, match="try again in"):
        logins.user("manage", PASSWORD, "here")


def test_name_and_password_are_not_taken_for_each_other(bench: Bench, logins: KeptLogins) -> None:
    bench.do("create user anna", secrets={"password": "left:right side"})
    logins.user("anna", "left:right side", "here")
    with pytest.raises(AuthenticationFailed):
        logins.user("anna:left", "right side", "here")


@pytest.mark.parametrize("change", ["set password anna", "set user roles manage anna", "delete user anna"])
def test_a_user_that_has_changed_is_checked_anew(
    bench: Bench, logins: KeptLogins, checked: list[str], change: str
) -> None:
    bench.do("create user anna", secrets={"password": PASSWORD})
    logins.user("anna", PASSWORD, "here")
    bench.do(change, secrets=NEW if "password" in change else None)
    if "roles" in change:
        assert logins.user("anna", PASSWORD, "here").role.word == "manage"
    else:
        with pytest.raises(AuthenticationFailed):
            logins.user("anna", PASSWORD, "here")
    assert checked == ["anna", "anna"]


def test_only_so_many_are_kept(
    bench: Bench, logins: KeptLogins, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_logins, "KEPT_MAX", 1)
    bench.do("create user anna", secrets={"password": PASSWORD})
    for name in ("anna", "manage", "anna"):
        logins.user(name, PASSWORD, "here")
    assert checked == ["anna", "manage", "anna"]
