"""Limits on guessing: whose attempts count for what, and that the memory of them is bounded."""

from __future__ import annotations

import pytest

from offsite.admission import network_of
from offsite.management.accounts import login_throttle as module
from offsite.management.accounts.login_throttle import Outcome, Refusal, Throttle, Ticket


def attempt(throttle: Throttle, name: str, address: str, now: float, outcome: Outcome = "failed") -> bool:
    """Whether it was let through."""
    asked = throttle.ask(name, address, now)
    if isinstance(asked, Ticket):
        throttle.settle(asked, outcome, now)
    return isinstance(asked, Ticket)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::7", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_a_network_is_what_one_host_may_have(address: str, network: str) -> None:
    assert network_of(address) == network


def test_an_attempt_counts_before_its_outcome_is_known() -> None:
    throttle = Throttle()
    tickets = [throttle.ask("anna", "192.0.2.7", 0) for _ in range(module.PAIR_MAX)]
    assert all(isinstance(each, Ticket) for each in tickets)
    assert throttle.ask("anna", "192.0.2.7", 0) is None, "it depends on those under way"
    first, *others = [each for each in tickets if isinstance(each, Ticket)]
    throttle.settle(first, "not checked", 1)
    again = throttle.ask("anna", "192.0.2.7", 1)
    assert isinstance(again, Ticket)
    for each in (again, *others):
        throttle.settle(each, "failed", 2)
    refusal = throttle.ask("anna", "192.0.2.7", 3)
    assert isinstance(refusal, Refusal)
    assert refusal.wait_seconds == pytest.approx(59)


def test_the_window_slides_and_a_success_clears_only_its_own_pair() -> None:
    throttle = Throttle()
    for second in range(module.PAIR_MAX):
        assert attempt(throttle, "anna", "192.0.2.7", second)
    refusal = throttle.ask("anna", "192.0.2.7", 59.5)
    assert isinstance(refusal, Refusal)
    assert refusal.wait_seconds == pytest.approx(0.5), "until the oldest attempt counts no more"
    assert attempt(throttle, "anna", "192.0.2.7", 60)
    assert not attempt(throttle, "anna", "192.0.2.7", 60)
    assert attempt(throttle, "otto", "192.0.2.7", 60, "succeeded")
    assert not attempt(throttle, "anna", "192.0.2.7", 60), "a guesser's own login gives no new guesses at others"
    assert attempt(throttle, "anna", "192.0.2.7", 61, "succeeded")
    assert all(attempt(throttle, "anna", "192.0.2.7", 61) for _ in range(module.PAIR_MAX))


def test_a_64_is_one_address() -> None:
    throttle = Throttle()
    made = sum(attempt(throttle, "anna", f"2001:db8::{number:x}", 0) for number in range(1000))
    assert made == module.PAIR_MAX


def test_one_address_that_tries_many_names_has_a_limit() -> None:
    throttle = Throttle()
    assert sum(attempt(throttle, f"name {number}", "192.0.2.7", 0) for number in range(1000)) == module.NETWORK_MAX
    assert attempt(throttle, "anna", "192.0.2.8", 0), "others have not"


def test_a_guessers_own_login_gives_no_new_guesses_at_many_names_either() -> None:
    throttle = Throttle()
    guesses = sum(attempt(throttle, f"name {number}", "192.0.2.7", 0) for number in range(10))
    assert attempt(throttle, "otto", "192.0.2.7", 0, "succeeded")
    guesses += sum(attempt(throttle, f"name {number}", "192.0.2.7", 0) for number in range(10, 1000))
    assert guesses == module.NETWORK_MAX


def test_a_handful_of_addresses_take_nothing_from_who_comes_from_a_new_one() -> None:
    throttle = Throttle()
    guesses = sum(
        attempt(throttle, "anna", f"198.51.100.{number % 12}", second) for second in range(60) for number in range(100)
    )
    assert guesses <= module.USER_MAX["failed"] + 12
    assert attempt(throttle, "anna", "203.0.113.1", 59, "succeeded")


