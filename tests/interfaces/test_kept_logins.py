"""A login that comes again and again is checked once, and ends as a session does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.errors import AuthenticationFailed
from offsite.interfaces import kept_logins
from offsite.interfaces.kept_logins import KeptLogins
from offsite.management.users import User, Users
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
    original = Users.authenticate

    def counted(users: Users, name: str, password: str, source: str) -> User:
        names.append(name)
        return original(users, name, password, source)

    monkeypatch.setattr(Users, "authenticate", counted)
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
    assert len(checked) == 21
    with pytest.raises(AuthenticationFailed, match="try again in"):
        logins.user("manage", "a wrong guess", "there")


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
