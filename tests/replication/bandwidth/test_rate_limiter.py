"""The token bucket of a peer, in virtual time: it holds the rate, is fair, and follows changes."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsite.clock import SystemClock
from offsite.replication.bandwidth.calendar import parse_calendar
from offsite.replication.bandwidth.rate_limiter import (
    BURST_SECONDS,
    SLICE_SECONDS,
    Bandwidths,
    BandwidthTerms,
    Bucket,
    Flow,
)
from tests.replication.lockstep import VirtualClock

MB = 10**6
MONDAY = datetime(2026, 11, 23)


class Sender:
    """Sends batches of one size as fast as it may, and looks again when it was told to."""

    def __init__(self, bucket: Bucket, size_bytes: int) -> None:
        self.bucket, self.flow, self.size_bytes = bucket, Flow(bucket), size_bytes
        self.sent: list[float] = []

    def attempt(self, now: float) -> float:
        """How long to wait before the next attempt."""
        seconds = self.bucket.try_take(self.flow, self.size_bytes)
        if not seconds:
            self.sent.append(now)
        return seconds

    def rate(self, begin: float, end: float) -> float:
        return sum(begin < each <= end for each in self.sent) * self.size_bytes / (end - begin)


def play(clock: VirtualClock, senders: list[Sender], seconds: float) -> Iterator[float]:
    """All senders for some time, in order of time; yields it after each attempt."""
    until = clock.time + seconds
    queue = [(clock.time, position) for position in range(len(senders))]
    while queue:
        now, position = heapq.heappop(queue)
        if now > until:
            continue
        clock.time = now
        heapq.heappush(queue, (now + senders[position].attempt(now), position))
        yield now
    clock.time = until


def run(clock: VirtualClock, senders: list[Sender], seconds: float) -> None:
    for _ in play(clock, senders, seconds):
        pass


@settings(max_examples=30)
@given(
    limit=st.sampled_from([100_000, MB, 37 * MB]),
    sizes=st.lists(st.integers(1 << 16, 1 << 20), min_size=1, max_size=6),
)
def test_all_runs_together_get_the_rate_and_each_its_share(limit: int, sizes: list[int]) -> None:
    clock = VirtualClock()
    bucket = Bucket(clock, BandwidthTerms(limit))
    senders = [Sender(bucket, size) for size in sizes]
    begin, seconds = clock.time, 200 * max(sizes) * len(sizes) / limit
    run(clock, senders, seconds)
    rates = [sender.rate(begin - 1, clock.time) * (seconds + 1) / seconds for sender in senders]
    assert sum(rates) == pytest.approx(limit, rel=0.02)
    for rate in rates:
        assert rate == pytest.approx(limit / len(sizes), rel=0.03)


def test_no_run_waits_for_more_than_a_batch_of_each_other_run() -> None:
    clock = VirtualClock()
    bucket = Bucket(clock, BandwidthTerms(MB))
    senders = [Sender(bucket, MB) for _ in range(5)]
    run(clock, senders, 60)
    late = Sender(bucket, MB)  # one that comes when others have sent much already
    senders.append(late)
    begin = clock.time
    run(clock, senders, 60)
    assert late.sent[0] - begin <= 6.5
    assert late.rate(begin, clock.time) == pytest.approx(MB / 6, rel=0.15), "it makes up for nothing either"
    for sender in senders:
        gaps = [after - before for before, after in pairwise(sender.sent)]
        assert max(gaps) <= 6.5


def test_what_was_not_used_is_not_saved_up() -> None:
    clock = VirtualClock()
    bucket = Bucket(clock, BandwidthTerms(MB))
    sender = Sender(bucket, 50_000)
    run(clock, [sender], 5)
    clock.time += 3600
    begin = clock.time
    run(clock, [sender], 10)
    in_second = sum(begin <= each <= begin + 1 for each in sender.sent) * sender.size_bytes
    assert MB <= in_second <= MB * (1 + BURST_SECONDS) + sender.size_bytes


def test_a_changed_limit_holds_within_a_slice() -> None:
    clock = VirtualClock()
    bucket = Bucket(clock, BandwidthTerms(100_000))
    sender = Sender(bucket, 1 << 20)  # the first batch leaves a debt of ten seconds
    for now in play(clock, [sender], 20):
        if now > 1_000_000.0 + 1:
            break
    assert len(sender.sent) == 1
    bucket.terms = BandwidthTerms(20 * MB)
    begin = clock.time
    run(clock, [sender], 5)
    assert sender.sent[1] - begin <= SLICE_SECONDS
    assert sender.rate(begin + 1, begin + 5) == pytest.approx(20 * MB, rel=0.1)
    bucket.terms = BandwidthTerms(MB)
    begin = clock.time
    run(clock, [sender], 20)
    assert sender.rate(begin, begin + 20) == pytest.approx(MB, rel=0.2)


def test_the_calendar_changes_the_rate_at_its_minute_while_runs_wait() -> None:
    clock = VirtualClock()
    start = clock.time
    terms = BandwidthTerms(MB, parse_calendar("Mon 08:00-09:00 100KB, Mon 09:00-10:00 none"))
    bucket = Bucket(
        clock, terms, local_time=lambda now: MONDAY + timedelta(hours=7, minutes=59, seconds=30 + now - start)
    )
    assert bucket.rate() == MB
    sender = Sender(bucket, 100_000)
    run(clock, [sender], 29)
    assert sender.rate(start, clock.time) == pytest.approx(MB, rel=0.05)
    run(clock, [sender], 31)
    begin = clock.time
    run(clock, [sender], 3539)
    assert sender.rate(begin, clock.time) == pytest.approx(100_000, rel=0.05)
    clock.time = start + 30 + 3600
    assert bucket.rate() is None
    assert all(sender.attempt(clock.time) == 0 for _ in range(1000)), "nothing holds it up"


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 0), ((2026, 10, 25), 2), ((2026, 11, 1), 1)])
def test_an_hour_that_daylight_saving_skips_or_repeats(day: tuple[int, int, int], hours: int) -> None:
    """Britain's clocks go from 01:00 to 02:00 on 29 March 2026, and from 02:00 back to 01:00 on 25 October."""
    london = ZoneInfo("Europe/London")
    clock = VirtualClock()
    terms = BandwidthTerms(calendar=parse_calendar("Sun 01:00-02:00 1MB"))
    bucket = Bucket(clock, terms, local_time=lambda now: datetime.fromtimestamp(now, london))
    midnight = datetime(*day, tzinfo=london).timestamp()
    limited = 0
    for minute in range(5 * 60):
        clock.time = midnight + 60 * minute
        limited += bucket.rate() == MB
    assert limited == 60 * hours


