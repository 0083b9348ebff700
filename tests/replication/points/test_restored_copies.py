"""Systems that are put back to an earlier copy of their state: what is newer, or unknown, is never overwritten (R5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from offsite import errors, events
from offsite.errors import NotAllowed, NotReplaced, ObjectNotFound, ProtocolError
from offsite.replication.points import other_halves, point_records
from offsite.replication.points.other_halves import OtherHalves
from offsite.replication.points.plan import Adopt, PrimarySide, Relation, Send, Step
from offsite.replication.records import run_records, set_records
from offsite.replication.records.tables import replication_sets
from offsite.replication.runs.run_points import RunPoints
from offsite.replication.transfer.progress import Progress
from offsite.replication.transfer.sender import machine
from offsite.replication.transfer.sender.driver import SenderDriver
from offsite.replication.wire import frames
from offsite.replication.wire.exchange import Asking
from offsite.replication.wire.messages import START, Ask, Begin, Holds, Keep
from tests.replication.lockstep import SET_UUID, End, Link, Nth, World
from tests.replication.sites import random_bytes, template_database

MIB = 1 << 20


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(template_database(), tmp_path / "world", [MIB, MIB])
    yield made
    made.close()


def write(world: World, seed: int) -> None:
    for member in range(world.members):
        world.primary.write(member, 4096 * seed, random_bytes(8192, seed))


def replicate(world: World, seed: int) -> str:
    """A run that is done; what hosts wrote before it is random, by the seed."""
    write(world, seed)
    run = world.request()
    world.attempt(run)
    world.check_done(run)
    return run


def told(end: End) -> list[int]:
    return [kind.code for kind, _ in end.events]


def half(world: World) -> other_halves.OtherHalf | None:
    with world.primary.database.read() as connection:
        return other_halves.find_other_half(connection, world.primary.of.id)


def decide(world: World, base: str) -> None:
    with world.primary.database.transaction() as connection:
        other_halves.allow_replacement(connection, world.primary.of.id, base)


def kept(world: World) -> list[bytes]:
    """What the snapshots on the secondary hold, in the order of the members."""
    found = sorted((i for i in world.secondary.pool.images() if i.kind == "snapshot"), key=lambda image: image.id)
    contents = []
    for info in found:
        buffer = bytearray(info.size_bytes)
        world.secondary.pool.open(info.id).read(0, memoryview(buffer))
        contents.append(bytes(buffer))
    return contents


def diverge(world: World) -> tuple[str, list[bytes]]:
    """London goes back to an older copy; returns the base of the secondary, and what it holds."""
    replicate(world, 1)
    saved = world.primary.save()
    newest = replicate(world, 2)
    world.primary.put_back(saved)
    write(world, 3)
    return newest, world.secondary_content()


def test_a_primary_that_was_restored_does_not_touch_the_newer_copy(world: World) -> None:
    """However often it is tried. The event names both instants; it is told once."""
    world.clock.time = 1_800_000_000.0
    newest, content = diverge(world)
    images = world.secondary.pool.images()
    for _ in range(3):
        with pytest.raises(errors.SetDiverged, match="resolve replication-set use primary S"):
            world.attempt(world.request())
        assert world.secondary_content() == content
    assert world.secondary.pool.images() == images, "not even a partial point is there"
    found = half(world)
    assert found is not None and (found.relation, found.base) == ("diverged", newest)
    ((kind, sentence),) = world.primary.events
    assert kind is events.SET_DIVERGED
    assert sentence.count("2027-01-15 08:00:00 UTC") >= 2 and "digest" in sentence
    assert told(world.secondary).count(events.COPY_PROTECTED.code) == 0


def test_nor_does_one_that_was_restored_to_before_its_first_run(world: World) -> None:
    saved = world.primary.save()
    replicate(world, 1)
    content = world.secondary_content()
    world.primary.put_back(saved)
    with pytest.raises(errors.SetDiverged):
        world.attempt(world.request())
    assert world.secondary_content() == content


def test_a_partial_point_over_there_is_left_alone(world: World) -> None:
    replicate(world, 1)
    saved = world.primary.save()
    replicate(world, 2)
    write(world, 3)
    cut = world.request()
    world.answers.at = world.answers.count + 3
    with pytest.raises(errors.PeerUnreachable):
        world.attempt(cut)
    with world.secondary.database.read() as connection:
        before = point_records.set_points(connection, world.secondary.of.id)
    assert [point.state for point in before] == ["base", "partial"]
    world.primary.put_back(saved)
    with pytest.raises(errors.SetDiverged):
        world.attempt(world.request())
    with world.secondary.database.read() as connection:
        assert point_records.set_points(connection, world.secondary.of.id) == before


def test_an_operator_decides_and_the_copy_stays_as_snapshots_that_are_taken_once(world: World) -> None:
    """The run that follows may be cut anywhere, and is gone on with."""
    newest, content = diverge(world)
    run = world.request()
    with pytest.raises(errors.SetDiverged):
        world.attempt(run)
    decide(world, newest)
    for nth in range(2, 6):
        world.answers = Nth(nth)
        with pytest.raises(errors.PeerUnreachable):
            world.attempt(run)
    world.answers = Nth()
    world.attempt(run)
    world.check_done(run)
    assert kept(world) == content
    assert half(world) is None
    names = sorted(image.name for image in world.secondary.pool.images() if image.kind == "snapshot")
    assert names == ["V0-kept-19700112-1346", "V1-kept-19700112-1346"]
    assert told(world.secondary).count(events.COPY_KEPT.code) == 1
    replicate(world, 4)
    assert kept(world) == content, "no later run touches them"


def test_a_decision_is_about_one_copy_and_no_other(world: World) -> None:
    newest, _ = diverge(world)
    saved = world.primary.save()
    with pytest.raises(errors.SetDiverged):
        world.attempt(world.request())
    decide(world, newest)
    decided = world.primary.save()
    replicate(world, 4)
    content = world.secondary_content()
    for copy in (decided, saved):  # and back again: what was sent since then is unknown, too
        world.primary.put_back(copy)
        with pytest.raises(errors.SetDiverged):
            world.attempt(world.request())
        assert world.secondary_content() == content


def test_a_secondary_that_was_restored_is_filled_from_nothing_with_a_warning(world: World) -> None:
    replicate(world, 1)
    saved = world.secondary.save()
    replicate(world, 2)
    world.secondary.put_back(saved)
    write(world, 3)
    run = world.request()
    world.requests.at = world.requests.count + 2
    with pytest.raises(errors.PeerUnreachable):
        world.attempt(run)
    found = half(world)
    assert found is not None and (found.relation, found.taken_at) == ("older", world.clock.time)
    world.attempt(run)
    world.check_done(run)
    assert told(world.primary) == [events.SECONDARY_IS_OLDER.code], "once"
    assert kept(world) == [] and half(world) is None


def test_so_is_one_that_was_restored_to_before_the_oldest_run_on_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of runs go after a while. What was once complete is known for longer."""
    monkeypatch.setattr("offsite.replication.records.run_writer.RUNS_KEPT", 2)
    replicate(world, 1)
    saved = world.secondary.save()
    for seed in range(2, 7):
        replicate(world, seed)
    world.secondary.put_back(saved)
    replicate(world, 7)


