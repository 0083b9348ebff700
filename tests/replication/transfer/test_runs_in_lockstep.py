"""Whole runs with a cut at every message and a crash at every durable step of either side: R1 to R4, R7, R8."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from offsite.errors import (
    DigestMismatch,
    DigestsDiffer,
    OffsiteError,
    PeerLimitReached,
    PeerUnreachable,
    PoolFailed,
    StateDirectoryFull,
)
from offsite.replication.points import holdings, point_records
from offsite.replication.records import run_records
from offsite.replication.runs.run_points import RunPoints
from tests.replication.lockstep import Crash, Nth, World
from tests.replication.sites import random_bytes, template_database

MIB = 1 << 20
SIZES = [3 * MIB, MIB + 4096]


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[[], World]]:
    worlds: list[World] = []

    def make() -> World:
        worlds.append(World(template_database(), tmp_path / str(len(worlds)), SIZES))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


def prepare(world: World, *, initial: bool) -> str:
    """A world in which a run was asked for that has something to send for both members."""
    world.primary.write(0, 0, random_bytes(2 * MIB + 8192, 1))
    world.primary.write(1, 4096, random_bytes(8192, 2))
    if not initial:
        world.attempt(world.request())
        world.primary.write(0, 4096, random_bytes(4096, 3))
        world.primary.write(0, 2 * MIB, random_bytes(4096, 4))
        world.primary.write(1, MIB, random_bytes(4096, 5))
    return world.request()


def finish(world: World, run: str) -> None:
    """After the fault: R1 holds, and one attempt more gets everything there."""
    world.check()
    world.attempt(run)
    world.check_done(run)


@pytest.mark.parametrize("initial", [True, False], ids=["initial", "difference"])
def test_without_faults(make_world: Callable[[], World], initial: bool) -> None:
    world = make_world()
    run = prepare(world, initial=initial)
    world.data_bytes = 0
    world.attempt(run)
    world.check_done(run)
    assert world.data_bytes == (2 * MIB + 16384 if initial else 3 * 4096)


@pytest.mark.parametrize("initial", [True, False], ids=["initial", "difference"])
@pytest.mark.parametrize("direction", ["requests", "answers"])
def test_a_cut_at_every_message(make_world: Callable[[], World], initial: bool, direction: str) -> None:
    cuts = 0
    while True:
        world = make_world()
        run = prepare(world, initial=initial)
        nth: Nth = getattr(world, direction)
        nth.at = nth.count + cuts + 1
        try:
            world.attempt(run)
        except PeerUnreachable:
            cuts += 1
            finish(world, run)
        else:
            break
    world.check_done(run)
    assert cuts >= 5, "Ask, Begin, batches, Commit"


@pytest.mark.parametrize("initial", [True, False], ids=["initial", "difference"])
@pytest.mark.parametrize(
    ("side", "moment"),
    [("primary", "before"), ("primary", "after"), ("secondary", "before"), ("secondary", "after"), ("both", "after")],
)
def test_a_crash_at_every_durable_step(
    make_world: Callable[[], World], initial: bool, side: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`both`: the secondary goes down, and the primary with it. Watermarks are flushed after every batch."""
    monkeypatch.setattr("offsite.replication.transfer.receiver.partial_point.FLUSH_BYTES", 1)
    crashes = 0
    while True:
        world = make_world()
        run = prepare(world, initial=initial)
        end = world.primary if side == "primary" else world.secondary
        nth: Nth = getattr(end, moment)
        nth.at = nth.count + crashes + 1
        try:
            world.attempt(run)
        except Crash:
            crashes += 1
            end.crash()
            if side == "both":
                world.primary.crash()
            finish(world, run)
        else:
            break
    world.check_done(run)
    assert crashes >= (1 if side == "primary" else 4)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_while_the_point_is_taken(make_world: Callable[[], World], moment: str) -> None:
    """Either the request was never made, or its point is there with the run's record, to be gone on with."""
    world = make_world()
    prepare(world, initial=False)
    nth: Nth = getattr(world.primary, moment)
    nth.at = nth.count + 1
    with pytest.raises(Crash):
        world.request()
    world.primary.crash()
    with world.primary.database.read() as connection:
        runs = run_records.set_runs(connection, world.primary.of.id)
        held = holdings.holds(connection, world.primary.of)
    assert len(runs) == (3 if moment == "after" else 2)
    pending = [run.uuid for run in reversed(runs) if run.state != "success"]
    assert held.pending == pending, "also that of the run that was given up for this one"
    run = world.request()
    world.attempt(run)
    world.check_done(run)


