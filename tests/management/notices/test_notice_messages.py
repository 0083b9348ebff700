"""What a notice says: many events in one message, within the limits of the service, the worst ones first kept."""

from __future__ import annotations

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.events import Severity
from offsite.management.events.event_log import Told
from offsite.management.notices.messages import EVENTS_MAX, compose, is_wanted

INFORMATIONAL, WARNING, ERROR, CRITICAL, RESOLVED = Severity
NOTHING_TO_DO = "- No action is required."


def told(severity: Severity, message: str, action: str = NOTHING_TO_DO, at: float = 0.0) -> Told:
    return Told(at, 583, severity, message, action)


def test_one_event_is_told_with_time_code_and_action() -> None:
    event = told(ERROR, "A run of SalesDR failed.", "- Replicate again.", at=1_795_341_600.0)
    message = compose("London", [event], 0, UTC, 250, 32768)
    assert message.title == "London: ERROR"
    assert message.body == "2026-11-22 10:00:00 ERROR [583] A run of SalesDR failed.\n  - Replicate again."
    assert message.severity is ERROR


def test_many_events_are_one_message_in_the_order_of_time() -> None:
    events = [told(INFORMATIONAL, "one"), told(CRITICAL, "two"), told(RESOLVED, "three")]
    message = compose("London", events, 0, UTC, 250, 32768)
    assert message.title == "London: 3 events, the worst CRITICAL"
    assert [line.split()[-1] for line in message.body.splitlines()] == ["one", "two", "three"]


def test_of_too_many_the_worst_are_told_and_the_others_counted() -> None:
    events = [told(INFORMATIONAL, f"small {n}") for n in range(200)] + [told(ERROR, "big")]
    message = compose("London", events, 9, UTC, 250, 32768)
    lines = message.body.splitlines()
    assert len(lines) == EVENTS_MAX + 1
    assert lines[-2].endswith("big")
    assert lines[-1] == f"and {201 + 9 - EVENTS_MAX} more; `show events` lists them"
    assert message.title == "London: 210 events, the worst ERROR"


def test_neither_a_name_nor_an_event_makes_a_line_of_its_own() -> None:
    message = compose("Lon\r\nBcc: x", [told(ERROR, "a\nb\x1b")], 0, UTC, 250, 32768)
    assert message.title == "Lon\\r\\nBcc: x: ERROR"
    assert message.body.splitlines()[0].endswith("a\\nb\\x1b")


@given(
    st.lists(st.builds(told, st.sampled_from(Severity), st.text(max_size=300)), min_size=1, max_size=80),
    st.integers(0, 5),
    st.sampled_from([0, 20, 250]),
    st.integers(140, 4000),
)
def test_a_message_keeps_to_the_limits_of_the_service(
    events: list[Told], left_out: int, title_characters: int, body_characters: int
) -> None:
    message = compose("London", events, left_out, UTC, title_characters, body_characters)
    assert len(message.title) <= title_characters
    assert len(message.body) <= body_characters
    order = [CRITICAL, ERROR, WARNING, RESOLVED, INFORMATIONAL]
    assert message.severity is min((each.severity for each in events), key=order.index)


@pytest.mark.parametrize(
    ("least", "wanted"),
    [
        (INFORMATIONAL, {INFORMATIONAL, WARNING, ERROR, CRITICAL, RESOLVED}),
        (WARNING, {WARNING, ERROR, CRITICAL, RESOLVED}),
        (ERROR, {ERROR, CRITICAL}),
        (CRITICAL, {CRITICAL}),
    ],
)
def test_resolved_is_sent_where_warnings_are(least: Severity, wanted: set[Severity]) -> None:
    assert {each for each in Severity if is_wanted(each, least)} == wanted