def test_one_that_is_older_than_all_that_is_known_counts_as_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offsite.replication.points.recovery_points.KEPT", 2)
    replicate(world, 1)
    saved = world.secondary.save()
    for seed in range(2, 5):
        replicate(world, seed)
    world.secondary.put_back(saved)
    with pytest.raises(errors.SetDiverged):
        world.attempt(world.request())


def test_one_that_was_restored_to_before_the_first_run_has_nothing_to_lose(world: World) -> None:
    saved = world.secondary.save()
    replicate(world, 1)
    world.secondary.put_back(saved)
    replicate(world, 2)
    assert told(world.primary) == [events.SECONDARY_IS_OLDER.code]
    assert "no complete copy" in world.primary.events[0][1]


def test_both_restored_to_one_point_go_on_and_the_older_of_two_gives_way(world: World) -> None:
    copies = []
    for seed in (1, 2, 3):
        replicate(world, seed)
        copies.append((world.primary.save(), world.secondary.save()))
    world.primary.put_back(copies[1][0])
    world.secondary.put_back(copies[1][1])
    replicate(world, 4)
    assert told(world.primary) == []
    world.primary.put_back(copies[1][0])
    world.secondary.put_back(copies[0][1])
    replicate(world, 5)
    assert told(world.primary) == [events.SECONDARY_IS_OLDER.code]
    world.primary.put_back(copies[0][0])
    world.secondary.put_back(copies[1][1])
    content = world.secondary_content()
    with pytest.raises(errors.SetDiverged):
        world.attempt(world.request())
    assert world.secondary_content() == content


