"""What a connection must not wait for: reads that need the disk, and flushes.

    connection thread ── read(…), flush(…) ──▶ threads shared by the server ──▶ FinishedWork ──▶ connection thread

Only the connection's thread touches its socket, so results come back by a queue, and an eventfd that can be
polled beside the socket. A connection's flushes of a pool are collected: one runs at a time, and it stands for all
that were asked before it began.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from offsite.errors import OffsiteError
from offsite.pools.protocol import Pool
from offsite.targets.common.failure import Failure, failure_of
from offsite.targets.common.grants import Grant
from offsite.targets.common.workers import Workers, tell_defect

OUTSTANDING_MAX, OUTSTANDING_BYTES_MAX = 64, 32 << 20  # for one connection
WARM_PIECE_BYTES = 1 << 20

_DEFECT: tuple[Failure | None, str, None] = (Failure.INTERNAL, Failure.INTERNAL.value, None)


@dataclass(frozen=True, slots=True)
class FinishedWork:
    """Something that was asked for has ended. `buffer` holds what was read behind `header_bytes` of room."""

    cookie: int
    failure: Failure | None  # none: it succeeded
    sentence: str
    buffer: memoryview | None
    offset: int
    size_bytes: int
    asked_at: float  # by time.perf_counter()
    memory_bytes: int = 0  # of the budget; to be given back
    written_bytes: int = 0  # by the write that is flushed


class Background:
    """What one connection has asked for. All methods but those that run in workers are its own thread's."""

    def __init__(self, workers: Workers, holder: str) -> None:
        """`holder` is who takes turns with others when memory is short."""
        self.outstanding = 0
        self.outstanding_bytes = 0
        self.wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._workers = workers
        self._memory = workers.memory
        self._holder = holder
        self._held_bytes = 0  # of memory, by what has been started and not given back
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()  # reads that memory is not there for
        self._lock = threading.Lock()
        self._done: list[FinishedWork] = []
        self._flushes: dict[Pool, list[_Flush]] = {}  # those that wait, of each pool of which a flush runs
        self._closed = False

    def read(self, grant: Grant, cookie: int, offset: int, length: int, header_bytes: int) -> None:
        """Reads into a new buffer, with `header_bytes` of room before the data; when there is memory for it."""
        self._begin(length)
        size = header_bytes + length
        job = partial(self._read, grant, cookie, offset, length, header_bytes, time.perf_counter())
        if not self._waiting and self._memory.take_now(size):
            self._start(size, job)
        else:
            self._waiting.append((size, job))

    def is_overloaded(self) -> bool:
        """No more requests are to be taken now."""
        return (
            self.outstanding >= OUTSTANDING_MAX
            or self.outstanding_bytes >= OUTSTANDING_BYTES_MAX
            or bool(self._waiting)
        )

    def is_hurried(self) -> bool:
        """Others wait for memory of which this connection holds some."""
        return self._memory.wanted and self._held_bytes > 0

    def start_waiting(self, is_gone: Callable[[], bool]) -> bool:
        """Starts reads that wait for memory. Waits only while nothing else is outstanding here, so that nobody who
        holds memory waits for more. False: the client is gone."""
        while self._waiting:
            size, job = self._waiting[0]
            if not self._memory.take_now(size):
                if self.outstanding > len(self._waiting):
                    return True
                if not self._memory.wait(size, self._holder, is_gone):
                    return False
            self._waiting.popleft()
            self._start(size, job)
        return True

    def give_back(self, done: FinishedWork) -> None:
        """Its buffer is not needed any more."""
        self._held_bytes -= done.memory_bytes
        self._memory.give(done.memory_bytes)

    def warm(self, grant: Grant, cookie: int, offset: int, length: int) -> None:
        """Reads for the page cache's sake."""
        self._begin(length)
        self._workers.read(partial(self._warm, grant, cookie, offset, length, time.perf_counter()))

    def flush(self, grant: Grant, cookie: int, written_bytes: int = 0) -> None:
        """Makes durable all that has been written so far, `written_bytes` of it by this very request."""
        flush = _Flush(cookie, written_bytes, time.perf_counter())
        self._begin(0)
        with self._lock:
            waiting = self._flushes.get(grant.pool)
            if waiting is not None:
                waiting.append(flush)
                return
            self._flushes[grant.pool] = [flush]
        self._workers.flush(partial(self._run_flushes, grant.pool))

    def take_done(self) -> list[FinishedWork]:
        """What has ended since the last call. Does not wait: `wakeup` becomes readable when there is some."""
        try:
            os.eventfd_read(self.wakeup)
        except BlockingIOError:
            return []
        with self._lock:
            done, self._done = self._done, []
        self.outstanding -= len(done)
        self.outstanding_bytes -= sum(each.size_bytes for each in done)
        return done

    def close(self) -> None:
        """What still runs ends unheard."""
        with self._lock:
            self._closed = True
            done, self._done = self._done, []
            os.close(self.wakeup)
        for each in done:
            self.give_back(each)

    def _start(self, size_bytes: int, job: Callable[[], None]) -> None:
        self._held_bytes += size_bytes
        self._workers.read(job)

    def _begin(self, length: int) -> None:
        self.outstanding += 1
        self.outstanding_bytes += length

    def _finish(self, done: list[FinishedWork]) -> None:
        with self._lock:
            if not self._closed:
                self._done += done
                os.eventfd_write(self.wakeup, 1)
                return
        for each in done:
            self._memory.give(each.memory_bytes)

    def _read(self, grant: Grant, cookie: int, offset: int, length: int, header_bytes: int, asked_at: float) -> None:
        size = header_bytes + length
        done = partial(FinishedWork, cookie, offset=offset, size_bytes=length, asked_at=asked_at, memory_bytes=size)
        outcome = done(*_DEFECT)
        try:
            if not self._closed:
                buffer = memoryview(bytearray(size))
                _read_into(grant, offset, buffer[header_bytes:])
                outcome = done(None, "", buffer)
        except (OffsiteError, OSError) as error:
            outcome = done(failure_of(error), str(error), None)
        finally:
            self._finish([outcome])

    def _warm(self, grant: Grant, cookie: int, offset: int, length: int, asked_at: float) -> None:
        done = partial(FinishedWork, cookie, offset=offset, size_bytes=length, asked_at=asked_at)
        outcome = done(*_DEFECT)
        try:
            buffer = memoryview(bytearray(min(length, WARM_PIECE_BYTES)))
            for at in range(0, length, WARM_PIECE_BYTES):
                if self._closed:
                    break
                _read_into(grant, offset + at, buffer[: length - at])
            outcome = done(None, "", None)
        except (OffsiteError, OSError) as error:
            outcome = done(failure_of(error), str(error), None)
        finally:
            self._finish([outcome])

    def _run_flushes(self, pool: Pool) -> None:
        while True:
            with self._lock:
                flushes = self._flushes[pool]
                if not flushes or self._closed:
                    del self._flushes[pool]
                    return
                self._flushes[pool] = []
            outcome = _DEFECT
            try:
                pool.flush()
                outcome = None, "", None
            except (OffsiteError, OSError) as error:
                outcome = failure_of(error), str(error), None
            except Exception as error:  # noqa: BLE001 - a defect: who waits for the next flush must get it
                tell_defect(error)
            finally:
                self._finish([each.finished(*outcome) for each in flushes])


@dataclass(frozen=True, slots=True)
class _Flush:
    cookie: int
    written_bytes: int
    asked_at: float

    def finished(self, failure: Failure | None, sentence: str, buffer: None) -> FinishedWork:
        return FinishedWork(
            self.cookie, failure, sentence, buffer, 0, 0, self.asked_at, written_bytes=self.written_bytes
        )


def _read_into(grant: Grant, offset: int, buffer: memoryview) -> None:
    with closing(grant.pool.open(grant.image.id)) as image:
        image.begin()
        try:
            image.read(offset, buffer)
        finally:
            image.end()
