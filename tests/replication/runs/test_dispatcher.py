"""Which runs are sent when: turns, retries, the queue. Attempts are ended by hand, on a clock of our own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from offsite import events
from offsite.errors import NotAllowed, PeerUnreachable, PoolFull, StateDirectoryError
from offsite.events import EventKind
from offsite.replication.records import peer_records, set_records
from offsite.replication.records.run_records import RunRecord
from offsite.replication.records.run_states import RunEvent
from offsite.replication.records.run_writer import change_run
from offsite.replication.records.set_records import SetRecord
from offsite.replication.runs.attempt import Attempt, ProgramFault
from offsite.replication.runs.hooks import HookDirectory
from offsite.replication.service import Replication
from offsite.replication.sets.status import Status
from offsite.store.settings import RETRY_CADENCE, RUNS_AT_A_TIME, Settings
from tests.replication.lockstep import VirtualClock
from tests.replication.sites import Site

MIB = 1 << 20


class Quiet(Site):
    """A system that does nothing by itself: its attempts are kept in a list."""

    def open(self) -> None:
        super().open()
        self.clock = VirtualClock()
        self.attempts: list[Attempt] = []
        self.told: list[tuple[EventKind, str]] = []
        self.first_waits: dict[str, float] = {}  # by the run
        self.replication = Replication(
            self.database,
            self.pools,
            self.needs,
            self.authority,
            self.identity,
            ("127.0.0.1", 0),
            self.authenticate,
            HookDirectory(self.directory / "hooks"),
            lambda kind, message: self.told.append((kind, message)),
            self.clock,
            start_attempt=self.attempts.append,
        )

    def add_peer(self) -> None:
        values = {"name": "Newark", "system_uuid": "u", "system_name": "Newark", "address": "127.0.0.1:1"}
        with self.database.transaction() as connection:
            peer_records.insert_peer(connection, values | {"certificate": b"", "created_at": 0.0})

    def add_set(self, name: str) -> SetRecord:
        image_id = self.create_volume(f"V{name}", MIB)
        values = {"uuid": f"uuid-{name}", "name": name, "role": "primary", "state": "ready", "peer_id": 1}
        with self.database.transaction() as connection:
            members = [set_records.MemberRecord(image_id, name)]
            values |= {"remote_pool": "A", "generation": 1, "created_at": 0.0}
            set_records.insert_set(connection, values, members)
        return self.replication.sets.record(name)

    def step(self) -> float | None:
        return self.replication.dispatcher.step()

    def succeed(self, attempt: Attempt) -> None:
        """As after the last step of the machine: the point is the base."""
        with self.database.transaction() as connection:
            change_run(connection, attempt.set.id, attempt.progress.run, RunEvent.COMPLETE, self.clock.now())
        self.end(attempt, None)

    def end(self, attempt: Attempt, error: Exception | None) -> None:
        self.attempts.remove(attempt)
        attempt.finish(error)

    def under_way(self) -> list[str]:
        return [attempt.set.name for attempt in self.attempts]


@pytest.fixture
def london(tmp_path: Path) -> Iterator[Quiet]:
    site = Quiet(tmp_path / "london", "London")
    site.add_peer()
    yield site
    site.database.close()


def test_runs_have_their_turn_in_the_order_of_their_requests(london: Quiet) -> None:
    """With two slots, five sets: nobody is overtaken, and nobody runs beside more than one other."""
    for name in "EBADC":
        london.add_set(name)
    for name in "CADBE":
        london.replication.replicate(name)
        london.step()
    seen: list[str] = []
    for _ in range(5):
        assert len(london.attempts) <= 2
        first = london.attempts[0]
        seen.append(first.set.name)
        london.succeed(first)
        london.step()
    assert seen == ["C", "A", "D", "B", "E"]


def test_more_slots_take_effect_at_once(london: Quiet) -> None:
    for name in "ABC":
        london.add_set(name)
        london.replication.replicate(name)
    london.step()
    assert len(london.attempts) == 2
    Settings(london.database).set(RUNS_AT_A_TIME, "3")
    london.step()
    assert len(london.attempts) == 3


def test_a_run_that_fails_is_tried_again_later_and_later_behind_the_others(london: Quiet) -> None:
    Settings(london.database).set(RUNS_AT_A_TIME, "1")
    for name in "AB":
        london.add_set(name)
        london.replication.replicate(name)
        london.step()
    london.end(london.attempts[0], PoolFull("Newark: pool A is full"))
    due = london.step()
    assert london.under_way() == ["B"], "the next one need not wait for the one that failed"
    assert due is not None and 0.75 <= due - london.clock.time <= 1
    found = london.replication.sets.get("A")
    assert (found.status, found.current_run is not None) == (Status.SUSPENDED, True)
    london.succeed(london.attempts[0])
    waits = []
    for _ in range(12):
        due = london.step()
        assert due is not None and london.attempts == []
        waits.append(due - london.clock.time)
        london.clock.time = due
        london.step()
        london.end(london.attempts[0], PoolFull("Newark: pool A is full"))
    for wait, most in zip(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600], strict=True):
        assert most * 0.74 <= wait <= most
    told = [message for _, message in london.told if "is suspended" in message]
    assert len(told) == 1, "the operator hears of one trouble once"


def test_a_success_sets_the_waits_back_to_the_shortest(london: Quiet) -> None:
    """The next run's first failure is a first one: it is tried again after a second, not after minutes."""
    london.add_set("A")
    for _ in range(2):
        london.replication.replicate("A")
        for _ in range(6):
            london.step()
            (attempt,) = london.attempts
            london.end(attempt, PoolFull("Newark: pool A is full"))
            due = london.step()
            assert due is not None
            first = due - london.clock.time
            london.clock.time = due
            if attempt.progress.run not in london.first_waits:
                london.first_waits[attempt.progress.run] = first
        london.step()
        london.succeed(london.attempts[0])
    assert len(london.first_waits) == 2
    assert all(0.75 <= wait <= 1 for wait in london.first_waits.values())