def test_a_copy_of_an_aborted_run_whose_images_are_gone_takes_the_place_of_no_base(world: World) -> None:
    """R3. A primary that was put back with its memory does not know that the run was committed; or its secondary
    lies. Either way the only base that it has stays, and an operator decides."""
    base = replicate(world, 1)
    write(world, 2)
    run = world.request()
    saved = world.primary.save()
    world.attempt(run)
    content = world.secondary_content()
    world.primary.put_back(saved)
    with world.primary.database.read() as connection:
        aborted = run_records.find_run(connection, run)
    assert aborted is not None
    primary = world.primary
    run_points = RunPoints(primary.resources)
    run_points.abort(world.primary.of, aborted, "aborted", may_be_committed=False)
    before = world.primary.save()
    with pytest.raises(errors.SetDiverged):
        world.attempt(world.request())
    assert world.secondary_content() == content
    world.primary.put_back(before)
    assert not world._primary_end("").do(Adopt(run), None)
    with world.primary.database.read() as connection:
        held = point_records.set_points(connection, world.primary.of.id)
    assert [(point.uuid, point.state) for point in held] == [(base, "base")]
    assert len(world.primary.internal_names()) == world.members
    second = world.request()
    with pytest.raises(errors.SetDiverged):
        world.attempt(second)
    decide(world, run)
    world.attempt(second)
    world.check_done(second)
    assert kept(world) == content


def test_a_primary_restored_to_where_the_copy_was_a_run_that_waited_adopts_it(world: World) -> None:
    """The secondary holds a point that this system has, behind the run that is under way, which is overtaken."""
    replicate(world, 1)
    write(world, 2)
    first = world.request()
    write(world, 3)
    second = world.request(give_up=False)
    saved = world.primary.save()
    world.attempt(first)
    world.attempt(second)
    content = world.secondary_content()
    world.primary.put_back(saved)
    world.attempt(first)
    assert world.secondary_content() == content
    world.check_done(second)
    assert half(world) is None


def test_nothing_is_found_of_a_set_that_was_deleted_meanwhile(world: World) -> None:
    replicate(world, 1)
    of, end = world.primary.of, world.primary
    with end.database.transaction() as connection:
        set_records.delete_set(connection, of.id)
    assert not OtherHalves(end.database, end.report, world.clock).found(of, Relation.OLDER, None, None)
    assert told(end) == []


# -- what the secondary itself refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize("replaces", [None, "e" * 36])
def test_a_secondary_gives_up_its_copy_only_to_who_names_it(
    world: World, monkeypatch: pytest.MonkeyPatch, replaces: str | None
) -> None:
    replicate(world, 1)
    content, images = world.secondary_content(), world.secondary.pool.images()

    def from_nothing(primary: PrimarySide, _secondary: Holds) -> list[Step]:
        return [Send(primary.pending[-1], None, START, replaces)]

    monkeypatch.setattr(machine, "plan", from_nothing)
    with pytest.raises(NotReplaced, match="The copy was not changed"):
        world.attempt(world.request())
    assert (world.secondary_content(), world.secondary.pool.images()) == (content, images)
    assert told(world.secondary)[-1] == events.COPY_PROTECTED.code


@pytest.mark.parametrize("generation", [0, 2], ids=["older", "newer"])
@pytest.mark.parametrize("moment", ["Ask", "Begin", "Commit"])
def test_another_generation_is_refused_whenever_it_shows(world: World, generation: int, moment: str) -> None:
    """Roles have changed: whoever was the primary before is not any more, nor is one that is ahead of us."""
    replicate(world, 1)
    content = world.secondary_content()
    link = _ChangingLink(world.secondary, moment, lambda: _set_generation(world.secondary, generation))
    run = world.request()
    with pytest.raises(NotAllowed, match=f"has generation {generation} here, but 1 there"):
        _drive(world, run, link)
    assert world.secondary_content() == content


