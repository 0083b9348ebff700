"""Holds one operation before each of its opcodes in turn, and lets others happen there.

The interpreter may switch threads between almost any two opcodes, but does so every 5 ms: a race that needs a
switch at one certain place can sleep through years of stress tests. Here each place is visited (in a loop, in
its first two rounds).
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import offsite.pools

_FOLDER = str(Path(offsite.pools.__file__).parent)
ROUNDS = 2
BLOCKED_SECONDS = 0.003  # `second` has met a lock that `first` holds, and will go on when `first` does
DEADLINE_SECONDS = 30.0


def held_before(opcode: int, first: Callable[[], object], second: Callable[[], object]) -> bool:
    """Runs `first`, held before its `opcode`th opcode within offsite.pools; `second` runs while it is held.

    Returns False when `first` has fewer opcodes: then `second` ran after it. What either raises is raised.
    """
    held, go_on, first_done = threading.Event(), threading.Event(), threading.Event()
    errors: list[Exception] = []
    passed = 0
    rounds: Counter[tuple[FrameType, int]] = Counter()

    def trace_opcode(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal passed
        if event == "opcode":
            rounds[frame, frame.f_lasti] += 1
            if rounds[frame, frame.f_lasti] <= ROUNDS:
                if passed == opcode:
                    held.set()
                    go_on.wait(DEADLINE_SECONDS)
                passed += 1
        return trace_opcode

    def trace_call(frame: FrameType, _event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(_FOLDER):
            return None
        frame.f_trace_opcodes = True
        return trace_opcode

    def run_first() -> None:
        sys.settrace(trace_call)
        try:
            first()
        except Exception as error:  # noqa: BLE001, it is raised in the test's thread
            errors.append(error)
        finally:
            sys.settrace(None)
            first_done.set()
            held.set()

    def run_second() -> None:
        try:
            second()
        except Exception as error:  # noqa: BLE001, it is raised in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=run_first), threading.Thread(target=run_second)]
    threads[0].start()
    assert held.wait(DEADLINE_SECONDS)
    reached = not first_done.is_set()
    threads[1].start()
    threads[1].join(BLOCKED_SECONDS)
    go_on.set()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive(), f"stuck after being held before opcode {opcode}"
    if errors:
        raise errors[0]
    return reached