def test_from_any_number_of_addresses_guesses_at_one_user_are_few_and_a_known_user_gets_in() -> None:
    throttle = Throttle()
    assert attempt(throttle, "anna", "192.0.2.1", 0, "succeeded")
    guesses = 0
    for minute in range(1, 11):
        now = minute * 60.0
        guesses += sum(
            attempt(throttle, "anna", f"10.{minute}.{number // 250}.{number % 250}", now) for number in range(1000)
        )
        assert attempt(throttle, "anna", "192.0.2.1", now, "succeeded")
    assert guesses <= 10 * (module.USER_MAX["new"] + module.USER_MAX["failed"])


def test_many_names_from_many_addresses_have_a_limit_and_are_remembered_only_so_long() -> None:
    throttle = Throttle()
    for minute in range(70):
        made = 0
        for number in range(1000):
            address = f"10.{minute}.{number // 250}.{number % 250}"
            made += attempt(throttle, f"name {minute} {number}", address, minute * 60.0)
        assert made == module.ALL_MAX["new"]
        assert len(throttle._counts) <= 4 * module.ALL_MAX["new"] + 2
    assert len(throttle._failed) <= 61 * module.ALL_MAX["new"]
    assert len(throttle._told) <= 2
    assert throttle.ask("anna", "192.0.2.1", 1e9) is not None
    assert len(throttle._counts) == 4, "what is over is forgotten"


def test_where_users_are_known_is_bounded_and_nobody_pushes_out_where_others_are() -> None:
    throttle = Throttle()
    attempt(throttle, "anna", "192.0.2.1", 0, "succeeded")
    for number in range(1000):
        attempt(throttle, "otto", f"2001:db8:0:{number:x}::1", 0, "succeeded")
    asked = throttle.ask("anna", "192.0.2.1", 1)
    assert isinstance(asked, Ticket) and asked.is_known
    assert len(throttle._known["otto"]) == module.KNOWN_OF_USER_MAX
    late = throttle.ask("anna", "192.0.2.1", module.KNOWN_SECONDS + 1)
    assert isinstance(late, Ticket) and not late.is_known


def test_all_that_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("NETWORKS_MAX", "KNOWN_USERS_MAX", "REFUSALS_MAX"):
        monkeypatch.setattr(module, bound, 3)
    throttle = Throttle()
    for number in range(9):
        for _ in range(module.PAIR_MAX + 1):
            attempt(throttle, f"name {number}", f"192.0.2.{number}", 0)
        assert attempt(throttle, f"name {number}", f"198.51.100.{number}", 0, "succeeded")
    assert (len(throttle._failed), len(throttle._known), len(throttle._told)) == (3, 3, 3)


def test_the_login_that_is_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the first one: that may be where a user logs in every day."""
    monkeypatch.setattr(module, "KNOWN_USERS_MAX", 2)
    monkeypatch.setattr(module, "KNOWN_OF_USER_MAX", 2)
    throttle = Throttle()
    for name in ("anna", "otto", "anna", "carl"):
        assert attempt(throttle, name, "192.0.2.1", 0, "succeeded")
    assert list(throttle._known) == ["anna", "carl"]
    for last in (2, 1, 3):
        assert attempt(throttle, "anna", f"192.0.2.{last}", 0, "succeeded")
    assert list(throttle._known["anna"]) == ["192.0.2.1", "192.0.2.3"]


def test_that_attempts_are_refused_is_told_once_in_a_while() -> None:
    throttle = Throttle()
    for _ in range(module.PAIR_MAX):
        attempt(throttle, "anna", "192.0.2.1", 0)
    refusals = [throttle.ask("anna", "192.0.2.1", second) for second in (1, 2, 3)]
    assert [each.is_first for each in refusals if isinstance(each, Refusal)] == [True, False, False]
    later = 1 + module.TELL_SECONDS
    for _ in range(module.PAIR_MAX):
        attempt(throttle, "anna", "192.0.2.1", later)
    again = throttle.ask("anna", "192.0.2.1", later)
    assert isinstance(again, Refusal) and again.is_first
