"""Who is at work on a set: a run, or its deletion. One at a time; whoever comes second is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from offsite.errors import InUse


class Claims:
    def __init__(self) -> None:
        self._claims: dict[str, str] = {}
        self._lock = threading.Lock()

    def claim(self, set_uuid: str, set_name: str, doing: str) -> None:
        """Raises InUse, telling what the set is `doing` ("is replicating") already."""
        with self._lock:
            if set_uuid in self._claims:
                raise InUse(f"replication set {set_name} {self._claims[set_uuid]}; wait until that has ended")
            self._claims[set_uuid] = doing

    def release(self, set_uuid: str) -> None:
        with self._lock:
            del self._claims[set_uuid]

    @contextmanager
    def claimed(self, set_uuid: str, set_name: str, doing: str) -> Iterator[None]:
        self.claim(set_uuid, set_name, doing)
        try:
            yield
        finally:
            self.release(set_uuid)