@pytest.mark.parametrize("moment", ["Begin", "Commit"])
def test_so_is_a_run_whose_set_is_no_secondary_any_more(world: World, moment: str) -> None:
    replicate(world, 1)
    content = world.secondary_content()

    def become_primary() -> None:
        with world.secondary.database.transaction() as connection:
            connection.execute(update(replication_sets).values(role="primary"))

    link = _ChangingLink(world.secondary, moment, become_primary)
    with pytest.raises(ObjectNotFound, match="no longer secondary here"):
        _drive(world, world.request(), link)
    assert world.secondary_content() == content


def test_a_commit_is_refused_when_the_copy_has_changed_since_it_was_begun(world: World) -> None:
    replicate(world, 1)
    content = world.secondary_content()

    def change() -> None:
        with world.secondary.database.transaction() as connection:
            connection.exec_driver_sql("UPDATE points SET uuid = ? WHERE state = 'base'", ("d" * 36,))

    link = _ChangingLink(world.secondary, "Commit", change)
    with pytest.raises(NotReplaced):
        _drive(world, world.request(), link)
    assert world.secondary_content() == content


class _ChangingLink(Link):
    """Something happens on the secondary just before it hears a certain message."""

    def __init__(self, secondary: End, moment: str, change: Callable[[], None]) -> None:
        super().__init__(secondary, Nth(), Nth())
        self._moment, self._change = moment, change

    def send(self, message: Any, table: bytes = b"", data: memoryview = memoryview(b"")) -> None:  # noqa: B008
        if type(message).__name__ == self._moment:
            self._change()
            if self._moment == "Ask":  # which is the first word of a connection: it is opened with it
                self.side._set = self._secondary.of
        super().send(message, table, data)


def _set_generation(end: End, generation: int) -> None:
    with end.database.transaction() as connection:
        connection.execute(update(replication_sets).values(generation=generation))


def _drive(world: World, run: str, link: Link) -> None:
    end = world._primary_end(run)
    driver = SenderDriver(link, end, Progress(run, 0.0, world.clock), lambda: None)
    driver.drive(machine.SenderMachine(run, SET_UUID, 1, Asking("secondary", world.clock)).steps(end.side))


def test_a_begin_with_a_time_that_is_none_is_refused() -> None:
    for taken_at in (float("nan"), float("inf"), -1.0, 1e300):
        begin = Begin(generation=1, run="r" * 36, point="p" * 36, base=None, taken_at=taken_at, sizes_bytes=[4096])
        with pytest.raises(ProtocolError):
            frames.decode_message(frames.encode(begin)[frames.HEAD_BYTES :])


@pytest.mark.parametrize("wrong", [5e9, -3600.0], ids=["2128", "1969"])
def test_a_clock_that_was_wrong_once_blocks_no_set(world: World, wrong: float) -> None:
    """The instants of that time are told ever after: no message that holds one would be taken."""
    world.clock.time = wrong
    replicate(world, 1)
    world.clock.time = 1_800_000_000.0
    saved = world.primary.save()
    replicate(world, 2)
    world.primary.put_back(saved)
    with pytest.raises(errors.SetDiverged):
        world.attempt(world.request())
    found = half(world)
    assert found is not None and found.point is not None


@pytest.mark.parametrize("word", ["Keep", "Begin"])
def test_the_secondary_shows_that_an_operator_has_decided(world: World, word: str) -> None:
    """Until the run is done, which may send everything: "nothing is touched until an operator decides" was still told
    then. What a visit tells meanwhile takes nothing back."""
    newest, _ = diverge(world)
    secondary, of = world.secondary, world.secondary.of
    visited = OtherHalves(secondary.database, secondary.report, world.clock)
    assert visited.found(of, Relation.DIVERGED, None, None)
    assert "until an operator decides" in shown(secondary)
    if word == "Keep":
        side = Link(secondary, Nth(), Nth()).side
        side.look(Ask(set_uuid=SET_UUID, generation=1))
        side.keep(Keep(generation=1, base=newest))
    else:
        run = world.request()
        with pytest.raises(errors.SetDiverged):
            world.attempt(run)
        decide(world, newest)
        world.answers.at = world.answers.count + 2
        with pytest.raises(errors.PeerUnreachable):
            world.attempt(run)
    visited.found(of, Relation.DIVERGED, None, None)
    assert shown(secondary) == "an operator of peer decided to keep the copy here as a snapshot and to replace it"


def shown(end: End) -> str:
    with end.database.read() as connection:
        found = other_halves.find_other_half(connection, end.of.id)
        assert found is not None
        return other_halves.sentence_of(connection, end.of, found)