def test_a_success_sets_the_waits_back_also_for_an_attempt_of_the_same_run(london: Quiet) -> None:
    """The life of a run may outlast a success: what is kept of it then begins anew."""
    london.add_set("A")
    london.replication.replicate("A")
    for _ in range(4):
        london.step()
        london.end(london.attempts[0], PoolFull("Newark: pool A is full"))
        due = london.step()
        assert due is not None
        london.clock.time = due
    london.step()
    attempt = london.attempts[0]
    london.succeed(attempt)
    life = london.replication.dispatcher._lives[attempt.set.uuid]
    assert (life.failures, life.retry_at, life.peer_gone) == (0, None, False)
    assert [kind for kind, _ in london.told].count(events.SET_RESUMED) == 1


def test_as_soon_as_a_peer_is_back_its_runs_are_tried_again_but_not_those_that_failed_otherwise(london: Quiet) -> None:
    for name in "AB":
        london.add_set(name)
        london.replication.replicate(name)
    london.step()
    first, second = london.attempts
    london.end(first, PeerUnreachable("it is gone"))
    london.end(second, PoolFull("full"))
    london.step()
    assert london.attempts == []
    assert london.replication.dispatcher.waits_for_peer("uuid-A")
    assert not london.replication.dispatcher.waits_for_peer("uuid-B")
    london.replication.dispatcher.peer_is_back(1)
    london.step()
    assert london.under_way() == ["A"]


def test_a_resume_does_not_wait(london: Quiet) -> None:
    london.add_set("A")
    london.replication.replicate("A")
    london.step()
    london.end(london.attempts[0], PoolFull("full"))
    london.replication.resume("A")
    london.step()
    assert london.under_way() == ["A"]
    london.succeed(london.attempts[0])
    assert london.replication.sets.get("A").status is not Status.SUSPENDED


def test_me4s_cadence_is_a_setting(london: Quiet) -> None:
    Settings(london.database).set(RETRY_CADENCE, "me4")
    london.add_set("A")
    london.replication.replicate("A")
    london.step()
    london.end(london.attempts[0], PoolFull("full"))
    due = london.step()
    assert due == london.clock.time + 600


def test_a_queued_run_begins_when_the_one_before_it_has_ended(london: Quiet) -> None:
    london.add_set("A")
    first = london.replication.replicate("A")
    london.step()
    second = london.replication.replicate("A")
    third = london.replication.replicate("A")
    assert (first.state, second.state, third.state) == ("running", "queued", "queued")
    states = {run.uuid: run.state for run in london.runs("A")}
    assert states[second.run] == "dropped", "at most one is queued, the latest"
    london.step()
    assert len(london.attempts) == 1
    london.succeed(london.attempts[0])
    london.step()
    assert london.attempts[0].progress.run == third.run


