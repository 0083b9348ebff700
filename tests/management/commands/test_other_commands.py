"""Commands about users, events and the system, and how any command is executed."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from offsite import __version__
from offsite.errors import BadParameter, InUse, NameInUse, NotAllowed, ObjectNotFound
from offsite.management import system
from offsite.management.accounts.sessions import SessionExpired
from offsite.management.accounts.users import UserChanged
from offsite.management.command_table.command import Role
from offsite.management.command_table.reply import Question
from offsite.management.execution import Request, execute
from tests.management.management_bench import MANAGE, MONITOR, PASSWORD, Bench

NEW = {"password": "a new password"}


def test_a_user_is_made_with_a_password_that_is_not_among_the_words(bench: Bench) -> None:
    question = bench.answer("create user roles manage berta")
    assert question == Question("New password of the user.", "password", new=True)
    assert len(bench.rows("show users")) == 1
    bench.do("create user roles manage berta", secrets=NEW)
    assert [row.values for row in bench.rows("show users")] == [("berta", "manage"), ("manage", "manage")]
    assert bench.system.users.authenticate("berta", NEW["password"], "here").role is Role.MANAGE


def test_a_secret_among_the_words_is_refused_where_others_can_see_them(bench: Bench) -> None:
    bench.refused(f'create user password "{NEW["password"]}" berta', NotAllowed, "password is not accepted")
    bench.answer(f'create user password "{NEW["password"]}" berta', open_secrets=True)
    assert bench.system.users.authenticate("berta", NEW["password"], "here").role is Role.MONITOR


CHANGES = ("set password berta", "set user roles monitor berta", "set user roles manage berta", "delete user berta")


def change_berta(bench: Bench, line: str) -> None:
    bench.do(line, secrets=NEW if "password" in line else None)


@pytest.mark.parametrize("line", CHANGES)
@pytest.mark.parametrize("opened", ["before the change", "after it, for the login was checked before"])
def test_a_changed_user_has_to_log_in_again(bench: Bench, line: str, opened: str) -> None:
    bench.do("create user roles manage berta", secrets=NEW)
    sessions, user = bench.system.sessions, bench.system.users.authenticate("berta", NEW["password"], "here")
    keys = [sessions.open(user)] if "before" in opened.split(",")[0] else []
    change_berta(bench, line)
    keys += [] if keys else [sessions.open(user)]
    with pytest.raises(SessionExpired):
        sessions.user(keys[0])


@pytest.mark.parametrize("role", ["manage", "monitor"])
def test_a_user_deleted_and_made_anew_is_another_one(bench: Bench, role: str) -> None:
    bench.do("create user roles manage berta", secrets=NEW)
    key = bench.system.sessions.open(bench.system.users.authenticate("berta", NEW["password"], "here"))
    bench.do("delete user berta")
    bench.do(f"create user roles {role} berta", secrets=NEW)
    with pytest.raises(SessionExpired):
        bench.system.sessions.user(key)


@pytest.mark.parametrize("line", CHANGES)
@pytest.mark.parametrize("command", ["copy volume name Copy Sales", "create volume pool A size 1MiB X", "show pools"])
def test_no_command_is_begun_for_a_user_who_was_changed_after_they_were_let_in(
    bench: Bench, command: str, line: str
) -> None:
    """Its words may come long after that; a command that is long looks at the user no more once it has begun."""
    bench.do("create volume pool A size 1MiB Sales")
    bench.do("create user roles manage berta", secrets=NEW)
    user = bench.system.users.authenticate("berta", NEW["password"], "here")
    change_berta(bench, line)
    with pytest.raises(UserChanged):
        bench.do(command, user)
    assert [row["volume-name"] for row in bench.rows("show volumes")] == ["Sales"]


def test_a_command_that_waited_for_its_turn_is_not_done_for_a_user_who_was_demoted_meanwhile(bench: Bench) -> None:
    bench.do("create user roles manage berta", secrets=NEW)
    user = bench.system.users.authenticate("berta", NEW["password"], "here")
    refused: list[str] = []

    def create() -> None:
        try:
            bench.do("create volume pool A size 1MiB Sales", user)
        except UserChanged as error:
            refused.append(str(error))

    with bench.system.changing_alone():
        waiting = threading.Thread(target=create)
        waiting.start()
        bench.system.users.set_role("berta", Role.MONITOR)
    waiting.join(30)
    assert refused == ["user 'berta' was changed or deleted after the login; log in again"]
    assert bench.rows("show volumes") == ()


def test_the_first_password_goes_with_its_user_and_when_it_cannot_that_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.do("create user roles manage berta", secrets=NEW)
    path = bench.system.state_directory / "first-password"
    path.write_text("an old one")

    def fails(_path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", fails)
        reply = bench.do("set password manage", secrets=NEW)
    assert reply.message.endswith("cannot be removed (Read-only file system); remove it.")
    assert bench.do("delete user manage").message == f"User manage was deleted. {path} was removed."
    assert not path.exists()


def test_bad_users_are_refused(bench: Bench) -> None:
    bench.refused("delete user manage", InUse, "'manage' is the last one")
    bench.refused("set user roles monitor manage", InUse, "'manage' is the last one")
    bench.refused("set user roles king manage", BadParameter, "roles", "'king'", "monitor, manage")
    bench.refused("delete user nobody", ObjectNotFound, "'nobody'")
    bench.refused("show users nobody", ObjectNotFound, "'nobody'")
    for name, password in (("manage", PASSWORD), ("a:b", PASSWORD), ("berta", "short")):
        before = bench.state()
        with pytest.raises(BadParameter if name != "manage" else Exception):
            bench.do(f"create user {name}", secrets={"password": password})
        assert bench.state() == before


def test_the_system_tells_who_and_where_it_is(bench: Bench) -> None:
    (row,) = bench.do("show system", MONITOR).rows
    assert row["system-name"] == "London"
    assert row["nbd-address"] == "127.0.0.1:2"
    assert row["certificate-fingerprint"] == bench.system.authority.fingerprint
    (row,) = bench.do("show versions", MONITOR).rows
    assert row["bundle-version"] == __version__
    limits = {row["limit"]: row["value"] for row in bench.do("show limits", MONITOR).rows}
    assert limits["bytes in a name"] == "32"
    assert limits["size of a volume"] == "128 TiB"


def test_events_are_shown_newest_first_and_as_many_as_asked_for(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.do(f"create volume pool A size 1MiB {name}")
    rows = bench.do("show events last 2", MONITOR).rows
    assert ["Volume c" in str(rows[0]["message"]), "Volume b" in str(rows[1]["message"])] == [True, True]


def test_a_command_has_a_limit_in_words_and_letters(bench: Bench) -> None:
    for words in (["show"] * 300, ["show", "x" * 70_000]):
        with pytest.raises(BadParameter, match="at most 256 words"):
            execute(bench.system, Request(words), MANAGE)


def test_secrets_that_a_command_does_not_have_are_ignored(bench: Bench) -> None:
    assert bench.do("show users", secrets={"password": "x", "name": "y"}).rows


def test_commands_that_change_wait_for_each_other_and_others_do_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "CHANGING_WAIT_SECONDS", 0.05)
    with bench.system.changing:
        bench.refused("create volume pool A size 1MiB Sales", InUse, "another command")
        assert bench.names("show volumes") == []
    bench.do("create volume pool A size 1MiB Sales")
    bench.refused("create volume pool A size 1MiB Sales", NameInUse)
    assert not bench.system.changing.locked(), "a refused command lets the next one go on"


def test_names_are_given_once_however_many_ask_at_once(bench: Bench) -> None:
    done: list[str] = []

    def create() -> None:
        try:
            bench.do("create volume pool A size 1MiB Sales")
            done.append("done")
        except NameInUse as error:
            done.append(type(error).__name__)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == ["NameInUse", "NameInUse", "NameInUse", "done"]


def test_nothing_is_begun_while_the_system_stops(bench: Bench) -> None:
    bench.system.stopping.set()
    bench.refused("create volume pool A size 1MiB Sales", NotAllowed, "is stopping")
