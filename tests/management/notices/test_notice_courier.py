"""The thread of a notice: it joins, paces, retries, gives up, and never makes who tells wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC

import pytest

from offsite.clock import SystemClock
from offsite.errors import BadParameter
from offsite.events import Severity
from offsite.management.events.event_log import Told
from offsite.management.notices import courier
from offsite.management.notices.courier import Courier, Pace
from offsite.management.notices.urls import NoticeNotSent
from tests.systems import wait_until

SECONDS = 10.0


class FakeService:
    """Takes messages, or does with them what a test wants."""

    title_characters, body_characters = 250, 32768

    def __init__(self) -> None:
        self.messages: list[tuple[str, str, Severity]] = []
        self.at: list[float] = []
        self.tries = 0
        self.failures_left = 0
        self.hang: threading.Event | None = None

    def send(self, title: str, body: str, severity: Severity) -> None:
        self.tries += 1
        self.at.append(time.monotonic())
        if self.hang is not None:
            self.hang.wait(SECONDS)
        if self.failures_left:
            self.failures_left -= 1
            raise NoticeNotSent("the service did not accept the message: no room")
        self.messages.append((title, body, severity))

    @property
    def told(self) -> list[str]:
        """All events in all messages."""
        return [line.split()[-1] for _, body, _ in self.messages for line in body.splitlines()]


class Post:
    """A courier, the service that it sends to, and what it said of how it went."""

    def __init__(self, stack: ExitStack, interval_seconds: float, pace: Pace) -> None:
        self.service = FakeService()
        self.changes: list[str | None] = []
        self.courier = Courier(
            name="operators",
            system_name="London",
            open_service=lambda: self.service,
            interval_seconds=lambda: interval_seconds,
            zone=lambda: UTC,
            changed=self.changes.append,
            clock=SystemClock(),
            pace=pace,
        )
        stack.callback(self.courier.join, SECONDS)
        stack.callback(self.courier.stop)

    def tell(self, *messages: str) -> None:
        for message in messages:
            self.courier.tell(Told(0.0, 583, Severity.ERROR, message, "- No action is required."))


MakePost = Callable[..., Post]
QUICK = Pace(gather_seconds=0.05, retry_seconds=(0.05, 0.05, 0.05), deadline_seconds=5)


@pytest.fixture
def post() -> Iterator[MakePost]:
    with ExitStack() as stack:
        yield lambda interval_seconds=0.0, pace=QUICK: Post(stack, interval_seconds, pace)


def test_events_of_a_short_time_are_one_message(post: MakePost) -> None:
    here = post(pace=Pace(gather_seconds=0.5))
    here.tell("one", "two")
    here.tell("three")
    wait_until("it is sent", lambda: here.courier.deliveries().sent == 1)
    assert here.service.told == ["one", "two", "three"]
    assert here.service.messages[0][0] == "London: 3 events, the worst ERROR"
    assert here.service.messages[0][2] is Severity.ERROR


def test_between_two_messages_there_is_the_interval(post: MakePost) -> None:
    here = post(interval_seconds=1.0)
    here.tell("one")
    wait_until("the first is sent", lambda: here.courier.deliveries().sent == 1)
    for number in range(100):
        here.tell(str(number))
    wait_until("the second is sent", lambda: here.courier.deliveries().sent == 2)
    assert here.service.at[1] - here.service.at[0] >= 1.0
    assert len(here.service.messages) == 2, "a hundred events are one message"


def test_telling_never_waits_and_what_waits_is_bounded(post: MakePost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "WAITING_MAX", 20)
    here = post()
    here.service.hang = threading.Event()
    here.tell("first")
    wait_until("it is being sent", lambda: here.service.tries == 1)
    begun = time.perf_counter()
    here.tell(*map(str, range(50)))
    assert time.perf_counter() - begun < 1
    here.service.hang.set()
    wait_until("all is sent", lambda: here.courier.deliveries().sent == 2)
    assert "and 31 more" in here.service.messages[1][1]
    assert here.service.messages[1][0].startswith("London: 50 events")
    assert here.courier.deliveries().left_out == 31


def test_of_too_many_events_the_least_are_left_out(post: MakePost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed logins must not keep from the operator that a disk has failed."""
    monkeypatch.setattr(courier, "WAITING_MAX", 20)
    here = post()
    here.service.hang = threading.Event()
    here.tell("first")
    wait_until("it is being sent", lambda: here.service.tries == 1)
    for number in range(100):
        here.courier.tell(Told(0.0, 603, Severity.WARNING, f"noise{number}", "- No action is required."))
    here.courier.tell(Told(0.0, 569, Severity.CRITICAL, "disk", "- No action is required."))
    here.service.hang.set()
    wait_until("all is sent", lambda: here.courier.deliveries().sent == 2)
    assert here.service.told[:3] == ["first", "noise0", "noise1"]
    assert "disk" in here.service.told
    assert here.courier.deliveries().left_out == 82


