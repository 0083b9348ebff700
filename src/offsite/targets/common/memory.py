"""How much memory the replies of all connections may take together, beside the fixed buffers of each.

Only what is read in the background and replies longer than the fixed buffer need it: no other request comes here.

    take_now ──▶ held ──give──▶ free          who holds nothing may `wait`: hosts take turns, whatever each asks for
       └─ no ──▶ wait ──▶ held

Who holds some never waits for more: it sends what it has first. So all that is held comes back, after the disk's own
time and the deadlines of sending, which are shorter while somebody waits: see channel.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

BUDGET_BYTES = 256 << 20
_LOOK_SECONDS = 0.5


class Memory:
    """Of one server. Safe to use from any thread."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self.wanted = False  # somebody waits
        self._budget_bytes = budget_bytes
        self._changed = threading.Condition()
        self._held_bytes = 0
        self._queues: dict[str, deque[object]] = {}  # of those that wait, by holder; the first holder's turn is next

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def take_now(self, size_bytes: int) -> bool:
        """Whether it was there; not while others wait."""
        with self._changed:
            return not self._queues and self._take(size_bytes)

    def wait(self, size_bytes: int, holder: str, is_gone: Callable[[], bool]) -> bool:
        """Takes it, when it is the turn of `holder`. False: `is_gone` came true before, and nothing was taken."""
        ticket = object()
        with self._changed:
            self._queues.setdefault(holder, deque()).append(ticket)
            self.wanted = True
            try:
                while not (self._is_next(holder, ticket) and self._take(size_bytes)):
                    self._changed.wait(_LOOK_SECONDS)
                    if is_gone():
                        return False
            finally:
                self._leave(holder, ticket)
            return True

    def give(self, size_bytes: int) -> None:
        if size_bytes:
            with self._changed:
                self._held_bytes -= size_bytes
                self._changed.notify_all()

    def _take(self, size_bytes: int) -> bool:
        if self._held_bytes and self._held_bytes + size_bytes > self._budget_bytes:
            return False
        self._held_bytes += size_bytes
        return True

    def _is_next(self, holder: str, ticket: object) -> bool:
        return next(iter(self._queues)) == holder and self._queues[holder][0] is ticket

    def _leave(self, holder: str, ticket: object) -> None:
        """Behind all other holders comes what else this one waits for."""
        tickets = self._queues.pop(holder)
        tickets.remove(ticket)
        if tickets:
            self._queues[holder] = tickets
        self.wanted = bool(self._queues)
        self._changed.notify_all()
