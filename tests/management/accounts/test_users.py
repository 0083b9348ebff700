"""Users: hashes, limits on guessing, and that someone can always manage."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from argon2 import PasswordHasher

from offsite.errors import AuthenticationFailed, BadParameter, InUse, NameInUse, ObjectNotFound
from offsite.events import EventKind
from offsite.management.accounts import login_throttle
from offsite.management.accounts import users as module
from offsite.management.accounts.users import TooManyLogins, User, UserChanged, Users
from offsite.management.command_table.command import Role
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


def refused(place: Place, password: str, address: str) -> type[AuthenticationFailed] | None:
    try:
        place.users.authenticate("anna", password, address)
    except AuthenticationFailed as error:
        return type(error)
    return None


def test_after_some_failures_an_address_waits_even_with_the_right_password(place: Place) -> None:
    for _ in range(login_throttle.PAIR_MAX):
        assert refused(place, "wrong", "192.0.2.9") is AuthenticationFailed
    place.events.clear()
    with pytest.raises(TooManyLogins, match=r"of this user from 192\.0\.2\.9 failed; try again in 60 seconds"):
        place.users.authenticate("anna", PASSWORD, "192.0.2.9")
    for _ in range(20):
        assert refused(place, "wrong", "192.0.2.9") is TooManyLogins
    assert len(place.events) == 1, "who waits must not be able to flood the events"
    assert "are refused without a check" in place.events[0]
    assert refused(place, PASSWORD, "192.0.2.10") is None
    place.clock.seconds += 61
    assert refused(place, PASSWORD, "192.0.2.9") is None


@pytest.mark.parametrize("way", ["API", "peer port"])
def test_guesses_made_at_the_same_time_do_not_pass_the_limit_together(place: Place, way: str) -> None:
    """18 of 18 were checked, for each was counted only when it had failed."""
    checked = CountingHasher()
    users = Users(place.database, place.report, place.clock, checked)
    ask = users.authenticate if way == "API" else users.may_manage
    together = threading.Barrier(18)

    def guess() -> None:
        together.wait(30)
        with contextlib.suppress(AuthenticationFailed):
            ask("anna", "wrong", "192.0.2.9")

    threads = [threading.Thread(target=guess) for _ in range(18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 1 <= checked.count <= login_throttle.PAIR_MAX
    assert not users._waiting[False]


def test_guessing_from_very_many_addresses_is_slow_and_the_rightful_user_gets_in(place: Place) -> None:
    assert refused(place, PASSWORD, "192.0.2.1") is None
    outcomes = [refused(place, "wrong", f"198.51.{number // 250}.{number % 250}") for number in range(2000)]
    assert outcomes.count(AuthenticationFailed) == login_throttle.USER_MAX["new"]
    assert refused(place, PASSWORD, "192.0.2.1") is None, "who is known there gets in"
    assert refused(place, PASSWORD, "203.0.113.1") is TooManyLogins
    place.clock.seconds += 61
    assert refused(place, PASSWORD, "203.0.113.1") is None


def test_one_throttle_is_for_the_api_and_the_peer_port(place: Place) -> None:
    for _ in range(login_throttle.PAIR_MAX):
        assert not place.users.may_manage("anna", "wrong", "192.0.2.9")
    assert refused(place, PASSWORD, "192.0.2.9") is TooManyLogins
    with pytest.raises(TooManyLogins):
        place.users.may_manage("anna", PASSWORD, "192.0.2.9")


def test_right_logins_at_the_same_time_all_get_in(place: Place) -> None:
    """They wait for each other rather than being taken for guesses: scripts run many commands at once."""
    assert refused(place, PASSWORD, "192.0.2.9") is None
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(refused(place, PASSWORD, "192.0.2.9"))) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [None] * len(threads)


class CountingHasher(PasswordHasher):
    """Each check takes until `go` is set, if that is there, and fails."""

    def __init__(self, go: threading.Event | None = None) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.count = self.now = self.most = 0
        self._go = go
        self._lock = threading.Lock()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        with self._lock:
            self.count += 1
            self.now += 1
            self.most = max(self.most, self.now)
        if self._go is not None:
            assert self._go.wait(30)
        try:
            return super().verify(hash, password)
        finally:
            with self._lock:
                self.now -= 1


def test_few_passwords_are_checked_at_once_few_wait_and_who_is_known_waits_for_no_stranger(place: Place) -> None:
    go = threading.Event()
    hasher = CountingHasher(go)
    users = Users(place.database, place.report, place.clock, hasher)
    with place.database.read():
        known = users._throttle.ask("anna", "192.0.2.1", 1000.0)
        assert isinstance(known, login_throttle.Ticket)
        users._throttle.settle(known, "succeeded", 1000.0)
    outcomes: list[type[AuthenticationFailed] | None] = []

    def guess(number: int) -> None:
        try:
            users.authenticate(f"nobody {number}", "wrong", f"198.51.100.{number}")
        except AuthenticationFailed as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    found: list[User] = []
    rightful = threading.Thread(target=lambda: found.append(users.authenticate("anna", PASSWORD, "192.0.2.1")))
    deadline = time.monotonic() + 30
    turned_away = 40 - module.VERIFICATIONS_AT_ONCE - module.WAITING_MAX[False]
    while len(outcomes) < turned_away:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert outcomes == [TooManyLogins] * turned_away
    rightful.start()
    while hasher.now < module.VERIFICATIONS_AT_ONCE + 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    go.set()
    for thread in (*threads, rightful):
        thread.join(60)
    assert [user.name for user in found] == ["anna"]
    assert hasher.most == module.VERIFICATIONS_AT_ONCE + 1


def test_who_waits_too_long_for_a_check_is_turned_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.01)
    for _ in range(module.VERIFICATIONS_AT_ONCE):
        place.users._verifications[False].acquire()
    with pytest.raises(TooManyLogins, match="are being checked; try again"):
        place.users.authenticate("anna", PASSWORD, "here")
    assert not any(each.failed or each.pending for each in place.users._throttle._counts.values())


def test_a_user_who_is_changed_while_their_password_is_checked_does_not_get_in(place: Place) -> None:
    go = threading.Event()
    users = Users(place.database, place.report, place.clock, hasher := CountingHasher(go))
    place.users.create("otto", PASSWORD, Role.MANAGE)
    outcomes: list[object] = []

    def log_in() -> None:
        try:
            outcomes.append(users.authenticate("otto", PASSWORD, "here"))
        except AuthenticationFailed as error:
            outcomes.append(type(error))

    thread = threading.Thread(target=log_in)
    thread.start()
    deadline = time.monotonic() + 30
    while not hasher.now:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    place.users.set_role("otto", Role.MONITOR)
    go.set()
    thread.join(30)
    assert outcomes == [UserChanged]


def test_the_name_of_whoever_uses_the_control_socket_is_no_name_of_a_user(place: Place) -> None:
    """An event that says so must not be about someone else."""
    with pytest.raises(BadParameter, match="'local' is reserved for users of the control socket"):
        place.users.create("local", PASSWORD, Role.MONITOR)


def test_only_who_manages_may_connect_systems(place: Place) -> None:
    place.users.create("otto", PASSWORD, Role.MONITOR)
    assert place.users.may_manage("anna", PASSWORD, "192.0.2.1")
    assert not place.users.may_manage("otto", PASSWORD, "192.0.2.1")
    assert not place.users.may_manage("anna", "wrong", "192.0.2.1")
    assert place.events[-1] == "A login as 'anna' from a system at 192.0.2.1 failed."


def test_a_right_password_of_who_may_not_manage_counts_as_a_wrong_one(place: Place) -> None:
    """Else a peer port could be used to find passwords: who has found one would never be stopped."""
    place.users.create("otto", PASSWORD, Role.MONITOR)
    for _ in range(login_throttle.PAIR_MAX):
        assert not place.users.may_manage("otto", PASSWORD, "192.0.2.9")
    with pytest.raises(TooManyLogins):
        place.users.may_manage("otto", PASSWORD, "192.0.2.9")


@pytest.mark.parametrize(
    ("name", "password", "rule"),
    [
        ("a,b", PASSWORD, "','"),
        ("a:b", PASSWORD, "':'"),
        ("x" * 33, PASSWORD, "33 bytes"),
        ("berta", "short", "5 bytes; 8 to 256"),
        ("berta", "x" * 257, "257 bytes; 8 to 256"),
        ("berta", "tab\tin password", "unprintable characters"),
        ("berta", "bytes \udcff in it", "unprintable characters"),
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
