"""Users: hashes, limits on guessing, and that someone can always manage."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.errors import AuthenticationFailed, BadParameter, InUse, NameInUse, ObjectNotFound
from offsite.events import EventKind
from offsite.management import users as module
from offsite.management.table import Role
from offsite.management.users import User, Users
from offsite.store.database import Database
from tests.management.management_bench import CHEAP_HASHER, new_database

PASSWORD = "correct horse"


class OwnedClock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class Place:
    def __init__(self, directory: Path) -> None:
        self.events: list[str] = []
        self.clock = OwnedClock()
        (directory / "state.db").write_bytes(new_database())
        self.database = Database(directory / "state.db")
        self.users = Users(self.database, self.report, self.clock, CHEAP_HASHER)

    def report(self, _kind: EventKind, message: str) -> None:
        self.events.append(message)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    made.users.create("anna", PASSWORD, Role.MANAGE)
    yield made
    made.database.close()


def test_a_password_is_kept_as_an_argon2id_hash_and_told_nowhere(place: Place) -> None:
    with place.database.read() as connection:
        (stored,) = connection.exec_driver_sql("SELECT password_hash FROM users").one()
    assert stored.startswith("$argon2id$")
    assert PASSWORD not in stored
    assert all(PASSWORD not in message for message in place.events)


def test_the_right_password_lets_in_and_nothing_else_does(place: Place) -> None:
    assert place.users.authenticate("anna", PASSWORD, "here") == User("anna", Role.MANAGE)
    sentences = set()
    for name, password in (("anna", "wrong"), ("nobody", PASSWORD), ("", ""), ("anna", "x" * 100_000)):
        with pytest.raises(AuthenticationFailed) as refusal:
            place.users.authenticate(name, password, name + password[:9])
        sentences.add(str(refusal.value))
    assert len(sentences) == 1, "the sentence must not tell whether the user exists"
    assert place.events[-1].startswith("A login as 'anna' from annaxxx")


def test_by_default_a_hash_is_as_costly_as_rfc_9106_wants(place: Place) -> None:
    users = Users(place.database, place.report, place.clock)
    users.set_password("anna", PASSWORD)
    with place.database.read() as connection:
        (stored,) = connection.exec_driver_sql("SELECT password_hash FROM users").one()
    assert "$m=65536,t=3,p=4$" in stored


@pytest.mark.slow
def test_an_unknown_user_costs_as_much_time_as_a_wrong_password(place: Place) -> None:
    users = Users(place.database, place.report, place.clock)
    users.set_password("anna", PASSWORD)

    def seconds(name: str) -> float:
        times = []
        for attempt in range(3):
            begun = time.perf_counter()
            with pytest.raises(AuthenticationFailed):
                users.authenticate(name, "wrong", f"{name}{attempt}")
            times.append(time.perf_counter() - begun)
        return min(times)

    assert seconds("nobody") > 0.3 * seconds("anna")


def test_after_some_failures_a_source_waits_even_with_the_right_password(place: Place) -> None:
    for _ in range(module.FAILURES_MAX):
        with pytest.raises(AuthenticationFailed, match="wrong"):
            place.users.authenticate("anna", "wrong", "192.0.2.9")
    events = len(place.events)
    with pytest.raises(AuthenticationFailed, match="try again in 30 seconds"):
        place.users.authenticate("anna", PASSWORD, "192.0.2.9")
    assert len(place.events) == events, "who waits must not be able to flood the events"
    assert place.users.authenticate("anna", PASSWORD, "192.0.2.10").name == "anna"
    place.clock.seconds += module.PAUSE_SECONDS + 1
    assert place.users.authenticate("anna", PASSWORD, "192.0.2.9").name == "anna"


def test_sources_that_failed_are_remembered_only_so_many(place: Place) -> None:
    failures = module.Failures(place.clock)
    for number in range(module.SOURCES_MAX + 10):
        failures.add(str(number))
    assert len(failures._of) == module.SOURCES_MAX


def test_too_many_checks_at_once_are_turned_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VERIFICATION_WAIT_SECONDS", 0.01)
    for _ in range(module.VERIFICATIONS_AT_ONCE):
        place.users._verifications.acquire()
    with pytest.raises(AuthenticationFailed, match="too many"):
        place.users.authenticate("anna", PASSWORD, "here")


def test_only_who_manages_may_connect_systems(place: Place) -> None:
    place.users.create("otto", PASSWORD, Role.MONITOR)
    assert place.users.may_manage("anna", PASSWORD)
    assert not place.users.may_manage("otto", PASSWORD)
    assert not place.users.may_manage("anna", "wrong")
    assert place.events[-1] == "A login as 'anna' from another system failed."


@pytest.mark.parametrize(
    ("name", "password", "rule"),
    [
        ("a,b", PASSWORD, "','"),
        ("a:b", PASSWORD, "':'"),
        ("x" * 33, PASSWORD, "33 bytes"),
        ("berta", "short", "5 bytes; 8 to 256"),
        ("berta", "x" * 257, "257 bytes; 8 to 256"),
        ("berta", "tab\tin password", "cannot be printed"),
    ],
)
def test_a_bad_name_or_password_is_refused(place: Place, name: str, password: str, rule: str) -> None:
    with pytest.raises(BadParameter) as refusal:
        place.users.create(name, password, Role.MONITOR)
    assert rule in str(refusal.value)
    assert password not in str(refusal.value)
    assert len(place.users.all()) == 1


def test_names_are_unique_and_users_have_a_limit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NameInUse, match="'anna'"):
        place.users.create("anna", PASSWORD, Role.MONITOR)
    monkeypatch.setattr(module, "USERS_MAX", 1)
    with pytest.raises(InUse, match="1 users"):
        place.users.create("berta", PASSWORD, Role.MONITOR)


def test_one_who_manages_has_to_remain(place: Place) -> None:
    place.users.create("otto", PASSWORD, Role.MONITOR)
    with pytest.raises(InUse, match="'anna' is the last one"):
        place.users.delete("anna")
    with pytest.raises(InUse, match="'anna' is the last one"):
        place.users.set_role("anna", Role.MONITOR)
    assert place.users.get("anna").role is Role.MANAGE
    place.users.set_role("otto", Role.MANAGE)
    place.users.delete("anna")
    assert [user.name for user in place.users.all()] == ["otto"]


def test_what_is_done_to_nobody_is_refused(place: Place) -> None:
    for attempt in (
        lambda: place.users.delete("nobody"),
        lambda: place.users.set_password("nobody", PASSWORD),
        lambda: place.users.set_role("nobody", Role.MANAGE),
        lambda: place.users.get("nobody"),
    ):
        with pytest.raises(ObjectNotFound, match="'nobody'"):
            attempt()


def test_a_new_password_replaces_the_old_one(place: Place) -> None:
    place.users.set_password("anna", "another password")
    assert place.users.authenticate("anna", "another password", "here").name == "anna"
    with pytest.raises(AuthenticationFailed):
        place.users.authenticate("anna", PASSWORD, "here")


def test_users_may_be_asked_by_many_threads(place: Place) -> None:
    found: list[User] = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(place.users.authenticate("anna", PASSWORD, str(i))))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4
