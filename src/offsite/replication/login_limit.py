"""How often a wrong password may be tried from one address. No I/O here."""

from __future__ import annotations

from collections import deque

from offsite.clock import Clock

FAILURES_MAX = 5
WINDOW_SECONDS = 60.0
_ADDRESSES_MAX = 1024


class LoginLimit:
    """After 5 failures within a minute an address has to wait until the oldest is a minute old."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, deque[float]] = {}

    def wait_seconds(self, address: str) -> float:
        """How long `address` has to wait; 0: it may try now."""
        times = self._failures.get(address)
        if times is None or len(times) < FAILURES_MAX:
            return 0.0
        return max(0.0, times[0] + WINDOW_SECONDS - self._clock.monotonic())

    def failed(self, address: str) -> None:
        if address not in self._failures and len(self._failures) >= _ADDRESSES_MAX:
            self._failures.pop(next(iter(self._failures)))  # the one that failed first, longest ago
        self._failures.setdefault(address, deque(maxlen=FAILURES_MAX)).append(self._clock.monotonic())

    def succeeded(self, address: str) -> None:
        self._failures.pop(address, None)
