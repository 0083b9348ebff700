"""The thread that does what is due: woken, waiting, stopped."""

from __future__ import annotations

import threading

from offsite.clock import SystemClock
from offsite.ticker import Ticker


def test_it_steps_when_due_and_when_woken_and_ends_when_stopped() -> None:
    clock, stepped = SystemClock(), threading.Semaphore(0)
    due: list[float | None] = [clock.monotonic() + 0.05, None]

    def step() -> float | None:
        stepped.release()
        return due.pop(0) if due else None

    ticker = Ticker("test", step, clock)
    ticker.start()
    assert stepped.acquire(timeout=10), "at its start"
    assert stepped.acquire(timeout=10), "when it was due"
    assert not stepped.acquire(timeout=0.05), "and then only when woken"
    ticker.wake()
    assert stepped.acquire(timeout=10)
    ticker.stop(10)
    ticker.wake()
    assert not stepped.acquire(timeout=0.05)


def test_a_wake_during_a_step_is_not_lost() -> None:
    stepped = threading.Semaphore(0)
    ticker: Ticker

    def step() -> None:
        if not stepped._value:
            ticker.wake()
        stepped.release()

    ticker = Ticker("test", step, SystemClock())
    ticker.start()
    assert stepped.acquire(timeout=10)
    assert stepped.acquire(timeout=10)
    ticker.stop(10)


def test_a_stop_before_the_start_is_harmless() -> None:
    Ticker("test", lambda: None, SystemClock()).stop(1)
