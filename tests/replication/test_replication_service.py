"""Two whole systems over real TLS sockets on loopback, with pools in memory, and what befalls them."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy.exc import OperationalError

from offsite import events
from offsite.errors import InUse, NotAllowed, ObjectNotFound, PeerRefused, PeerUnreachable, PoolFull
from offsite.pools.protocol import Change, ImageInfo, Pool, Records
from offsite.replication.records.run_states import RunEvent
from offsite.replication.records.run_writer import change_run
from offsite.replication.sets.status import Status
from offsite.replication.wire.messages import START, Ack, Ask, Batch, Begin, Holds, Position, Ready
from tests.pools.memory_pool import PAGE_BYTES, MemoryPool
from tests.replication.faulty_pools import WrappedPool
from tests.replication.proxy import Proxy
from tests.replication.sites import Site, pair, random_bytes
from tests.systems import wait_until

MIB = 1 << 20
OTHER_RUN = "o" * 36


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Second tries come soon, watermarks often."""
    monkeypatch.setattr("offsite.replication.runs.retry_policy.FIRST_SECONDS", 0.05)
    monkeypatch.setattr("offsite.replication.transfer.receiver.partial_point.FLUSH_BYTES", MIB)


@pytest.fixture
def volume(london: Site, newark: Site) -> int:
    """Of 16 MiB, with 8 MiB of data, in the set SalesDR."""
    volume = london.create_volume("Sales", 16 * MIB)
    london.write(volume, MIB, random_bytes(8 * MIB))
    pair(london, newark)
    london.create_set("SalesDR", volume, "Newark")
    return volume


@pytest.fixture
def link(london: Site, newark: Site, volume: int) -> Iterator[Proxy]:
    """London reaches Newark through it from now on."""
    assert volume, "they are paired by now"
    proxy = Proxy(newark.port)
    with london.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE peers SET address = ?", (proxy.address,))
    yield proxy
    proxy.close()


def equal(london: Site, newark: Site) -> bool:
    return london.content("Sales") == newark.content("Sales")


def check_clean(london: Site, newark: Site) -> None:
    """One hidden image on each side: the base."""
    assert len(london.internal_names()) == 1
    assert london.internal_names() == newark.internal_names()


def test_initial_run_then_differences(london: Site, newark: Site, volume: int) -> None:
    assert newark.content("Sales") == bytes(16 * MIB)
    first = london.run_to_end("SalesDR")
    assert (first.state, first.percent, first.changed_bytes) == ("success", 100.0, 8 * MIB)
    assert 8 * MIB < first.wire_bytes < 8 * MIB * 1.01
    assert equal(london, newark)
    check_clean(london, newark)

    london.write(volume, 3 * MIB + 4096, b"x" * 4096)
    second = london.run_to_end("SalesDR")
    assert (second.state, second.changed_bytes) == ("success", 4096)
    assert second.wire_bytes < 4096
    assert equal(london, newark)
    check_clean(london, newark)


def test_both_systems_tell_the_same_about_a_run(london: Site, newark: Site, volume: int) -> None:
    assert london.replication.sets.get("SalesDR").image_ids == (volume,)
    before = london.replication.sets.get("SalesDR")
    london.run_to_end("SalesDR")
    here, there = (site.replication.sets.get("SalesDR") for site in (london, newark))
    assert before.status is Status.UNSYNCHRONIZED
    assert here.status is there.status is Status.READY
    assert here.last_run is not None and there.last_run is not None
    for field in ("uuid", "state", "changed_bytes", "wire_bytes", "digest", "error"):
        assert getattr(here.last_run, field) == getattr(there.last_run, field), field
    assert here.last_run.digest is not None
    assert here.recovery_point_at == there.recovery_point_at
    assert here.lag_seconds is not None and 0 <= here.lag_seconds < 60
    for site in (london, newark):
        assert site.events[-1][0] is events.RUN_COMPLETED
        assert "SalesDR" in site.events[-1][1] and "8 MiB" in site.events[-1][1]


def test_a_run_sends_what_was_there_when_it_was_asked_for(london: Site, newark: Site, volume: int) -> None:
    asked = london.content("Sales")
    london.replication.replicate("SalesDR")
    london.write(volume, 0, b"written a moment later")
    london.await_end("SalesDR")
    assert newark.content("Sales") == asked


