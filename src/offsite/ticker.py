"""A thread that does what is due, and sleeps until the next thing is."""

from __future__ import annotations

import threading
from collections.abc import Callable

from offsite.clock import Clock


class Ticker:
    """Calls `step` again and again. It returns when to be called next, in seconds of the monotonic clock, or None:
    when woken. It must not raise: whatever it does not catch is a fault, and ends the thread with a traceback."""

    def __init__(self, name: str, step: Callable[[], float | None], clock: Clock) -> None:
        self._step = step
        self._clock = clock
        self._changed = threading.Condition()
        self._woken = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Makes it call `step` soon; from any thread, with any lock held."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def stop(self, timeout_seconds: float) -> None:
        """Harmless before a start."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                self._woken = False
            due = self._step()
            with self._changed:
                left = None if due is None else max(0.0, due - self._clock.monotonic())
                self._changed.wait_for(lambda: self._woken or self._stopping, left)
