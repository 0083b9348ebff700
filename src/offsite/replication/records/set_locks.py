"""Who is at work on a set, one at a time.

Three locks for each set, always taken in this order: `requesting` by whoever asks for a run, whose hooks may take
a minute, or deletes the set; `settling` by whoever brings aborted runs to an end with the secondary, who would
cut off another that does the same; `recording` for the moment in which runs and points change, so that nobody
drops a point that another has just begun to send.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from offsite.errors import InUse

RECORDING_SECONDS = 30.0
REQUESTING_SECONDS = 5.0


class SetLocks:
    def __init__(self) -> None:
        self._locks: dict[tuple[str, str], threading.RLock] = {}
        self._lock = threading.Lock()

    @contextmanager
    def requesting(self, set_uuid: str, set_name: str) -> Iterator[None]:
        """Raises InUse when someone else goes on asking, or deleting, for longer than a few seconds."""
        doing = (
            f"has been in use by another request or its deletion for {REQUESTING_SECONDS:.0f} s; try again in a moment"
        )
        with self._held("requesting", set_uuid, REQUESTING_SECONDS, f"timeout: replication set {set_name} {doing}"):
            yield

    @contextmanager
    def requesting_now(self, set_uuid: str) -> Iterator[bool]:
        """As `requesting`, but waits for nobody: gives whether no one else is at it."""
        with self._tried("requesting", set_uuid, 0.0) as held:
            yield held

    @contextmanager
    def settling(self, set_uuid: str, timeout_seconds: float) -> Iterator[bool]:
        """Gives whether nobody else is at it, or has ended in time."""
        with self._tried("settling", set_uuid, timeout_seconds) as held:
            yield held

    @contextmanager
    def recording(self, set_uuid: str, set_name: str, timeout_seconds: float | None = None) -> Iterator[None]:
        """Raises InUse when the pool or its disk keeps another step from ending in time: RECORDING_SECONDS."""
        seconds = RECORDING_SECONDS if timeout_seconds is None else timeout_seconds
        waits = (
            f"timeout: a step of replication set {set_name} has not ended within {seconds:.0f} s; check its pool, or "
            "try again"
        )
        with self._held("recording", set_uuid, seconds, waits):
            yield

    @contextmanager
    def _held(self, kind: str, set_uuid: str, timeout_seconds: float, refusal: str) -> Iterator[None]:
        with self._tried(kind, set_uuid, timeout_seconds) as held:
            if not held:
                raise InUse(refusal)
            yield

    @contextmanager
    def _tried(self, kind: str, set_uuid: str, timeout_seconds: float) -> Iterator[bool]:
        lock = self._lock_of(kind, set_uuid)
        held = lock.acquire(timeout=timeout_seconds)
        try:
            yield held
        finally:
            if held:
                lock.release()

    def _lock_of(self, kind: str, set_uuid: str) -> threading.RLock:
        with self._lock:
            return self._locks.setdefault((kind, set_uuid), threading.RLock())
