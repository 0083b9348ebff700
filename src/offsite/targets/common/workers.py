"""The threads of a server for what its connections must not wait for, and the memory that they read into."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import structlog

from offsite.targets.common.memory import Memory

READERS, FLUSHERS = 8, 4

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


def tell_defect(error: BaseException) -> None:
    _log.error("work of a target in the background failed", exc_info=error)


def _tell_failure(future: Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        tell_defect(error)
