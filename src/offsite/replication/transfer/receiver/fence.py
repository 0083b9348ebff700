"""Who may fill the secondary half of a set: the connection that came last, and no other.

A connection whose other end has long gone may still have batches to store. Were they stored after a newer
connection has committed, they would change the base. So whoever stores holds the fence meanwhile, and a new
connection takes it over first, which waits until the old one is between two batches.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from offsite.errors import InUse, PeerUnreachable

TAKE_SECONDS = 30.0


class Fence:
    """Of one set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: object | None = None

    def take(self, owner: object) -> None:
        """From now on only `owner` passes. Raises PeerUnreachable when the one before does not come to an end."""
        self._acquire()
        self._owner = owner
        self._lock.release()

    @contextmanager
    def held_by(self, owner: object) -> Iterator[None]:
        """Raises InUse when someone else has taken over."""
        self._acquire()
        try:
            if not self.is_owner(owner):
                raise InUse("a newer connection continues the run")
            yield
        finally:
            self._lock.release()

    def _acquire(self) -> None:
        if not self._lock.acquire(timeout=TAKE_SECONDS):
            raise PeerUnreachable(f"timeout: an older run of the set has not ended within {TAKE_SECONDS:.0f} s")

    def is_owner(self, owner: object) -> bool:
        return self._owner is owner


class Fences:
    """One for each set, by its uuid."""

    def __init__(self) -> None:
        self._fences: dict[str, Fence] = {}
        self._lock = threading.Lock()

    def of(self, set_uuid: str) -> Fence:
        with self._lock:
            return self._fences.setdefault(set_uuid, Fence())
