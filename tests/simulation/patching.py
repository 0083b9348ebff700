"""Gives the modules of the product our threads, our time, our disk and our uuids, in this process, for good.

A module that says `threading.Lock()` gets one that lets other tasks run while it is waited for, and so on. Which
world they belong to is looked up when they are used.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tests.simulation.tasks import Task, Tasks

_WITH_A_DISK = tuple(f"offsite.pools.local.{module}" for module in ("page_store", "image_reading", "open_image"))
"""The modules whose `os` reads and writes data files."""


class Current:
    """The world that is being simulated in this process."""

    tasks: Tasks
    random: random.Random


class Lock:
    def __init__(self) -> None:
        self._owner: Task | str | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1.0) -> bool:
        me = Current.tasks.current or "main"
        if not self._is_free(me):
            if not blocking or timeout == 0.0:
                return False
            until = None if timeout < 0 else Current.tasks.now + timeout
            if not Current.tasks.wait(lambda: self._is_free(me), until):
                return False
        self._owner = me
        self._count += 1
        return True

    def _is_free(self, _me: Task | str) -> bool:
        return self._owner is None

    def release(self) -> None:
        self._count -= 1
        if not self._count:
            self._owner = None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    def _is_free(self, me: Task | str) -> bool:
        return self._owner is None or self._owner is me


class Event:
    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        return Current.tasks.wait(self.is_set, None if timeout is None else Current.tasks.now + timeout)


class Condition:
    def __init__(self, lock: Lock | None = None) -> None:
        self._lock = lock or RLock()
        self._notified = 0

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def notify(self, _count: int = 1) -> None:
        self._notified += 1

    notify_all = notify

    def wait(self, timeout: float | None = None) -> bool:
        seen = self._notified
        return self.wait_for(lambda: self._notified != seen, timeout)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> bool:
        if predicate():
            return True
        until = None if timeout is None else Current.tasks.now + timeout
        self._lock.release()
        try:
            Current.tasks.wait(lambda: bool(predicate()), until)
        finally:
            self._lock.acquire()
        return bool(predicate())


class Thread:
    def __init__(
        self, target: Callable[..., object], args: tuple[Any, ...] = (), name: str = "", daemon: bool | None = None
    ) -> None:
        del daemon
        self._call = lambda: target(*args)
        self.name = name
        self._task: Task | None = None

    def start(self) -> None:
        self._task = Current.tasks.spawn(self.name, self._call)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.ended

    def join(self, timeout: float | None = None) -> None:
        until = None if timeout is None else Current.tasks.now + timeout
        Current.tasks.wait(lambda: not self.is_alive(), until)


class Executor:
    """Of one worker: a task that lives as long as there is something to do."""

    def __init__(self, _workers: int = 1, thread_name_prefix: str = "") -> None:
        self._name = thread_name_prefix
        self._jobs: deque[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = deque()
        self._working = False

    def submit(self, call: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._jobs.append((future, lambda: call(*arguments)))
        if not self._working:
            self._working = True
            Current.tasks.spawn(self._name, self._work)
        return future

    def _work(self) -> None:
        while self._jobs:
            future, job = self._jobs.popleft()
            try:
                result = job()
            except Exception as error:  # noqa: BLE001, as an executor does
                future.set_exception(error)
            else:
                future.set_result(result)
        self._working = False

    def shutdown(self, wait: bool = True) -> None:
        del wait


class Waited(NamedTuple):
    done: set[concurrent.futures.Future[Any]]


def wait_for_futures(futures: Iterable[concurrent.futures.Future[Any]], timeout: float) -> Waited:
    (future,) = futures
    Current.tasks.wait(future.done, Current.tasks.now + timeout)
    return Waited({future} if future.done() else set())


class Module:
    """A module of Python with some of its names replaced."""

    def __init__(self, real: Any, **replaced: Any) -> None:
        self._real = real
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _uuid4() -> uuid.UUID:
    return uuid.UUID(int=Current.random.getrandbits(128), version=4)


def install(simulated_os: Module) -> None:
    """Once in a process, after all modules of the product that a world needs were imported."""
    modules = {
        "threading": (
            threading,
            Module(threading, Lock=Lock, RLock=RLock, Event=Event, Condition=Condition, Thread=Thread),
        ),
        "time": (
            time,
            Module(
                time,
                time=lambda: Current.tasks.now,
                monotonic=lambda: Current.tasks.now,
                sleep=lambda seconds: Current.tasks.sleep(seconds),
            ),
        ),
        "uuid": (uuid, Module(uuid, uuid4=_uuid4)),
    }
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith("offsite."):
            continue
        for name, (real, simulated) in modules.items():
            if getattr(module, name, None) is real:
                setattr(module, name, simulated)
        if module_name in _WITH_A_DISK and module.__dict__["os"] is os:
            module.__dict__["os"] = simulated_os
    session = sys.modules["offsite.replication.inbound.session"]
    dispatcher = sys.modules["offsite.replication.runs.dispatcher"]
    session.__dict__.update(ThreadPoolExecutor=Executor, wait=wait_for_futures)
    dispatcher.__dict__["Random"] = lambda: random.Random(Current.random.random())
