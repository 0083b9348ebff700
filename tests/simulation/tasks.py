"""Tasks that take turns: threads of which one runs at a time, on a clock that jumps to the next thing that is due.

            its turn, drawn by the seed                waits
    ready ──────────────────────────────▶ running ──────────────▶ waiting ── condition or time ──▶ ready
                                             │ returns, or is killed
                                             ▼
                                           ended

A task gives up its turn only where it waits: for a message, a lock that another one holds, a time, or where
`switch` stands. What runs between two such places is one step for everybody else.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from random import Random

Condition = Callable[[], bool]

START_SECONDS = 1_800_000_000.0  # of the virtual clock: January 2027


class Killed(BaseException):
    """The machine that the task was running on has lost power: nothing catches it."""


class Stuck(Exception):
    """Nobody can go on, and nothing is due."""


class Task:
    def __init__(self, name: str, owner: object) -> None:
        self.name = name
        self.owner = owner
        self.ended = False
        self.killed = False
        self.condition: Condition | None = None
        self.until: float | None = None
        self.go = threading.Semaphore(0)
        self.back = threading.Semaphore(0)  # to whoever let it go on

    def is_ready(self, now: float) -> bool:
        if self.until is not None and self.until <= now:
            return True
        if self.condition is None:
            return self.until is None
        return self.condition()


class Tasks:
    """All tasks of one world, and its clock (seconds)."""

    def __init__(self, random: Random) -> None:
        self.now = START_SECONDS
        self.steps = 0
        self.owner: object = None  # of what is spawned, for the time that it is set; else whose task spawns it
        self.current: Task | None = None
        self._random = random
        self._tasks: list[Task] = []
        self._alarms: list[float] = []
        self._failure: BaseException | None = None

    def spawn(self, name: str, call: Callable[[], object], owner: object = None) -> Task:
        task = Task(name, owner or self.owner or (self.current.owner if self.current else None))
        self._tasks.append(task)

        def run() -> None:
            task.go.acquire()
            try:
                if not task.killed:
                    call()
            except Killed:
                pass
            except BaseException as error:  # noqa: BLE001, it is raised by whoever runs the world
                self._failure = self._failure or error
            finally:
                task.ended = True
                task.back.release()

        threading.Thread(target=run, name=name, daemon=True).start()
        return task

    def alarm(self, at: float) -> None:
        """At that time a condition that somebody waits for may come to hold."""
        heapq.heappush(self._alarms, at)

    # -- for tasks -----------------------------------------------------------------------------------------------

    def switch(self) -> None:
        """Somebody else may go first."""
        if self.current is not None:
            self._give_turn(None, None)

    def wait(self, condition: Condition | None, until: float | None) -> bool:
        """Returns when the condition holds, or at `until`; gives whether it holds."""
        if condition is not None and condition():
            return True
        if self.current is None:
            raise Stuck("what is not a task would have to wait")
        self._give_turn(condition, until)
        return condition is not None and condition()

    def sleep(self, seconds: float) -> None:
        self.wait(None, self.now + seconds)

    def _give_turn(self, condition: Condition | None, until: float | None) -> None:
        task = self.current
        assert task is not None
        if not task.killed:
            task.condition, task.until = condition, until
            task.back.release()
            task.go.acquire()
        if task.killed:
            raise Killed

    # -- for whoever runs them -----------------------------------------------------------------------------------

    def step(self) -> None:
        """One turn of one task, or a jump of the clock. Raises what a task has raised, and Stuck."""
        ready = [task for task in self._tasks if task.is_ready(self.now)]
        if not ready:
            while self._alarms and self._alarms[0] <= self.now:
                heapq.heappop(self._alarms)
            due = [task.until for task in self._tasks if task.until is not None] + self._alarms[:1]
            if not due:
                raise Stuck(f"no task can go on: {self.names()}")
            self.now = min(due)
            return
        self._resume(self._random.choice(ready))
        self.steps += 1
        if self._failure is not None:
            raise self._failure

    def names(self) -> list[str]:
        return [task.name for task in self._tasks]

    def kill(self, owner: object) -> None:
        """Ends all tasks of `owner`, but for the one that asks, which raises Killed itself at its next wait."""
        for task in [each for each in self._tasks if each.owner is owner]:
            task.killed = True
            if task is not self.current:
                self._resume(task)

    def kill_all(self) -> None:
        for owner in {task.owner for task in self._tasks}:
            self.kill(owner)

    def _resume(self, task: Task) -> None:
        before, self.current = self.current, task
        task.condition = task.until = None
        task.go.release()
        task.back.acquire()
        self.current = before
        if task.ended:
            self._tasks.remove(task)
