"""A request and its answer, without I/O: what to send, how long to wait, what counts as an answer.

A generator that yields Transmit and Receive and is sent what was received: see transfer.sender.machine.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from offsite.clock import Clock
from offsite.errors import PeerUnreachable, ProtocolError
from offsite.replication.wire.errors import to_error
from offsite.replication.wire.messages import AnyMessage, Failed, Message, Working

SILENCE_SECONDS = 30.0
ANSWER_SECONDS = 600.0
WORKING_SECONDS = 5.0  # how often someone who works on an answer says so


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a message. Gets None."""

    message: AnyMessage


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait for a message. Gets it, or None when the time is over."""

    timeout_seconds: float


M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Asking:
    """Requests to one remote system. `remote` is its name, for sentences."""

    remote: str
    clock: Clock
    silence_seconds: float = SILENCE_SECONDS
    answer_seconds: float = ANSWER_SECONDS

    def request(self, message: AnyMessage, expected: type[M]) -> Generator[Transmit | Receive, object, M]:
        """The answer to `message`, waited for as long as the other side shows that it lives.

        Raises PeerUnreachable after silence, the error that the other side tells, or ProtocolError.
        """
        yield Transmit(message)
        deadline = self.clock.monotonic() + self.answer_seconds
        while True:
            answer = self.heard((yield Receive(self.silence_seconds)))
            if isinstance(answer, expected):
                return answer
            if not isinstance(answer, Working):
                raise ProtocolError(f"{self.remote} answered a {type(message).__name__} with a {type(answer).__name__}")
            if self.clock.monotonic() > deadline:
                raise PeerUnreachable(
                    f"timeout: {self.remote} has not finished a {type(message).__name__} within "
                    f"{self.answer_seconds:.0f} s"
                )

    def heard(self, answer: object) -> Message:
        """A message that came instead of silence, and tells of no failure."""
        if answer is None:
            raise PeerUnreachable(f"timeout: received nothing from {self.remote} for {self.silence_seconds:.0f} s")
        if isinstance(answer, Failed):
            raise to_error(answer, self.remote)
        assert isinstance(answer, Message)
        return answer
