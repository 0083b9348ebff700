"""How fast runs may send to a peer: one token bucket for each peer, shared by all runs to it.

    a run wants to send ──▶ waiting ──its turn, and no debt──▶ takes the bytes, into debt ──▶ sends
                              │  ▲
                              └──┘ slices of at most 0.2 s, with a look in between whether it is to stop

The bucket fills at the rate that holds at that instant, which is looked up each time, so that a change of the
limit, or of the hour, takes effect within a slice. A batch goes as a whole: whoever finds no debt takes its bytes
and leaves the debt to whoever comes next.

Turns go by start-time fair queuing (Goyal, Vin, Cheng 1996): each run has a virtual time that grows with its bytes,
and the waiting one that is furthest behind is next. So runs get equal bytes, and none waits for more than one batch
of each other run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from offsite.clock import Clock
from offsite.replication.bandwidth.calendar import BandwidthCalendar

SLICE_SECONDS = 0.2
SLICE_SECONDS_MIN = 0.001
BURST_SECONDS = 0.25  # what was not used of the rate for so long may be made up for; it hides late wake-ups


LocalTime = Callable[[float], datetime]
"""What the clock on the wall shows at some seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class BandwidthTerms:
    """What is asked for: a plain limit in bytes a second, None for no limit, and a calendar of others."""

    limit: int | None = None
    calendar: BandwidthCalendar = field(default_factory=BandwidthCalendar)

    @property
    def limits_nothing(self) -> bool:
        return self.limit is None and not self.calendar.windows

    def limit_at(self, now: float, local_time: LocalTime) -> int | None:
        """Bytes a second at an instant. Without a calendar nobody asks what the clock on the wall shows."""
        return self.calendar.limit_at(local_time(now), self.limit) if self.calendar.windows else self.limit


class Bucket:
    """Of one peer. `terms` may be set at any time, from any thread; it is None when nothing is limited.

    `wait` waits for some seconds.
    """

    def __init__(
        self,
        clock: Clock,
        terms: BandwidthTerms | None = None,
        wait: Callable[[float], None] = time.sleep,
        local_time: LocalTime = datetime.fromtimestamp,
    ) -> None:
        self.terms = terms
        self.wait = wait
        self._clock = clock
        self._local_time = local_time
        self._lock = threading.Lock()
        self._balance_bytes = 0.0  # below zero: debt
        self._filled_at = clock.monotonic()
        self._virtual_bytes = 0.0  # where the run that went last began
        self._waiting: dict[Flow, tuple[float, int]] = {}  # where each begins, and what it wants to send

    def change(self, terms: BandwidthTerms | None) -> None:
        """A limit that is lifted takes its debt along: the next one, perhaps much lower, does not begin with it."""
        with self._lock:
            self.terms = terms
            if terms is None:
                self._balance_bytes = 0.0

    def rate(self) -> int | None:
        """Bytes a second that hold now."""
        terms = self.terms
        return terms.limit_at(self._clock.now(), self._local_time) if terms is not None else None

    def try_take(self, flow: Flow, size_bytes: int) -> float:
        """0.0 when `flow` may send now, and its bytes are taken; else for how many seconds to wait and try again."""
        with self._lock:
            rate = self.rate()
            if rate is None:
                self._balance_bytes, self._filled_at = 0.0, self._clock.monotonic()
                self._waiting.pop(flow, None)
                return 0.0
            self._fill(rate)
            begin, _ = self._waiting.setdefault(flow, (max(flow.virtual_bytes, self._virtual_bytes), size_bytes))
            ahead_bytes = sum(size for other, size in self._waiting.values() if other < begin)
            first = min(self._waiting, key=lambda each: self._waiting[each][0]) is flow
            if first and self._balance_bytes >= 0:
                del self._waiting[flow]
                self._virtual_bytes, flow.virtual_bytes = begin, begin + size_bytes
                self._balance_bytes -= size_bytes
                return 0.0
            seconds = (ahead_bytes - self._balance_bytes) / rate
            return min(SLICE_SECONDS, max(SLICE_SECONDS_MIN, seconds))

    def charge(self, flow: Flow, size_bytes: int) -> None:
        """Bytes that were sent besides those that were taken."""
        with self._lock:
            self._balance_bytes -= size_bytes
            flow.virtual_bytes += size_bytes

    def leave(self, flow: Flow) -> None:
        with self._lock:
            self._waiting.pop(flow, None)

    def _fill(self, rate: int) -> None:
        now = self._clock.monotonic()
        filled = self._balance_bytes + (now - self._filled_at) * rate
        self._balance_bytes, self._filled_at = min(filled, rate * BURST_SECONDS), now


class Flow:
    """What one run sends to a peer. For one thread."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.virtual_bytes = 0.0

    @property
    def is_limited(self) -> bool:
        """Without a lock and without a look at the clock: it is asked for every batch."""
        return self._bucket.terms is not None

    def take(self, size_bytes: int, meanwhile: Callable[[float], None]) -> None:
        """Returns when so much may be sent. `meanwhile` is called before each slice of waiting with the seconds
        that were waited so far; what it raises ends the waiting."""
        waited_seconds = 0.0
        try:
            while seconds := self._bucket.try_take(self, size_bytes):
                meanwhile(waited_seconds)
                self._bucket.wait(seconds)
                waited_seconds += seconds
        finally:
            self._bucket.leave(self)

    def charge(self, size_bytes: int) -> None:
        """Counts bytes that went besides those that were taken: frames around the payload."""
        self._bucket.charge(self, size_bytes)


class Bandwidths:
    """The buckets of all peers, by the peer's id. `load` gets the terms that are on record for one."""

    def __init__(
        self,
        load: Callable[[int], BandwidthTerms],
        clock: Clock,
        wait: Callable[[float], None] = time.sleep,
        local_time: LocalTime = datetime.fromtimestamp,
    ) -> None:
        self._load = load
        self._local_time = local_time
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._buckets: dict[int, Bucket] = {}

    def flow(self, peer_id: int) -> Flow:
        """For a run to this peer."""
        with self._lock:
            bucket = self._buckets.get(peer_id)
            if bucket is None:
                bucket = self._buckets[peer_id] = Bucket(
                    self._clock, self._load_terms(peer_id), self._wait, self._local_time
                )
            return Flow(bucket)

    def reload(self, peer_id: int) -> None:
        """After the record was changed; runs that are under way go on with what it says now."""
        with self._lock:
            bucket = self._buckets.get(peer_id)
            if bucket is not None:
                bucket.change(self._load_terms(peer_id))

    def forget(self, peer_id: int) -> None:
        """After the peer was deleted: its id may be another's next."""
        with self._lock:
            self._buckets.pop(peer_id, None)

    def _load_terms(self, peer_id: int) -> BandwidthTerms | None:
        terms = self._load(peer_id)
        return None if terms.limits_nothing else terms