def test_discarded_ranges_become_holes_over_there(london: Site, newark: Site, volume: int) -> None:
    london.run_to_end("SalesDR")
    image = london.pools["A"].open(volume)
    image.discard(2 * MIB, 4 * MIB)
    london.run_to_end("SalesDR")
    assert equal(london, newark)
    assert newark.pools["A"].image(newark.image_id("Sales")).allocated_bytes == 4 * MIB


def test_what_may_not_run(london: Site, newark: Site, volume: int) -> None:
    with pytest.raises(ObjectNotFound, match="'Other'"):
        london.replication.replicate("Other")
    with pytest.raises(NotAllowed, match="secondary here and cannot be replicated; do it on system London"):
        newark.replication.replicate("SalesDR")
    assert london.replication.progress("SalesDR") is None
    assert volume


def test_one_run_at_a_time(london: Site, newark: Site, link: Proxy) -> None:
    link.stalled.set()
    run = london.replication.replicate("SalesDR").run
    second = london.replication.replicate("SalesDR")
    assert second.state == "queued"
    with pytest.raises(InUse, match="has a run in progress; suspend the set and abort the run first"):
        london.replication.sets.delete("SalesDR")
    link.stalled.clear()
    assert london.await_end("SalesDR", second.run).state == "success"
    assert [record.uuid for record in london.runs("SalesDR")] == [second.run, run]
    assert {record.state for record in london.runs("SalesDR")} == {"success"}
    assert equal(london, newark)


# -- the link --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut_at", [100, 3_000, 3 * MIB, 8 * MIB])
def test_a_run_that_was_cut_goes_on_by_itself_where_it_was(
    london: Site, newark: Site, link: Proxy, cut_at: int
) -> None:
    link.cut_at = link.bytes_there + cut_at
    ended = london.run_to_end("SalesDR")
    assert (ended.state, ended.error) == ("success", None)
    assert equal(london, newark)
    check_clean(london, newark)
    assert ended.changed_bytes >= 8 * MIB
    assert london.runs("SalesDR")[0].error is None


def test_a_link_that_is_cut_again_and_again_still_gets_everything_there(
    london: Site, newark: Site, link: Proxy
) -> None:
    done = threading.Event()

    def harass() -> None:
        while not done.wait(0.03):
            link.cut()

    thread = threading.Thread(target=harass)
    thread.start()
    london.replication.replicate("SalesDR")
    threading.Event().wait(0.5)
    done.set()
    thread.join()
    assert london.await_end("SalesDR").state == "success"
    assert equal(london, newark)
    check_clean(london, newark)


