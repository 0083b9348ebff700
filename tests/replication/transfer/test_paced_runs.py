"""Runs over a limited link, in virtual time: they hold the rate, no wait of ours counts as the peer's silence, and
the other side hears from us while we wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from offsite.errors import PeerUnreachable
from offsite.replication.bandwidth.rate_limiter import BURST_SECONDS, SLICE_SECONDS, BandwidthTerms, Bucket, Flow
from offsite.replication.transfer.progress import Progress
from offsite.replication.transfer.sender.driver import PING_SECONDS, SenderDriver
from offsite.replication.transfer.sender.machine import SenderMachine
from offsite.replication.wire.exchange import Asking
from offsite.replication.wire.messages import AnyMessage, Batch, Done, Ping
from tests.replication.lockstep import SET_UUID, Link, Nth, World
from tests.replication.sites import random_bytes, template_database

MIB = 1 << 20
BATCHES = 6


class TimedLink(Link):
    """Answers pings as a session does, notes when what was sent, and lets each answer take some time."""

    def __init__(self, world: World, answer_seconds: float = 0.0) -> None:
        super().__init__(world.secondary, Nth(), Nth())
        self._clock = world.clock
        self._answer_seconds = answer_seconds
        self._answer_at: list[float] = []
        self.silent = False
        self.sent: list[tuple[float, AnyMessage]] = []
        self.batches_bytes: list[int] = []

    def send(self, message: AnyMessage, table: bytes = b"", data: memoryview = memoryview(b"")) -> None:  # noqa: B008
        self.sent.append((self._clock.time, message))
        before = self.wire_bytes
        if isinstance(message, Ping):
            self._answers.append(Done())
        else:
            super().send(message, table, data)
        if isinstance(message, Batch):
            self.batches_bytes.append(self.wire_bytes - before)
        self._answer_at.append(self._clock.time + self._answer_seconds)

    def readable(self) -> bool:
        return super().readable() and not self.silent and self._clock.time >= self._answer_at[0]

    def receive(self, timeout_seconds: float) -> tuple[AnyMessage, memoryview] | None:
        if self._answers and not self.silent:
            self._clock.time = max(self._clock.time, min(self._answer_at[0], self._clock.time + timeout_seconds))
            if self.readable():
                self._answer_at.pop(0)
                return super().receive(timeout_seconds)
            return None
        self._clock.time += timeout_seconds
        return None

    def longest_gap(self) -> float:
        times = [time for time, _ in self.sent]
        return max(after - before for before, after in pairwise(times))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(template_database(), tmp_path / "world", [8 * MIB])
    made.primary.write(0, 0, random_bytes(BATCHES * MIB, 1))
    yield made
    made.close()


def bucket_of(world: World, limit: int | None) -> Bucket:
    def wait(seconds: float) -> None:
        world.clock.time += seconds

    return Bucket(world.clock, None if limit is None else BandwidthTerms(limit), wait)


def attempt(
    world: World, run: str, link: TimedLink, bucket: Bucket | None, check_stopped: Callable[[], None] = lambda: None
) -> None:
    end = world._primary_end(run)
    pacing = None if bucket is None else Flow(bucket)
    driver = SenderDriver(link, end, Progress(run, 0.0, world.clock), check_stopped, pacing)
    try:
        driver.drive(SenderMachine(run, SET_UUID, 1, Asking("secondary", world.clock)).steps(end.side))
    finally:
        link.side.close()


@pytest.mark.parametrize("limit", [25_000, 52_000, 1_000_000], ids=["42 s a batch", "20 s a batch", "1 s a batch"])
@pytest.mark.parametrize("answer_seconds", [0.0, 5.0, 25.0])
def test_a_run_holds_its_rate_however_long_a_batch_takes(world: World, limit: int, answer_seconds: float) -> None:
    """A peer that is silent for 30 s counts as gone: with 42 s a batch only our own waiting is as long."""
    run = world.request()
    begin = world.clock.time
    link = TimedLink(world, answer_seconds)
    attempt(world, run, link, bucket_of(world, limit))
    world.check_done(run)
    batches = [(time, message) for time, message in link.sent if isinstance(message, Batch) and message.data_bytes]
    assert len(batches) == BATCHES
    all_but_last = sum(link.batches_bytes[: BATCHES - 1])  # the debt of the last is not waited for
    assert batches[-1][0] - batches[0][0] == pytest.approx(all_but_last / limit, rel=0.01, abs=BURST_SECONDS + 0.01)
    assert world.clock.time - begin < sum(link.batches_bytes) / limit + 5 * answer_seconds + 1
    assert link.longest_gap() <= PING_SECONDS + SLICE_SECONDS, "the other side gives up after 120 s"


def test_what_counts_are_bytes_on_the_wire(world: World) -> None:
    """After compression, and with the frames around: here more than half of all."""
    world.primary.write(0, 0, b"Offsite " * (BATCHES * MIB // 8))
    run = world.request()
    link = TimedLink(world)
    limit = 20
    attempt(world, run, link, bucket_of(world, limit))
    world.check_done(run)
    batches = [time for time, message in link.sent if isinstance(message, Batch)]
    assert link.data_bytes < sum(link.batches_bytes) / 2 < 500 * BATCHES
    all_but_last = sum(link.batches_bytes[:-1])
    assert batches[-1] - batches[0] == pytest.approx(all_but_last / limit, rel=0.02)


def test_a_peer_that_is_silent_is_still_noticed(world: World) -> None:
    run = world.request()
    link = TimedLink(world)

    def falls_silent() -> None:
        link.silent = any(isinstance(message, Batch) for _, message in link.sent)

    with pytest.raises(PeerUnreachable, match="received nothing from secondary for 30 s"):
        attempt(world, run, link, bucket_of(world, 25_000), falls_silent)
    assert sum(isinstance(message, Batch) for _, message in link.sent) == 2
    attempt(world, run, TimedLink(world), None)
    world.check_done(run)


def test_a_stop_ends_the_waiting_within_a_slice(world: World) -> None:
    class Stopped(Exception):
        pass

    run = world.request()
    stop_at = world.clock.time + 10.05

    def check_stopped() -> None:
        if world.clock.time >= stop_at:
            raise Stopped

    bucket = bucket_of(world, 25_000)
    with pytest.raises(Stopped):
        attempt(world, run, TimedLink(world), bucket, check_stopped)
    assert world.clock.time - stop_at <= SLICE_SECONDS
    bucket.terms = None
    attempt(world, run, TimedLink(world), bucket)
    world.check_done(run)


def test_a_limit_that_is_set_or_lifted_during_a_run_is_kept_from_then_on(world: World) -> None:
    run = world.request()
    bucket = bucket_of(world, None)
    link = TimedLink(world)
    seen: list[float] = []

    def change() -> None:
        batches = sum(isinstance(message, Batch) for _, message in link.sent)
        if batches == 2 and not seen:
            seen.append(world.clock.time)
            bucket.terms = BandwidthTerms(100_000)
        if len(seen) == 1 and world.clock.time > seen[0] + 15:
            seen.append(world.clock.time)
            bucket.terms = BandwidthTerms(100 * MIB)

    begin = world.clock.time
    attempt(world, run, link, bucket, change)
    world.check_done(run)
    times = [time for time, message in link.sent if isinstance(message, Batch)]
    assert times[0] == times[1] == times[2] == begin, "two without a limit, and one into debt"
    assert times[3] - times[2] == pytest.approx(10.5, abs=0.3)
    assert times[5] - seen[1] < 0.5


def test_without_a_limit_nothing_is_asked_of_the_bucket(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_arguments: object) -> float:
        raise AssertionError("the bucket was asked")

    monkeypatch.setattr(Bucket, "try_take", asked)
    monkeypatch.setattr(Bucket, "charge", asked)
    run = world.request()
    link = TimedLink(world)
    attempt(world, run, link, bucket_of(world, None))
    world.check_done(run)
    assert not any(isinstance(message, Ping) for _, message in link.sent)