def test_a_failure_is_tried_again_and_what_came_meanwhile_joins(post: MakePost) -> None:
    here = post(pace=Pace(gather_seconds=0.0, retry_seconds=(0.3, 0.3), deadline_seconds=5))
    here.service.failures_left = 1
    here.tell("one")
    wait_until("it failed", lambda: here.courier.deliveries().error != "")
    here.tell("two")
    wait_until("it is sent", lambda: here.courier.deliveries().sent == 1)
    assert here.service.told == ["one", "two"]
    done = here.courier.deliveries()
    assert (done.sent, done.failed, done.error) == (1, 0, "")
    assert here.changes == [], "nobody has to act"


def test_it_gives_up_after_some_tries_says_so_once_and_says_when_it_goes_again(post: MakePost) -> None:
    here = post()
    here.service.failures_left = 8
    here.tell("lost")
    wait_until("it was given up", lambda: here.courier.deliveries().failed == 1)
    assert here.service.tries == 4
    here.tell("lost too")
    wait_until("it was given up again", lambda: here.courier.deliveries().failed == 2)
    assert here.changes == ["the service did not accept the message: no room"]
    here.tell("kept")
    wait_until("it is sent", lambda: here.courier.deliveries().sent == 1)
    assert here.service.told == ["kept"]
    assert here.changes == ["the service did not accept the message: no room", None]


def test_a_service_that_does_not_answer_is_a_failure_and_gets_no_second_message_meanwhile(post: MakePost) -> None:
    here = post(pace=Pace(gather_seconds=0.0, retry_seconds=(0.1,), deadline_seconds=0.2))
    here.service.hang = threading.Event()
    here.tell("one")
    wait_until("it was given up", lambda: here.courier.deliveries().failed == 1)
    assert here.service.tries == 1, "one thread waits for the service, not one for each try"
    assert here.courier.deliveries().error == "an earlier message is still being sent"
    with pytest.raises(NoticeNotSent, match="still being sent"):
        here.courier.send_now(Told(0.0, 640, Severity.INFORMATIONAL, "test", ""))
    here.service.hang.set()
    here.service.hang = None
    here.tell("two")
    wait_until("it goes on", lambda: "two" in here.service.told)


def test_no_answer_is_told_with_the_time_it_was_waited_for(post: MakePost) -> None:
    here = post(pace=Pace(deadline_seconds=0.1))
    here.service.hang = threading.Event()
    with pytest.raises(NoticeNotSent, match=r"no answer from the service within 0\.1 seconds"):
        here.courier.send_now(Told(0.0, 640, Severity.INFORMATIONAL, "test", ""))
    here.service.hang.set()


def test_a_url_that_is_not_known_any_more_is_a_failure(post: MakePost) -> None:
    """After an upgrade of apprise, say: the system has to start all the same."""
    here = post()

    def unknown() -> FakeService:
        raise BadParameter("invalid json:// URL")

    here.courier._open_service = unknown
    here.tell("one")
    wait_until("it was given up", lambda: here.courier.deliveries().failed == 1)
    assert here.changes == ["invalid json:// URL"]


def test_a_stop_has_what_waits_sent_at_once(post: MakePost) -> None:
    here = post(interval_seconds=3600, pace=Pace(gather_seconds=3600))
    here.tell("The system is being stopped.")
    begun = time.perf_counter()
    here.courier.stop()
    here.courier.join(SECONDS)
    assert time.perf_counter() - begun < 5
    assert here.service.told == ["stopped."]


def test_a_stop_tries_once_more_at_most(post: MakePost) -> None:
    here = post(pace=Pace(gather_seconds=0.0, retry_seconds=(3600,)))
    here.service.failures_left = 100
    here.tell("one")
    wait_until("it failed", lambda: here.service.tries == 1)
    here.courier.stop()
    here.courier.join(SECONDS)
    assert here.service.tries <= 2
    assert here.courier.deliveries().failed == 1
