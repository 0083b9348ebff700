"""What a connection must not wait for: reads that need the disk, and flushes.

    connection thread ── read(…), flush(…) ──▶ threads shared by the server ──▶ Completions ──▶ connection thread

Only the connection's thread touches its socket, so results come back by a queue, and an eventfd that can be
polled beside the socket. A connection's flushes are collected: one runs at a time, and it stands for all
that were asked before it began.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import structlog

from offsite.errors import OffsiteError
from offsite.pools.protocol import OpenImage
from offsite.targets.common.failure import Failure, failure_of
from offsite.targets.common.memory import Memory

READERS, FLUSHERS = 8, 4
OUTSTANDING_MAX, OUTSTANDING_BYTES_MAX = 64, 32 << 20  # for one connection
WARM_PIECE_BYTES = 1 << 20

_log = structlog.get_logger(__name__)


class Workers:
    """The threads of a server; they start as they are needed."""

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self._readers = ThreadPoolExecutor(READERS, "target-read")
        self._flushers = ThreadPoolExecutor(FLUSHERS, "target-flush")

    def read(self, job: Callable[[], None]) -> None:
        self._readers.submit(job).add_done_callback(_tell_failure)

    def flush(self, job: Callable[[], None]) -> None:
        self._flushers.submit(job).add_done_callback(_tell_failure)

    def stop(self) -> None:
        """Lets what runs end; what waits is dropped. Does not wait."""
        for executor in (self._readers, self._flushers):
            executor.shutdown(wait=False, cancel_futures=True)


def _tell_failure(future: Future[None]) -> None:
    if not future.cancelled() and future.exception() is not None:
        _log.error("work of a target in the background failed", exc_info=future.exception())


@dataclass(frozen=True, slots=True)
class FinishedWork:
    """Something that was asked for has ended. `buffer` holds what was read behind `header_bytes` of room."""

    cookie: int
    failure: Failure | None  # none: it succeeded
    sentence: str
    buffer: memoryview | None
    offset: int
    size_bytes: int
    memory_bytes: int = 0  # of the budget; to be given back


class Background:
    """What one connection has asked for. All methods but those that run in workers are its own thread's."""

    def __init__(
        self, workers: Workers, holder: str, open_image: Callable[[], OpenImage], flush: Callable[[], None]
    ) -> None:
        """`holder` is who takes turns with others when memory is short."""
        self.outstanding = 0
        self.outstanding_bytes = 0
        self.wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._workers = workers
        self._memory = workers.memory
        self._holder = holder
        self._held_bytes = 0  # of memory, by what has been started and not given back
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()  # reads that memory is not there for
        self._open_image = open_image
        self._flush = flush
        self._lock = threading.Lock()
        self._done: list[FinishedWork] = []
        self._flushes: list[int] = []  # cookies that wait for a flush to begin
        self._flush_runs = False
        self._closed = False

    def read(self, cookie: int, offset: int, length: int, header_bytes: int) -> None:
        """Reads into a new buffer, with `header_bytes` of room before the data; when there is memory for it."""
        self._begin(length)
        size = header_bytes + length
        job = partial(self._read, cookie, offset, length, header_bytes)
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

    def warm(self, cookie: int, offset: int, length: int) -> None:
        """Reads for the page cache's sake."""
        self._begin(length)
        self._workers.read(partial(self._warm, cookie, offset, length))

    def flush(self, cookie: int) -> None:
        """Makes durable all that has been written so far."""
        self._begin(0)
        with self._lock:
            self._flushes.append(cookie)
            if self._flush_runs:
                return
            self._flush_runs = True
        self._workers.flush(self._run_flushes)

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

    def _read(self, cookie: int, offset: int, length: int, header_bytes: int) -> None:
        size = header_bytes + length
        done = FinishedWork(cookie, Failure.INTERNAL, Failure.INTERNAL.value, None, offset, length, size)
        try:
            if not self._closed:
                buffer = memoryview(bytearray(size))
                self._read_into(offset, buffer[header_bytes:])
                done = FinishedWork(cookie, None, "", buffer, offset, length, size)
        except (OffsiteError, OSError) as error:
            done = FinishedWork(cookie, failure_of(error), str(error), None, offset, length, size)
        finally:
            self._finish([done])

    def _warm(self, cookie: int, offset: int, length: int) -> None:
        done = FinishedWork(cookie, Failure.INTERNAL, Failure.INTERNAL.value, None, offset, length)
        try:
            buffer = memoryview(bytearray(min(length, WARM_PIECE_BYTES)))
            for at in range(0, length, WARM_PIECE_BYTES):
                if self._closed:
                    break
                self._read_into(offset + at, buffer[: length - at])
            done = FinishedWork(cookie, None, "", None, offset, length)
        except (OffsiteError, OSError) as error:
            done = FinishedWork(cookie, failure_of(error), str(error), None, offset, length)
        finally:
            self._finish([done])

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        with closing(self._open_image()) as image:
            image.begin()
            try:
                image.read(offset, buffer)
            finally:
                image.end()

    def _run_flushes(self) -> None:
        while True:
            with self._lock:
                cookies, self._flushes = self._flushes, []
                if not cookies or self._closed:
                    self._flush_runs = False
                    return
            failure: Failure | None = Failure.INTERNAL
            sentence = Failure.INTERNAL.value
            try:
                self._flush()
                failure, sentence = None, ""
            except (OffsiteError, OSError) as error:
                failure, sentence = failure_of(error), str(error)
            finally:
                self._finish([FinishedWork(cookie, failure, sentence, None, 0, 0) for cookie in cookies])