def test_a_link_that_stalls_is_given_up_and_tried_again(
    london: Site, newark: Site, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-open connection must not hold a run for ever (R8)."""
    monkeypatch.setattr("offsite.replication.link.dialer.SILENCE_SECONDS", 0.3)
    monkeypatch.setattr("offsite.replication.link.dialer.CONNECT_SECONDS", 0.3)
    link.stalled.set()
    london.replication.replicate("SalesDR")
    waiting = london.await_progress("SalesDR", lambda now: now.state == "waiting")
    assert waiting.error is not None
    assert london.replication.sets.get("SalesDR").status is Status.SUSPENDED
    link.cut()
    link.stalled.clear()
    assert london.await_end("SalesDR").state == "success"
    assert equal(london, newark)


# -- the other system ------------------------------------------------------------------------------------------


def test_a_secondary_that_crashes_half_way_is_gone_on_with(london: Site, newark: Site, link: Proxy) -> None:
    """What it had not yet made durable is lost, and sent again."""
    reached, go = threading.Event(), threading.Event()
    pause(newark, reached, go)
    london.replication.replicate("SalesDR")
    assert reached.wait(10)
    assert newark.content("Sales") == bytes(16 * MIB), "until the commit the volume is what it was"
    link.cut()
    go.set()
    newark.wrap = lambda pool: pool
    newark.restart(crash=True)
    link.target_port = newark.port
    assert london.await_end("SalesDR").state == "success"
    assert equal(london, newark)
    check_clean(london, newark)


def test_a_primary_that_stops_goes_on_at_its_next_start(london: Site, newark: Site, volume: int) -> None:
    reached, go = threading.Event(), threading.Event()
    pause(newark, reached, go)
    run = london.replication.replicate("SalesDR").run
    assert reached.wait(10)
    go.set()
    london.restart(crash=True)
    ended = london.await_end("SalesDR")
    assert (ended.state, ended.run) == ("success", run)
    assert equal(london, newark)
    check_clean(london, newark)
    assert volume


def test_a_run_waits_for_a_peer_that_is_down_also_over_a_restart(london: Site, newark: Site, volume: int) -> None:
    newark.replication.stop()
    run = london.replication.replicate("SalesDR").run
    waiting = london.await_progress("SalesDR", lambda now: now.state == "waiting")
    assert waiting.error is not None and "Connection refused" in waiting.error
    assert london.runs("SalesDR")[0].error == waiting.error
    london.restart()
    london.await_progress("SalesDR", lambda now: now.state == "waiting")
    newark.open()
    newark.start()
    ended = london.await_end("SalesDR")
    assert (ended.state, ended.run) == ("success", run)
    assert equal(london, newark)
    assert volume


def test_a_set_whose_peer_is_gone_for_good_can_be_deleted_here(london: Site, newark: Site, volume: int) -> None:
    newark.replication.stop()
    london.replication.replicate("SalesDR")
    london.await_progress("SalesDR", lambda now: now.state == "waiting")
    with pytest.raises(InUse, match="abort the run first"):
        london.replication.sets.delete("SalesDR")
    assert not london.replication.abort("SalesDR"), "nobody there to be told"
    with pytest.raises(PeerUnreachable, match="Connection refused"):
        london.replication.sets.delete("SalesDR")
    london.replication.sets.delete("SalesDR", local_only=True)
    assert london.internal_names() == []
    london.needs.check_deletable([london.pool.image(volume)])
    newark.open()
    newark.start()


def pause(site: Site, reached: threading.Event, go: threading.Event) -> None:
    """Lets a system stand still in the middle of what it stores."""
    writes = 0

    def on_write(_offset: int, data: memoryview) -> memoryview:
        nonlocal writes
        writes += 1
        if writes == 5:
            reached.set()
            assert go.wait(20)
        return data

    wrap(site, on_write)


def wrap(site: Site, on_write: object) -> None:
    def wrapped(pool: MemoryPool) -> Pool:
        return WrappedPool(pool, on_write)  # type: ignore[arg-type]  # it is what it is given

    site.wrap = wrapped
    site.pools["A"] = wrapped(site.pool)


# -- the disk over there ---------------------------------------------------------------------------------------


def test_a_full_secondary_fails_the_run_and_keeps_its_volume(london: Site, newark: Site, volume: int) -> None:
    london.write(volume, 0, b"first")
    assert london.run_to_end("SalesDR").state == "success"
    before = newark.content("Sales")
    london.write(volume, 9 * MIB, random_bytes(4 * MIB, 7))
    newark.pool.pages_max = newark.pool.pages_used() + 2 * MIB // PAGE_BYTES

    failed = london.run_to_trouble("SalesDR")
    assert failed.error == (
        "Newark: pool A is full: no free page is left; the secondary volume is unchanged, and the run continues from "
        "here once there is space"
    )
    assert newark.content("Sales") == before
    for site in (london, newark):
        wait_until("both tell why", lambda site=site: "pool A is full" in (site.runs("SalesDR")[0].error or ""))  # type: ignore[misc]
        assert site.runs("SalesDR")[0].state == "running"
        assert site.replication.sets.get("SalesDR").status is Status.SUSPENDED
    told = [message for kind, message in london.events if kind is events.SET_SUSPENDED_ITSELF]
    assert len(told) == 1 and "pool A is full" in told[0], "once, however often it is tried"

    newark.pool.pages_max = 1 << 30
    ended = london.await_end("SalesDR", failed.run)
    assert ended.state == "success"
    assert 4 * MIB <= ended.changed_bytes < 5 * MIB, "it went on from the watermark"
    assert equal(london, newark)
    check_clean(london, newark)


def test_a_disk_that_stores_something_else_is_found_out(london: Site, newark: Site, volume: int) -> None:
    """R2: without equal digests there is no recovery point."""
    london.run_to_end("SalesDR")
    before = newark.content("Sales")

    def flip_a_bit(offset: int, data: memoryview) -> memoryview:
        damaged = bytearray(data)
        if offset <= 5 * MIB + 123 < offset + len(data):
            damaged[5 * MIB + 123 - offset] ^= 4
        return memoryview(damaged)

    wrap(newark, flip_a_bit)
    london.write(volume, 4 * MIB, random_bytes(3 * MIB, 9))
    failed = london.run_to_trouble("SalesDR")
    assert failed.error == f"Newark: member 0 at offset {5 * MIB + 123}: the stored data differ from the sent data"
    assert newark.content("Sales") == before
    assert newark.runs("SalesDR")[0].state == "running"

    wrap(newark, lambda _offset, data: data)
    assert london.await_end("SalesDR", failed.run).state == "success"
    assert equal(london, newark)


def test_a_disk_that_fails_ends_the_run_with_its_error(london: Site, newark: Site, volume: int) -> None:
    def fail(_offset: int, _data: memoryview) -> memoryview:
        raise OSError(errno.EIO, "Input/output error")

    wrap(newark, fail)
    failed = london.run_to_trouble("SalesDR")
    assert failed.error == "Newark: its pool failed: [Errno 5] Input/output error"
    assert newark.content("Sales") == bytes(16 * MIB)
    assert volume


def test_a_disk_that_fails_here_ends_the_run_with_its_error(
    london: Site, volume: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("tests.pools.memory_pool.MemoryOpenImage.read_nowait", fail)
    failed = london.run_to_trouble("SalesDR")
    assert failed.error == "pool A failed: [Errno 5] Input/output error"
    assert london.runs("SalesDR")[0].state == "running", "it will be tried again"
    assert volume


def test_a_state_database_that_fails_ends_the_run_on_either_side(
    london: Site, newark: Site, volume: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system under a state directory is full: a clear error, and later it goes on."""

    def fail(*_arguments: object, **_more: object) -> None:
        raise OperationalError("UPDATE", {}, Exception()) from sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(newark.pool, "flush", fail)
        broken.setattr(newark.pool, "apply", fail)
        failed = london.run_to_trouble("SalesDR")
        assert failed.error == "Newark: its state database failed: database or disk is full"
    with monkeypatch.context() as broken:
        broken.setattr("offsite.replication.transfer.sender.endpoint.SenderEndpoint.do", fail)
        london.await_trouble("SalesDR", "the state database failed: database or disk is full")
    assert london.await_end("SalesDR", failed.run).state == "success"
    assert equal(london, newark)
    check_clean(london, newark)
    assert volume


def test_a_commit_that_takes_long_is_waited_for(
    london: Site, newark: Site, volume: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secondary tells that it is alive, so that a slow disk is not taken for a dead link."""
    monkeypatch.setattr("offsite.replication.inbound.session.WORKING_SECONDS", 0.02)
    monkeypatch.setattr("offsite.replication.link.dialer.SILENCE_SECONDS", 0.15)
    apply = newark.pool.apply

    def slow_apply(changes: Sequence[Change], records: Records | None = None) -> list[ImageInfo]:
        threading.Event().wait(0.4)
        return apply(changes, records)

    monkeypatch.setattr(newark.pool, "apply", slow_apply)
    ended = london.run_to_end("SalesDR")
    assert (ended.state, ended.error) == ("success", None)
    assert equal(london, newark)
    assert volume


def test_a_last_watermark_that_cannot_be_kept_costs_nothing_else(
    london: Site, newark: Site, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is cut while the disk over there is full: the flush that would save the rest fails, too."""
    monkeypatch.setattr("offsite.replication.transfer.receiver.partial_point.FLUSH_BYTES", 1 << 40)
    tried = threading.Event()

    def full(_records: Records | None = None) -> None:
        tried.set()
        raise PoolFull("no space for metadata")

    with monkeypatch.context() as broken:
        broken.setattr(newark.pool, "flush", full)
        link.cut_at = link.bytes_there + 3 * MIB
        london.replication.replicate("SalesDR")
        assert tried.wait(10)
    assert london.await_end("SalesDR").state == "success"
    assert equal(london, newark)
    check_clean(london, newark)


def test_a_flush_that_never_ends_does_not_hold_its_connection(
    london: Site, newark: Site, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offsite.replication.inbound.session.ANSWER_SECONDS", 0.05)
    monkeypatch.setattr("offsite.replication.transfer.receiver.partial_point.FLUSH_BYTES", 1 << 40)
    hangs, go = threading.Event(), threading.Event()
    flush = newark.pool.flush

    def hang(records: Records | None = None) -> None:
        hangs.set()
        go.wait(20)
        flush(records)

    monkeypatch.setattr(newark.pool, "flush", hang)
    link.cut_at = link.bytes_there + 3 * MIB
    london.replication.replicate("SalesDR")
    assert hangs.wait(10)
    assert london.await_end("SalesDR").state == "success", "a new connection does not wait for it"
    go.set()
    assert equal(london, newark)
    check_clean(london, newark)


def test_a_full_pool_here_starts_no_run(
    london: Site, newark: Site, volume: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise PoolFull("pool A is full")

    with monkeypatch.context() as broken:
        broken.setattr(london.pool, "apply", full)  # no space for one snapshot more
        with pytest.raises(PoolFull):
            london.replication.replicate("SalesDR")
    (refused,) = london.runs("SalesDR")
    assert (refused.state, refused.error) == ("failed", "pool A is full")
    assert london.run_to_end("SalesDR").state == "success"
    assert equal(london, newark)
    assert volume


def test_a_set_deleted_over_there_while_it_is_filled(london: Site, newark: Site, volume: int) -> None:
    reached, go = threading.Event(), threading.Event()
    pause(newark, reached, go)
    london.replication.replicate("SalesDR")
    assert reached.wait(10)
    deleting = threading.Thread(target=newark.replication.sets.delete, args=("SalesDR", True))
    deleting.start()
    go.set()
    deleting.join(10)
    london.await_trouble("SalesDR", "the replication set does not exist here")
    assert newark.internal_names() == []
    assert newark.content("Sales") == bytes(16 * MIB)
    assert volume


# -- messages out of order -------------------------------------------------------------------------------------


def test_a_connection_that_was_overtaken_stores_nothing_more(london: Site, newark: Site, volume: int) -> None:
    """The batches of a half-dead connection must not get into what a newer one has committed."""
    of = london.replication.sets.record("SalesDR")
    peers = london.replication.peers
    ask = Ask(set_uuid=of.uuid, generation=1)
    begin = Begin(generation=1, run="r" * 36, point="r" * 36, base=None, taken_at=0.0, sizes_bytes=[16 * MIB])
    with peers.connect(peers.record("Newark")) as old, peers.connect(peers.record("Newark")) as new:
        old.channel.ask(old.asking, ask, Holds)
        ready = old.channel.ask(old.asking, begin, Ready)
        assert ready.watermark == START
        new.channel.ask(new.asking, ask, Holds)
        batch = Batch(sequence=0, position=Position(1, 0), extents=0, data_bytes=0, compression=0, digest=bytes(16))
        with pytest.raises(InUse, match="a newer connection continues"):
            old.channel.ask(old.asking, batch, Ack)
    assert volume
    assert newark.internal_names() == ["<" + "r" * 36 + " 0>"], "what was begun is there to be gone on with"


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (Ask(set_uuid="x" * 36, generation=1), "the replication set does not exist here"),
        (
            Begin(generation=1, run="r" * 36, point="p" * 36, base=None, taken_at=0.0, sizes_bytes=[1]),
            "unexpected",
        ),
        (Batch(sequence=0, position=START, extents=0, data_bytes=0, compression=0, digest=bytes(16)), "unexpected"),
    ],
    ids=["unknown set", "Begin before Ask", "Batch before Ask"],
)
def test_messages_out_of_order_are_refused(
    london: Site, newark: Site, volume: int, message: Ask | Begin | Batch, sentence: str
) -> None:
    peers = london.replication.peers
    with (
        peers.connect(peers.record("Newark")) as connection,
        pytest.raises((ObjectNotFound, PeerRefused), match=sentence),
    ):
        connection.channel.ask(connection.asking, message, Holds)
    assert london.run_to_end("SalesDR").state == "success"
    assert equal(london, newark)
    assert volume


@pytest.mark.parametrize(
    ("begin", "sentence"),
    [
        (
            Begin(generation=1, run=OTHER_RUN, point="p" * 36, base=None, taken_at=0.0, sizes_bytes=[1]),
            "does not belong to replication set",
        ),
        (
            Begin(generation=1, run="r" * 36, point="p" * 36, base=None, taken_at=0.0, sizes_bytes=[1, 1]),
            "has 2 members",
        ),
        (
            Begin(generation=1, run="r" * 36, point="p" * 36, base="b" * 36, taken_at=0.0, sizes_bytes=[1]),
            "is None here, not b",
        ),
    ],
    ids=["run", "members", "base"],
)
def test_a_point_that_does_not_fit_the_set_is_refused(
    london: Site, newark: Site, volume: int, begin: Begin, sentence: str
) -> None:
    peers, of = london.replication.peers, london.replication.sets.record("SalesDR")
    london.create_set("Other", london.create_volume("Other", MIB), "Newark")
    with newark.database.transaction() as connection:
        change_run(connection, newark.replication.sets.record("Other").id, OTHER_RUN, RunEvent.BEGIN, 0.0)
    with peers.connect(peers.record("Newark")) as connection:
        connection.channel.ask(connection.asking, Ask(set_uuid=of.uuid, generation=1), Holds)
        with pytest.raises(Exception, match=sentence):
            connection.channel.ask(connection.asking, begin, Ready)
    assert newark.internal_names() == []
    assert volume


def test_a_point_that_is_there_already_is_not_begun_again(london: Site, newark: Site, volume: int) -> None:
    """A Begin from long ago must not fill what has become the base."""
    run = london.run_to_end("SalesDR").run
    peers, of = london.replication.peers, london.replication.sets.record("SalesDR")
    begin = Begin(generation=1, run=run, point=run, base=None, taken_at=0.0, sizes_bytes=[16 * MIB])
    with peers.connect(peers.record("Newark")) as connection:
        connection.channel.ask(connection.asking, Ask(set_uuid=of.uuid, generation=1), Holds)
        with pytest.raises(PeerRefused, match=f"already holds point {run}"):
            connection.channel.ask(connection.asking, begin, Ready)
    assert equal(london, newark)
    check_clean(london, newark)
    assert volume


def test_a_point_that_was_begun_and_given_up_makes_room_for_another(london: Site, newark: Site, volume: int) -> None:
    peers, of = london.replication.peers, london.replication.sets.record("SalesDR")
    begin = Begin(generation=1, run="r" * 36, point="r" * 36, base=None, taken_at=0.0, sizes_bytes=[16 * MIB])
    with peers.connect(peers.record("Newark")) as connection:
        connection.channel.ask(connection.asking, Ask(set_uuid=of.uuid, generation=1), Holds)
        connection.channel.ask(connection.asking, begin, Ready)
    assert london.run_to_end("SalesDR").state == "success"
    check_clean(london, newark)
    (given_up,) = [run for run in newark.runs("SalesDR") if run.uuid == "r" * 36]
    assert (given_up.state, given_up.error) == ("failed", "the primary ended it")
    assert volume


def test_a_set_of_another_generation_is_refused(london: Site, newark: Site, volume: int) -> None:
    """R5: after a change of roles the old primary has nothing to say."""
    with newark.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE replication_sets SET generation = 2")
    failed = london.run_to_trouble("SalesDR")
    assert failed.error == (
        "Newark: replication set SalesDR has generation 2 here, but 1 there: its roles have changed"
    )
    assert volume


def test_a_set_that_thinks_it_is_primary_on_both_systems_does_not_run(london: Site, newark: Site, volume: int) -> None:
    with newark.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE replication_sets SET role = 'primary'")
    failed = london.run_to_trouble("SalesDR")
    assert failed.error == "Newark: replication set SalesDR is also primary here"
    assert volume


def test_a_run_goes_on_by_itself_once_the_hook_that_a_stop_cut_went_well(london: Site, newark: Site) -> None:
    pair(london, newark)
    hook = london.directory / "hooks" / "thaw"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\n: > begun; while [ ! -e go ]; do sleep 0.05; done\n")
    hook.chmod(0o700)
    london.create_set("SalesDR", london.create_volume("Sales", 1 << 20), "Newark")
    of = london.replication.sets.record("SalesDR")
    with london.replication.dispatcher.standing_still(of.uuid, 0.0):
        london.replication.replicate("SalesDR")
        with london.database.transaction() as connection:  # as a stop in the middle of the hook leaves it
            connection.exec_driver_sql("UPDATE runs SET after_snapshot_due = 1")
            connection.exec_driver_sql("UPDATE replication_sets SET after_snapshot = 'thaw'")
        london.restart()
    wait_until("the hook runs", (hook.parent / "begun").exists)
    wait_until("the peer was looked at", lambda: london.replication.peers.online("Newark"))
    assert london.runs("SalesDR")[0].state == "running"
    (hook.parent / "go").touch()
    wait_until("the run is done", lambda: london.runs("SalesDR")[0].state == "success", 10)
