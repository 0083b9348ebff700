"""How often what goes wrong: drawn by the seed, in the ranges that TigerBeetle's simulator draws from.

(https://github.com/tigerbeetle/tigerbeetle, src/vopr.zig). Theirs are for each packet or each read; ours are chosen so
that a life of a minute sees some of each, and still gets somewhere. A seed may draw nothing of a kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from random import Random


@dataclass
class Faults:
    """Probabilities; none of them counts any more once `quiet` was called."""

    random: Random
    counts: Counter[str]
    is_on: bool = True
    connection_loss: float = 0.0  # of each message: its connection breaks
    message_survives: float = 0.5  # the message that broke it gets there all the same: its answer is lost
    silent_loss: float = 0.0  # of connections that break: nobody is told
    dial_loss: float = 0.0
    clog: float = 0.0  # of each message: it, and all behind it, waits for seconds
    read_fault: float = 0.0
    write_fault: float = 0.0
    sync_fault: float = 0.0
    corruption: float = 0.0  # of each write of a run on the secondary: the disk stores something else
    crash_at_commit: float = 0.0  # of each commit
    lost_at_crash: float = 1.0  # of the blocks that were not synced
    partition_every_seconds: float = 0.0  # 0: never
    clock_step_every_seconds: float = 0.0
    crash_every_seconds: float = 0.0
    put_back_every_seconds: float = 0.0  # stopped and copied, or put back to that copy
    twin: float = 0.0  # of stops: a copy is started beside the system
    full_disk_every_seconds: float = 0.0  # it takes no new block for a while
    acknowledgement_loss: float = 0.0  # of commits of a run: its connection breaks before the answer
    drawn: dict[str, float] = field(default_factory=dict)

    @classmethod
    def draw(cls, random: Random, counts: Counter[str], later: Random) -> Faults:
        """What came later draws from a `random` of its own, so that seeds without it live as they did."""

        def some(most: float) -> float:
            return 0.0 if random.random() < 0.3 else random.random() * most

        def every(least_seconds: float) -> float:
            return 0.0 if random.random() < 0.3 else least_seconds + random.expovariate(1 / least_seconds)

        faults = cls(
            random,
            counts,
            connection_loss=some(0.06),
            silent_loss=some(0.5),
            dial_loss=some(0.3),
            clog=some(0.02),
            read_fault=some(0.004),
            write_fault=some(0.004),
            sync_fault=some(0.004),
            corruption=some(0.05),
            crash_at_commit=some(0.06),
            lost_at_crash=0.8 + 0.2 * random.random(),
            partition_every_seconds=every(60.0),
            clock_step_every_seconds=every(90.0),
            crash_every_seconds=every(60.0),
            put_back_every_seconds=every(12.0),
            twin=0.5 if later.random() < 0.3 else 0.0,
            full_disk_every_seconds=20.0 if later.random() < 0.3 else 0.0,
            acknowledgement_loss=0.5 if later.random() < 0.3 else 0.0,
        )
        faults.drawn = {
            each.name: round(value, 4)
            for each in fields(faults)
            if isinstance(value := getattr(faults, each.name), float)
        }
        return faults

    def strikes(self, what: str, rate: float) -> bool:
        if not self.is_on or rate <= 0.0 or self.random.random() >= rate:
            return False
        self.counts[what] += 1
        return True

    def quiet(self) -> None:
        """Nothing goes wrong any more."""
        self.is_on = False

    @contextmanager
    def none(self) -> Iterator[None]:
        """For what the simulation itself looks at, or does to set things up."""
        before, self.is_on = self.is_on, False
        try:
            yield
        finally:
            self.is_on = before
