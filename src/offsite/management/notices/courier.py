"""The thread that sends the events of one notice, so that a slow service delays nobody else.

           event                  2 s, and the interval              sent
    idle ────────▶ gathering ──────────────────────────▶ sending ─────────────▶ idle
                       ▲       since the last message     │  │ failed four times
                       │                                  │  └──────────────────▶ given up: told, counted ─▶ idle
                       └── 10 s, 1 min, 5 min later ◀─────┘ failed

What comes while a message waits joins it. What waits is bounded: the newest are left out, and counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Protocol

import structlog

from offsite.clock import Clock
from offsite.errors import OffsiteError
from offsite.events import Severity
from offsite.management.events.event_log import Told
from offsite.management.notices.messages import compose, rank
from offsite.management.notices.urls import NoticeNotSent

WAITING_MAX = 1_000

_log = structlog.get_logger("offsite.notices")


@dataclass(frozen=True, slots=True)
class Pace:
    gather_seconds: float = 2.0  # from the first event to a message: most come together
    retry_seconds: tuple[float, ...] = (10.0, 60.0, 300.0)  # after failures, until it is given up
    deadline_seconds: float = 30.0  # for one try


class Sender(Protocol):
    """The service that messages go to."""

    @property
    def title_characters(self) -> int: ...

    @property
    def body_characters(self) -> int: ...

    def send(self, title: str, body: str, severity: Severity) -> None:
        """Raises NoticeNotSent."""
        ...


@dataclass(frozen=True, slots=True)
class Deliveries:
    """How a notice has done since the system was started."""

    sent: int = 0  # messages
    failed: int = 0  # messages that were given up
    left_out: int = 0  # events that were only counted, for too many waited
    last_sent_at: float | None = None
    error: str = ""  # of the last try; none: it went well


class Courier:
    """Sends what it is told. `open_service` makes the service when it is needed first, or at once with `check_first`;
    `changed` hears of a message given up, with the reason, and of the first that went well after that, with none."""

    def __init__(
        self,
        name: str,
        system_name: str,
        open_service: Callable[[], Sender],
        interval_seconds: Callable[[], float],
        zone: Callable[[], tzinfo],
        changed: Callable[[str | None], None],
        clock: Clock,
        pace: Pace,
        *,
        check_first: bool = False,
    ) -> None:
        self._name = name
        self._system_name = system_name
        self._open_service = open_service
        self._interval_seconds = interval_seconds
        self._zone = zone
        self._tell_change = changed
        self._clock = clock
        self._pace = pace
        self._check_first = check_first
        self._changed = threading.Condition()
        self._waiting: deque[Told] = deque()
        self._under_way = 0  # how many of them are in the message that is being sent
        self._left_out = 0  # of what waits
        self._stopping = False
        self._sending = threading.Lock()
        self._service: Sender | None = None
        self._done = Deliveries()
        self._given_up = False
        self._next_at = 0.0  # monotonic: the next message goes out no sooner
        self._thread = threading.Thread(target=self._run, name=f"notice-{name}", daemon=True)
        self._thread.start()

    def tell(self, event: Told) -> None:
        """Never waits."""
        with self._changed:
            self._waiting.append(event)
            if len(self._waiting) > WAITING_MAX:
                self._leave_out_least()
            self._changed.notify_all()

    def _leave_out_least(self) -> None:
        """With `_changed` held: of what waits beyond what is under way, the newest of the least severity, so that no
        number of failed logins keeps from the operator that a disk has failed."""
        least = min(range(self._under_way, len(self._waiting)), key=lambda at: (rank(self._waiting[at].severity), -at))
        del self._waiting[least]
        self._left_out += 1

    def deliveries(self) -> Deliveries:
        with self._changed:
            return self._done

    def send_now(self, event: Told) -> None:
        """One try, at once, beside what waits. Raises NoticeNotSent."""
        self._try([event], 0)
        self._note(sent=True)

    def stop(self) -> None:
        """Has what waits tried once more, at once, and the thread end; `join` waits for it."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, timeout_seconds: float) -> None:
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        if self._check_first:
            self._open_now()
        while self._gather():
            self._send_waiting()

    def _open_now(self) -> None:
        """A notice that cannot be sent as it is on record is told at once, not when it is needed."""
        try:
            self._service = self._open_service()
        except OffsiteError as error:
            with self._changed:
                self._done = replace(self._done, error=str(error))
                self._given_up = True
            self._tell_change(str(error))

    def _gather(self) -> bool:
        """Returns when a message is due; False when there is none, and none will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if self._waiting:
                self._pause(max(self._pace.gather_seconds, self._next_at - self._clock.monotonic()))
            return bool(self._waiting)

    def _send_waiting(self) -> None:
        """Sends all that waits as one message, or gives it up."""
        for retry_seconds in (*self._pace.retry_seconds, None):
            with self._changed:
                events, left_out = list(self._waiting), self._left_out
                self._under_way = len(events)
            try:
                self._try(events, left_out)
            except NoticeNotSent as error:
                last = retry_seconds is None or self._stopping
                _log.warning("cannot send a notice", notice=self._name, reason=str(error), given_up=last)
                self._note(error=str(error), given_up=last)
                if not last:
                    with self._changed:
                        self._pause(retry_seconds or 0)
                    continue
            else:
                self._note(sent=True)
            self._forget(len(events), left_out)
            return

    def _pause(self, seconds: float) -> None:
        """With `_changed` held. A stop ends it."""
        self._changed.wait_for(lambda: self._stopping, seconds)

    def _forget(self, events: int, left_out: int) -> None:
        """What was in a message that is done with: others may have come since."""
        next_at = self._clock.monotonic() + self._interval_seconds()
        with self._changed:
            for _ in range(events):
                self._waiting.popleft()
            self._under_way = 0
            self._left_out -= left_out
            self._next_at = next_at
            self._done = replace(self._done, left_out=self._done.left_out + left_out)

    def _note(self, *, sent: bool = False, error: str = "", given_up: bool = False) -> None:
        with self._changed:
            done, was_given_up = self._done, self._given_up
            self._done = replace(
                done,
                sent=done.sent + sent,
                failed=done.failed + given_up,
                last_sent_at=self._clock.now() if sent else done.last_sent_at,
                error=error,
            )
            self._given_up = given_up or (was_given_up and not sent)
        if self._given_up != was_given_up:
            self._tell_change(error or None)

    def _try(self, events: Sequence[Told], left_out: int) -> None:
        """One try, in a thread that is left alone when its time is over: no call into a library can be cut off.
        Until that thread ends there is no other. Raises NoticeNotSent."""
        if not self._sending.acquire(timeout=self._pace.deadline_seconds):
            raise NoticeNotSent("an earlier message is still being sent")
        outcome: list[OffsiteError | None] = []
        thread = threading.Thread(
            target=self._send, args=(events, left_out, outcome), name=f"send-{self._name}", daemon=True
        )
        thread.start()
        thread.join(self._pace.deadline_seconds)
        if not outcome:
            raise NoticeNotSent(f"timeout: no answer from the service within {self._pace.deadline_seconds:g} seconds")
        if outcome[0] is not None:
            raise NoticeNotSent(str(outcome[0]))

    def _send(self, events: Sequence[Told], left_out: int, outcome: list[OffsiteError | None]) -> None:
        try:
            self._service = service = self._service or self._open_service()
            message = compose(
                self._system_name, events, left_out, self._zone(), service.title_characters, service.body_characters
            )
            service.send(message.title, message.body, message.severity)
            outcome.append(None)
        except OffsiteError as error:  # also of a URL that this version of apprise does not know any more
            outcome.append(error)
        finally:
            self._sending.release()
