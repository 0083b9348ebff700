"""The states of a run, and what changes them, on either side. No I/O here; run_writer is the only one who writes them.

    primary    asked ─PREPARE─▶ preparing ─START──▶ running ─COMPLETE─▶ success
                 │                 │  └─────QUEUE──▶ queued ─PROMOTE─▶ running
                 ├─START, QUEUE────┘                   └───DROP──▶ dropped
                 └─DROP─▶ dropped        FAIL: until it is over ─▶ failed      ABORT: preparing, running ─▶ aborted

    secondary  asked ─BEGIN─▶ running ─COMPLETE─▶ success
                                 └─FAIL, ABORT─▶ failed, aborted ─BEGIN─▶ running

COMPLETE may come after ABORT: the secondary had made the point its base before it heard of the abort. And after FAIL: a
later run finishes the point that was left. And while it is queued: this system was put back to where it was. Each event
may come twice (R4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

RunState = Literal["preparing", "queued", "running", "success", "failed", "aborted", "dropped"]
UNFINISHED: tuple[RunState, ...] = ("preparing", "queued", "running")


class RunEvent(Enum):
    PREPARE = "its hooks run"
    START = "its snapshot is taken, and no other run is in progress"
    QUEUE = "its snapshot is taken, and another run is in progress"
    PROMOTE = "its turn has come"
    DROP = "a newer request or the queue policy replaced it"
    FAIL = "it cannot continue"
    ABORT = "a user aborted it"
    COMPLETE = "both ends hold its point"
    BEGIN = "the primary sends it"


class WrongRunState(Exception):
    """A fault of the program: this cannot happen to a run in this state. The transaction is rolled back."""


@dataclass(frozen=True, slots=True)
class _Step:
    before: frozenset[RunState | None]  # None: the run is not on record
    after: RunState


def _step(after: RunState, *before: RunState | None) -> _Step:
    return _Step(frozenset({*before, after}), after)


_STEPS: Mapping[RunEvent, _Step] = {
    RunEvent.PREPARE: _step("preparing", None),
    RunEvent.START: _step("running", None, "preparing"),
    RunEvent.QUEUE: _step("queued", None, "preparing"),
    RunEvent.PROMOTE: _step("running", "queued"),
    RunEvent.DROP: _step("dropped", None, *UNFINISHED),
    RunEvent.FAIL: _step("failed", None, *UNFINISHED),
    RunEvent.ABORT: _step("aborted", "preparing", "running"),
    RunEvent.COMPLETE: _step("success", "queued", "running", "failed", "aborted"),
    RunEvent.BEGIN: _step("running", None, "success", "failed", "aborted"),
}


def next_state(state: RunState | None, event: RunEvent) -> RunState:
    """Raises WrongRunState for an event that cannot come in this state."""
    step = _STEPS[event]
    if state not in step.before:
        raise WrongRunState(f"a run that is {state or 'not on record'} cannot become {step.after}: {event.value}")
    return step.after


def is_over(state: RunState) -> bool:
    return state not in UNFINISHED