def test_what_was_sent_besides_is_paid_for() -> None:
    clock = VirtualClock()
    bucket = Bucket(clock, BandwidthTerms(MB))
    flow = Flow(bucket)
    assert bucket.try_take(flow, 0) == 0
    flow.charge(100_000)
    assert bucket.try_take(flow, 0) == pytest.approx(0.1)


def test_one_who_leaves_off_waiting_holds_up_nobody() -> None:
    clock = VirtualClock()
    bucket = Bucket(clock, BandwidthTerms(MB), wait=lambda seconds: setattr(clock, "time", clock.time + seconds))
    first, second = Flow(bucket), Flow(bucket)
    waited: list[float] = []
    first.take(MB, waited.append)

    def give_up(waited_seconds: float) -> None:
        if waited_seconds > 0.5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        second.take(MB, give_up)
    first.take(MB, waited.append)
    assert sum(waited) > 0


def test_waiting_goes_in_short_slices_with_a_look_in_between() -> None:
    clock = VirtualClock()
    slices: list[float] = []

    def wait(seconds: float) -> None:
        slices.append(seconds)
        clock.time += seconds

    bucket = Bucket(clock, BandwidthTerms(100_000), wait=wait)
    flow = Flow(bucket)
    looks: list[float] = []
    flow.take(1 << 20, looks.append)
    assert slices == []
    flow.take(1 << 20, looks.append)
    assert len(looks) == len(slices) >= 50
    assert max(slices) <= SLICE_SECONDS
    assert sum(slices) == pytest.approx((1 << 20) / 100_000, rel=0.01)
    assert looks == pytest.approx([sum(slices[:count]) for count in range(len(slices))])


def test_terms_are_loaded_once_and_again_when_told() -> None:
    on_record = {1: BandwidthTerms(), 2: BandwidthTerms(MB)}
    loaded: list[int] = []

    def load(peer_id: int) -> BandwidthTerms:
        loaded.append(peer_id)
        return on_record[peer_id]

    bandwidths = Bandwidths(load, VirtualClock())
    free, limited = bandwidths.flow(1), bandwidths.flow(2)
    assert (free.is_limited, limited.is_limited, loaded) == (False, True, [1, 2])
    on_record[1] = BandwidthTerms(calendar=parse_calendar("Mon 08:00-09:00 1MB"))
    on_record[2] = BandwidthTerms()
    bandwidths.reload(1)
    bandwidths.reload(2)
    bandwidths.reload(3)
    assert (free.is_limited, limited.is_limited, loaded) == (True, False, [1, 2, 1, 2]), "in runs under way"
    bandwidths.forget(1)
    bandwidths.flow(1)
    assert loaded[-1] == 1


def test_the_debt_goes_with_the_limit_under_which_it_was_made() -> None:
    """Lifted today and set again tomorrow, a limit begins anew: no run stands still for bytes of yesterday."""
    on_record = {1: BandwidthTerms(100_000)}
    bandwidths = Bandwidths(lambda peer_id: on_record[peer_id], VirtualClock(), lambda seconds: waited.append(seconds))
    waited: list[float] = []
    bandwidths.flow(1).take(1 << 20, lambda _: None)
    for on_record[1] in (BandwidthTerms(), BandwidthTerms(100_000)):
        bandwidths.reload(1)
    bandwidths.flow(1).take(1 << 20, lambda _: None)
    assert waited == []


def test_threads_share_the_rate() -> None:
    """The same with real threads and a real clock: nothing is lost between them."""
    clock = SystemClock()
    bucket = Bucket(clock, BandwidthTerms(40 * MB))
    until = clock.monotonic() + 1.0
    sent = [0] * 4

    def send(position: int) -> None:
        flow = Flow(bucket)
        while clock.monotonic() < until:
            flow.take(200_000, lambda _waited: None)
            sent[position] += 200_000

    threads = [threading.Thread(target=send, args=(position,)) for position in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(sent) == pytest.approx(40 * MB, rel=0.15)
    assert min(sent) == pytest.approx(10 * MB, rel=0.25)