def test_a_run_that_was_cut_sends_only_what_is_behind_its_watermark(
    make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offsite.replication.transfer.receiver.partial_point.FLUSH_BYTES", 1)
    world = make_world()
    run = prepare(world, initial=True)
    world.requests.at = world.requests.count + 4  # Ask, Begin, the first batch of 1 MiB, and then no more
    with pytest.raises(PeerUnreachable):
        world.attempt(run)
    assert world.data_bytes == MIB
    world.secondary.crash()
    world.attempt(run)
    world.check_done(run)
    assert world.data_bytes == 2 * MIB + 16384, "each byte once"
    for end in (world.primary, world.secondary):
        with end.database.read() as connection:
            record = run_records.find_run(connection, run)
        assert record is not None
        assert record.changed_bytes == 2 * MIB + 16384, "the record counts the whole run"


@pytest.mark.parametrize("initial", [True, False], ids=["initial", "difference"])
def test_a_byte_that_changes_below_the_watermark_of_a_cut_run_is_found_and_sent_again(
    make_world: Callable[[], World], initial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R2: "equal" was said though it was not: the digest of what had been stored was taken from the record."""
    monkeypatch.setattr("offsite.replication.transfer.receiver.partial_point.FLUSH_BYTES", 1)
    world = make_world()
    run = prepare(world, initial=initial)
    world.requests.at = world.requests.count + 4  # Ask, Begin, the first batch, and then no more
    with pytest.raises(PeerUnreachable):
        world.attempt(run)
    partial = world.secondary.pool.image(partial_image(world))
    image = world.secondary.pool.open(partial.id)
    buffer = bytearray(1)
    image.read(4097, memoryview(buffer))
    image.write(4097, memoryview(bytes([buffer[0] ^ 1])))
    world.secondary.pool.flush()
    before = world.secondary_content()
    with pytest.raises(
        DigestMismatch, match=r"member 0 between offset .* stored data differ from the sent data.*again"
    ):
        world.attempt(run)
    assert world.secondary_content() == before, "never shown as a copy"
    assert [kind.code for kind, _ in world.secondary.events if kind.code != 579] == [664]
    finish(world, run)


def partial_image(world: World) -> int:
    with world.secondary.database.read() as connection:
        held = point_records.set_points(connection, world.secondary.of.id)
    return next(point for point in held if point.state == "partial").image_ids[0]


def test_what_lies_below_the_watermark_is_compared_without_being_sent_again(
    make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when all was sent, and only Committed is missing. Both sides have the same digest of it."""
    monkeypatch.setattr("offsite.replication.transfer.receiver.partial_point.FLUSH_BYTES", 1)
    world = make_world()
    run = prepare(world, initial=True)
    world.requests.at = world.requests.count + 8
    with pytest.raises(PeerUnreachable):
        world.attempt(run)
    world.data_bytes = 0
    world.attempt(run)
    world.check_done(run)
    assert world.data_bytes <= MIB + 16384
    digests = []
    for end in (world.primary, world.secondary):
        with end.database.read() as connection:
            record = run_records.find_run(connection, run)
        assert record is not None
        digests.append(record.digest)
    assert digests[0] == digests[1] is not None


@pytest.mark.parametrize("lost", [False, True], ids=["Committed", "Holds"])
def test_a_copy_whose_digest_is_not_that_of_what_was_sent_is_not_adopted(
    make_world: Callable[[], World], lost: bool
) -> None:
    world = make_world()
    run = prepare(world, initial=True)
    if lost:
        world.answers.at = world.answers.count + 7  # Holds, Ready, four Acks, Committed
        with pytest.raises(PeerUnreachable):
            world.attempt(run)
    world.lie_about_digest = True
    for _ in range(2):
        with pytest.raises(DigestsDiffer, match="the secondary is not a copy"):
            world.attempt(run)
    with world.primary.database.read() as connection:
        held = point_records.set_points(connection, world.primary.of.id)
    assert [point.state for point in held] == ["pending"]
    assert {kind.code for kind, _ in world.primary.events} == {662}


def test_an_aborted_run_whose_digest_differs_is_forgotten_so_that_the_set_can_go_on(
    make_world: Callable[[], World],
) -> None:
    world = make_world()
    run = prepare(world, initial=True)
    world.lie_about_digest = True
    with pytest.raises(DigestsDiffer):
        world.attempt(run)
    with world.primary.database.read() as connection:
        record = run_records.find_run(connection, run)
    assert record is not None
    primary = world.primary
    run_points = RunPoints(primary.resources)
    run_points.abort(world.primary.of, record, "aborted", may_be_committed=True)
    second = world.request()
    with pytest.raises(OffsiteError):
        world.attempt(second)
    with world.primary.database.read() as connection:
        held = point_records.set_points(connection, world.primary.of.id)
    assert [point.uuid for point in held] == [second]


def test_a_later_request_finishes_the_point_that_was_cut_and_then_its_own(make_world: Callable[[], World]) -> None:
    world = make_world()
    first = prepare(world, initial=False)
    world.answers.at = world.answers.count + 2  # the answer to Begin is lost
    with pytest.raises(PeerUnreachable):
        world.attempt(first)
    world.primary.write(0, 0, b"newer" * 100)
    second = world.request()
    world.attempt(second)
    world.check_done(second)


def test_a_point_that_a_later_run_finishes_is_not_told_as_one_that_left_no_snapshot(
    make_world: Callable[[], World],
) -> None:
    """It was never asked to leave one."""
    world = make_world()
    world.keep_history()
    first = prepare(world, initial=True)
    world.answers.at = world.answers.count + 2  # the answer to Begin is lost
    with pytest.raises(PeerUnreachable):
        world.attempt(first)
    world.primary.write(0, 0, b"newer" * 100)
    second = world.request()
    world.attempt(second)
    world.check_done(second)
    assert [kind.code for kind, _ in world.primary.events] == []


@pytest.mark.parametrize("failure", [StateDirectoryFull("full"), PoolFailed("gone"), OSError("the disk")])
@pytest.mark.parametrize("what", ["terms_of", "rotate"])
def test_a_history_that_cannot_be_rotated_fails_no_run(
    make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch, what: str, failure: Exception
) -> None:
    """The run is committed by then: told as failed it would be done again, or be shown so for ever."""

    def fail(*_arguments: object, **_named: object) -> None:
        raise failure

    world = make_world()
    world.keep_history()
    at = "transfer.receiver.run_history.terms_of" if what == "terms_of" else "points.history_rotation.history_of"
    monkeypatch.setattr(f"offsite.replication.{at}", fail)
    world.check_done(prepare_and_attempt(world))


@pytest.mark.parametrize("applied", [1, 2], ids=["Begin", "Commit"])
def test_a_peers_limit_counts_in_the_very_step_that_uses_it(
    make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch, applied: int
) -> None:
    """Two sets of one peer may ask at once: each is within the limit, and both together are not."""
    world = make_world()
    run = prepare(world, initial=True)
    pool, calls = world.secondary.pool, list[int]()
    apply = pool.apply

    def apply_later(*arguments: Any, **named: Any) -> object:
        calls.append(1)
        if len(calls) == applied:
            with world.secondary.database.transaction() as connection:
                connection.exec_driver_sql("UPDATE peers SET secondary_size_limit = 1")
        return apply(*arguments, **named)

    monkeypatch.setattr(pool, "apply", apply_later)
    with pytest.raises(PeerLimitReached):
        world.attempt(run)
    assert len(calls) == applied
    world.check()


def prepare_and_attempt(world: World) -> str:
    run = prepare(world, initial=True)
    world.attempt(run)
    return run


def test_requests_while_a_run_is_under_way_keep_at_most_two_points(make_world: Callable[[], World]) -> None:
    """R8: nothing piles up while a secondary is out of order. The newest one waits, those between are dropped."""
    world = make_world()
    first = prepare(world, initial=False)
    queued = ""
    for number in range(4):
        world.primary.write(0, 0, bytes([number]) * 512)
        queued = world.request(give_up=False)
        with world.primary.database.read() as connection:
            held = point_records.set_points(connection, world.primary.of.id)
            runs = {run.uuid: run.state for run in run_records.set_runs(connection, world.primary.of.id)}
        assert [point.uuid for point in held if point.state == "pending"] == [first, queued]
        assert list(runs.values()).count("dropped") == number
        assert runs[queued] == "queued"
    world.attempt(first)
    world.attempt(queued)
    world.check_done(queued)


def test_a_batch_that_comes_twice_is_harmless(make_world: Callable[[], World]) -> None:
    """R4: the watermark was not durable, so all of it is sent again over what is there already."""
    world = make_world()
    run = prepare(world, initial=True)
    world.requests.at = world.requests.count + 6
    with pytest.raises(PeerUnreachable):
        world.attempt(run)
    world.attempt(run)
    world.check_done(run)
    assert world.data_bytes > 2 * MIB + 16384


def test_a_volume_that_has_grown_grows_over_there(make_world: Callable[[], World]) -> None:
    from offsite.pools.protocol import Resize

    world = make_world()
    prepare(world, initial=False)
    world.primary.pool.apply([Resize(world.primary.of.members[1].image_id, 2 * MIB)])
    world.primary.write(1, 2 * MIB - 4096, b"at the new end")
    run = world.request()
    world.attempt(run)
    world.check_done(run)
    assert len(world.secondary.content(1)) == 2 * MIB


def test_only_the_newest_runs_stay_on_record(make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run a minute for years must not fill the state database."""
    monkeypatch.setattr("offsite.replication.records.run_writer.RUNS_KEPT", 3)
    world = make_world()
    asked = []
    for _ in range(5):
        asked.append(world.request())
        world.attempt(asked[-1])
    for end in (world.primary, world.secondary):
        with end.database.read() as connection:
            assert [run.uuid for run in run_records.set_runs(connection, end.of.id)] == asked[:-4:-1]