def test_a_set_that_is_suspended_while_its_turn_is_chosen_does_not_begin(
    london: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records have been read, then the user suspends: nothing may be sent after that."""
    london.add_set("A")
    london.replication.replicate("A")
    dispatcher = london.replication.dispatcher
    read = dispatcher._runs_to_send

    def read_then_suspend() -> Sequence[tuple[SetRecord, RunRecord]]:
        found = read()
        monkeypatch.undo()
        london.replication.suspend("A")
        return found

    monkeypatch.setattr(dispatcher, "_runs_to_send", read_then_suspend)
    assert london.step() == london.clock.time, "it has to look again"
    assert london.attempts == []
    assert london.step() is None
    assert london.attempts == []
    london.replication.resume("A")
    london.step()
    assert london.under_way() == ["A"]


def test_a_suspended_run_is_stopped_and_takes_no_new_requests(london: Quiet) -> None:
    london.add_set("A")
    london.replication.replicate("A")
    london.step()
    london.replication.suspend("A")
    (attempt,) = london.attempts
    assert attempt.is_stopped
    london.end(attempt, PeerUnreachable("we cut it ourselves"))
    assert london.runs("A")[0].error is None, "it has not failed"
    london.step()
    assert london.attempts == []
    with pytest.raises(NotAllowed, match="is suspended; resume it first"):
        london.replication.replicate("A")
    with pytest.raises(NotAllowed, match="already suspended"):
        london.replication.suspend("A")
    london.replication.resume("A")
    london.step()
    assert london.under_way() == ["A"]
    with pytest.raises(NotAllowed, match="is not suspended"):
        london.replication.resume("A")


def test_a_set_whose_volume_cannot_be_found_does_not_hold_up_the_others(london: Quiet) -> None:
    lost = london.add_set("A")
    london.add_set("B")
    for name in "AB":
        london.replication.replicate(name)
    image = london.pool.by_id.pop(lost.members[0].image_id)
    london.step()
    assert london.under_way() == ["B"]
    london.pool.by_id[image.id] = image
    london.clock.time += 5
    london.step()
    assert london.under_way() == ["B", "A"]


def test_records_that_cannot_be_read_are_read_again(london: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    london.add_set("A")
    london.replication.replicate("A")

    def fail(*_arguments: object) -> None:
        raise StateDirectoryError("the disk failed")

    with monkeypatch.context() as broken:
        broken.setattr(london.replication.dispatcher, "_runs_to_send", fail)
        assert london.step() == london.clock.time + 5
    london.step()
    assert london.under_way() == ["A"]


def test_a_failure_that_cannot_be_recorded_is_still_tried_again(london: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    london.add_set("A")
    london.replication.replicate("A")
    london.step()

    def fail(*_arguments: object, **_more: object) -> None:
        raise StateDirectoryError("the disk failed")

    with monkeypatch.context() as broken:
        broken.setattr(london.database, "transaction", fail)
        broken.setattr(london.replication.dispatcher._settings, "get", fail)
        london.end(london.attempts[0], PoolFull("full"))
    london.clock.time += 1
    london.step()
    assert london.under_way() == ["A"]


def test_a_fault_in_the_program_does_not_pass_for_a_success(london: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    london.add_set("A")
    london.replication.replicate("A")
    london.step()
    (attempt,) = london.attempts

    def fault() -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(attempt, "_connect", fault)
    with pytest.raises(KeyError):
        attempt.work()
    (run,) = london.runs("A")
    assert run.state == "running" and run.error == "a defect of Offsite ended it; the log of the system says more"
    assert issubclass(ProgramFault, Exception)


def test_a_run_of_before_the_start_may_have_been_committed(london: Quiet) -> None:
    """Its abort has to ask the secondary first (R3)."""
    london.add_set("A")
    run = london.replication.replicate("A").run
    london.open()
    london.step()
    assert london.attempts[0].progress.run == run
    assert london.attempts[0].progress.may_be_committed
    london.add_set("B")
    london.replication.replicate("B")
    london.step()
    assert not london.attempts[1].progress.may_be_committed


def test_a_stop_leaves_runs_as_they_are(london: Quiet) -> None:
    london.add_set("A")
    london.replication.replicate("A")
    london.step()
    (attempt,) = london.attempts
    london.replication.dispatcher.stop(0.0)
    assert attempt.is_stopped
    london.end(attempt, PeerUnreachable("cut"))
    assert london.step() is None
    assert london.attempts == []
    assert [(run.state, run.error) for run in london.runs("A")] == [("running", None)]
