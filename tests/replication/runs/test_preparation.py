"""What becomes of a run whose hooks run: they fail, a user ends it, the system goes down. What was frozen thaws."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from offsite import events
from offsite.errors import BadParameter, InUse, NotAllowed, PoolFailed, PoolFull
from offsite.replication.records.run_records import RunRecord
from offsite.replication.runs.hooks import Cut, HookFailed
from offsite.replication.runs.preparation import RunEnded
from offsite.replication.sets.status import Status
from tests.replication.runs.test_dispatcher import Quiet
from tests.replication.runs.test_run_requests import modify, states

FREEZE, THAW = "freeze 7 S", "thaw 7 S"


class Down(BaseException):
    """The power is gone."""


class Hooks:
    """Tells what was called, and does what a test wants done meanwhile; fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: set[str] = set()
        self.meanwhile: dict[str, Callable[[], object]] = {}

    def check(self, name: str) -> str:
        if name == "unknown":
            raise BadParameter("hook 'unknown' is not there")
        return name

    def run(self, name: str, timeout_seconds: float, environment: Mapping[str, str], cut: Cut) -> None:
        self.calls.append(f"{name} {timeout_seconds:.0f} {environment['OFFSITE_SET']}")
        self.meanwhile.get(name, lambda: None)()
        if cut.reason is not None:
            raise HookFailed(f"hook {name} was killed: {cut.reason}")
        if name in self.failing:
            raise HookFailed(f"hook {name} ended with status 1")


@pytest.fixture
def london(tmp_path: Path) -> Iterator[Quiet]:
    site = Quiet(tmp_path / "london", "London")
    site.add_peer()
    site.add_set("S")
    yield site
    site.database.close()


@pytest.fixture
def hooks(london: Quiet, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    hooks = Hooks()
    monkeypatch.setattr(london.replication._preparation, "_hooks", hooks)
    monkeypatch.setattr(london.replication.sets, "_hooks", hooks)
    modify(london, before_snapshot="freeze", after_snapshot="thaw", hook_timeout_seconds=7)
    return hooks


def the_run(site: Quiet) -> RunRecord:
    (run,) = site.runs("S")
    return run


def codes(site: Quiet) -> list[int]:
    return [kind.code for kind, _ in site.told]


def points(site: Quiet) -> int:
    return sum(image.kind == "internal" for image in site.pool.images())


def test_hooks_stand_around_the_snapshot(london: Quiet, hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = london.pool.apply

    def noted(*arguments: object) -> object:
        hooks.calls.append("snapshot")
        return apply(*arguments)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(london.pool, "apply", noted)
    london.replication.replicate("S")
    assert hooks.calls == [FREEZE, "snapshot", THAW]
    assert states(london) == ["running"]


@pytest.mark.parametrize("failing", ["freeze", "thaw"])
def test_a_hook_that_fails_fails_the_run_before_anything_is_sent(london: Quiet, hooks: Hooks, failing: str) -> None:
    hooks.failing = {failing}
    with pytest.raises(HookFailed, match=f"hook {failing} ended"):
        london.replication.replicate("S")
    assert hooks.calls[-1] == THAW, "what was frozen thaws"
    london.step()
    assert london.attempts == [] and points(london) == 0
    assert (the_run(london).state, the_run(london).error) == ("failed", f"hook {failing} ended with status 1")
    assert codes(london)[-1] == events.RUN_FAILED.code
    hooks.failing = set()
    assert london.replication.replicate("S").state == "running"


def test_both_hooks_failing_are_both_told(london: Quiet, hooks: Hooks) -> None:
    hooks.failing = {"freeze", "thaw"}
    with pytest.raises(HookFailed, match="hook freeze ended with status 1; then hook thaw ended with status 1"):
        london.replication.replicate("S")


def test_a_snapshot_that_fails_thaws_too(london: Quiet, hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise PoolFull("pool A is full")

    def full_once() -> None:
        monkeypatch.setattr(london.replication._preparation._run_points, "take", full)

    hooks.meanwhile["freeze"] = full_once
    with pytest.raises(PoolFull, match="pool A is full"):
        london.replication.replicate("S")
    assert hooks.calls == [FREEZE, THAW]
    assert (the_run(london).state, the_run(london).error) == ("failed", "pool A is full")


def test_nothing_is_sent_before_the_last_hook_went_well(london: Quiet, hooks: Hooks) -> None:
    def look() -> None:
        london.step()
        assert london.attempts == []

    hooks.meanwhile = {"freeze": look, "thaw": look}
    london.replication.replicate("S")
    london.step()
    assert london.under_way() == ["S"]


def test_a_queued_run_whose_hook_still_runs_is_not_promoted(london: Quiet, hooks: Hooks) -> None:
    """It may yet fail; and the one before it goes on meanwhile."""
    london.replication.replicate("S")
    london.step()

    def succeed() -> None:
        london.succeed(london.attempts[0])
        london.step()
        assert (states(london), london.attempts) == (["success", "queued"], [])

    hooks.meanwhile["thaw"] = succeed
    london.replication.replicate("S")
    london.step()
    assert states(london) == ["success", "running"] and london.under_way() == ["S"]


# A user


def test_an_abort_ends_the_hook_before_the_snapshot(london: Quiet, hooks: Hooks) -> None:
    seen: list[Status] = []

    def abort() -> None:
        seen.append(london.replication.sets.get("S").status)
        assert london.replication.abort("S"), "the secondary, which is gone, has nothing to be told"
        seen.append(london.replication.sets.get("S").status)
        with pytest.raises(NotAllowed, match="has no run to abort"):
            london.replication.abort("S")

    hooks.meanwhile["freeze"] = abort
    with pytest.raises(RunEnded, match="was aborted while its hooks ran: aborted by a user"):
        london.replication.replicate("S")
    assert seen == [Status.RUNNING, Status.UNSYNCHRONIZED]
    assert hooks.calls == [FREEZE, THAW] and points(london) == 0
    assert (the_run(london).state, the_run(london).error) == ("aborted", "aborted by a user")
    assert events.RUN_ABORTED.code in codes(london) and events.RUN_FAILED.code not in codes(london)
    hooks.meanwhile.clear()
    assert london.replication.replicate("S").state == "running"
    assert london.runs("S")[0].snapshot_number == 1, "the one that was aborted had a number, too"


def test_an_abort_at_the_end_of_the_hook_keeps_the_snapshot_from_being_taken(
    london: Quiet, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it comes too late to end the hook."""
    preparation = london.replication._preparation
    take = preparation._take

    def abort_and_take(*arguments: object) -> object:
        london.replication.abort("S")
        return take(*arguments)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(preparation, "_take", abort_and_take)
    with pytest.raises(RunEnded):
        london.replication.replicate("S")
    assert states(london) == ["aborted"] and points(london) == 0 and hooks.calls == [FREEZE, THAW]


def test_an_abort_before_the_hook_has_begun_keeps_it_from_beginning(
    london: Quiet, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who asked would wait a minute for a hook that nobody needs."""
    preparation = london.replication._preparation
    before_snapshot = preparation._before_snapshot

    def abort_and_begin(*arguments: object) -> None:
        london.replication.abort("S")
        before_snapshot(*arguments)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(preparation, "_before_snapshot", abort_and_begin)
    with pytest.raises(RunEnded, match="aborted by a user"):
        london.replication.replicate("S")
    assert hooks.calls == [THAW] and states(london) == ["aborted"]


@pytest.mark.parametrize("thaw_fails", [False, True])
def test_an_abort_leaves_the_hook_after_the_snapshot_alone(london: Quiet, hooks: Hooks, thaw_fails: bool) -> None:
    hooks.failing = {"thaw"} if thaw_fails else set()
    hooks.meanwhile["thaw"] = lambda: london.replication.abort("S")
    with pytest.raises(RunEnded, match="aborted"):
        london.replication.replicate("S")
    london.step()
    assert london.attempts == [] and points(london) == 0
    told = "aborted by a user; then hook thaw ended with status 1" if thaw_fails else "aborted by a user"
    assert (the_run(london).state, the_run(london).error) == ("aborted", told)
    assert (events.RUN_FAILED.code in codes(london)) is thaw_fails, "for what is frozen stays frozen"


def test_an_abort_ends_the_run_that_is_sent_not_the_one_that_is_being_prepared(london: Quiet, hooks: Hooks) -> None:
    london.replication.replicate("S")
    hooks.meanwhile["freeze"] = lambda: london.replication.abort("S")
    assert london.replication.replicate("S").state == "running"
    assert states(london) == ["aborted", "running"]


def test_a_queue_that_is_cleared_while_the_hook_runs_stays_clear(london: Quiet, hooks: Hooks) -> None:
    london.replication.replicate("S")
    hooks.meanwhile["thaw"] = lambda: london.replication.clear_queue("S")
    with pytest.raises(RunEnded, match="was dropped while its hooks ran: the queue was cleared"):
        london.replication.replicate("S")
    assert states(london) == ["running", "dropped"] and points(london) == 1


@pytest.mark.parametrize("during", ["freeze", "thaw"])
def test_a_set_that_is_suspended_while_a_hook_runs_stands_still(london: Quiet, hooks: Hooks, during: str) -> None:
    """With its point taken at the instant that was asked for."""
    hooks.meanwhile[during] = lambda: london.replication.suspend("S")
    assert london.replication.replicate("S").state == "running"
    london.step()
    assert london.attempts == [] and points(london) == 1
    assert london.replication.sets.get("S").status is Status.SUSPENDED
    london.replication.resume("S")
    london.step()
    assert london.under_way() == ["S"]


def test_an_abort_of_a_suspended_set_ends_the_hook_too(london: Quiet, hooks: Hooks) -> None:
    def suspend_and_abort() -> None:
        london.replication.suspend("S")
        london.replication.abort("S")

    hooks.meanwhile["freeze"] = suspend_and_abort
    with pytest.raises(RunEnded):
        london.replication.replicate("S")
    assert london.replication.sets.get("S").status is Status.UNSYNCHRONIZED, "and lifts the suspension"


# A stop


def test_a_stop_ends_the_hook_and_begins_no_other(london: Quiet, hooks: Hooks) -> None:
    hooks.meanwhile["freeze"] = london.replication._preparation.stop
    for _ in range(2):
        with pytest.raises(HookFailed, match="hook freeze was killed: the system is stopping"):
            london.replication.replicate("S")
    assert states(london) == ["failed", "failed"] and hooks.calls == [FREEZE, THAW, FREEZE, THAW]


@pytest.mark.parametrize("thaw_fails", [False, True])
def test_a_system_that_went_down_before_the_snapshot_thaws_at_its_next_start(
    london: Quiet, hooks: Hooks, thaw_fails: bool
) -> None:
    power_fails_during(london, hooks, "freeze")
    assert states(london) == ["preparing"]
    hooks.failing = {"thaw"} if thaw_fails else set()
    start_again(london)
    assert hooks.calls == [FREEZE, THAW]
    told = "the system was stopped before its snapshot was taken"
    told += "; then hook thaw ended with status 1" if thaw_fails else ""
    assert (the_run(london).state, the_run(london).error) == ("failed", told)
    start_again(london)
    assert hooks.calls == [FREEZE, THAW], "once"


def test_a_system_that_went_down_while_it_thawed_thaws_again_and_sends(london: Quiet, hooks: Hooks) -> None:
    power_fails_during(london, hooks, "thaw")
    start_again(london)
    assert hooks.calls == [FREEZE, THAW, THAW] and states(london) == ["running"]
    london.step()
    assert london.under_way() == ["S"]


def test_a_hook_that_fails_after_a_start_fails_its_run(london: Quiet, hooks: Hooks) -> None:
    power_fails_during(london, hooks, "thaw")
    hooks.failing = {"thaw"}
    start_again(london)
    london.step()
    assert states(london) == ["failed"] and london.attempts == [] and points(london) == 0


def test_an_aborted_run_whose_hook_the_power_cut_thaws_at_the_next_start(london: Quiet, hooks: Hooks) -> None:
    hooks.meanwhile["freeze"] = lambda: london.replication.abort("S")
    power_fails_during(london, hooks, "thaw")
    start_again(london)
    assert hooks.calls == [FREEZE, THAW, THAW] and states(london) == ["aborted"]


def test_a_start_does_not_wait_for_a_hook_but_new_requests_do(
    london: Quiet, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts would be without their volumes as long as it takes."""
    monkeypatch.setattr("offsite.replication.records.set_locks.REQUESTING_SECONDS", 0.1)
    power_fails_during(london, hooks, "thaw")
    running, let_end = threading.Event(), threading.Event()

    def hang() -> None:
        running.set()
        let_end.wait(30)

    hooks.meanwhile["thaw"] = hang
    (thread,) = london.replication._preparation.thaw(london.replication.dispatcher.wake)
    assert running.wait(10) and thread.is_alive()
    london.step()
    assert london.attempts == [], "nothing is sent before it went well"
    with pytest.raises(InUse, match="try again in a moment"):
        london.replication.replicate("S")
    let_end.set()
    thread.join(10)
    london.step()
    assert london.under_way() == ["S"]


def test_a_pool_that_fails_at_a_start_leaves_the_run_for_the_next_one(
    london: Quiet, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    power_fails_during(london, hooks, "thaw")
    hooks.failing = {"thaw"}

    def fail(*_arguments: object) -> None:
        raise PoolFailed("the disk is broken")

    with monkeypatch.context() as broken:
        broken.setattr(london.pool, "apply", fail)
        start_again(london)
    london.step()
    assert states(london) == ["running"] and london.attempts == [], "whether it may be sent is not known yet"
    start_again(london)
    assert states(london) == ["failed"] and points(london) == 0


def start_again(london: Quiet) -> None:
    london.replication.recover()
    for thread in london.replication._preparation.thaw(london.replication.dispatcher.wake):
        thread.join(30)
        assert not thread.is_alive()


def power_fails_during(london: Quiet, hooks: Hooks, name: str) -> None:
    def down() -> None:
        raise Down

    hooks.meanwhile[name] = down
    with pytest.raises(Down):
        london.replication.replicate("S")
    hooks.meanwhile.clear()


def test_a_hook_that_is_not_there_cannot_be_chosen(london: Quiet, hooks: Hooks) -> None:
    with pytest.raises(BadParameter, match="'unknown'"):
        modify(london, after_snapshot="unknown")
    modify(london, before_snapshot="", after_snapshot="")
    london.replication.replicate("S")
    assert hooks.calls == [], "and none can be"


def test_without_hooks_a_snapshot_that_fails_fails_the_run(london: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise PoolFull("pool A is full")

    monkeypatch.setattr(london.pool, "apply", full)
    with pytest.raises(PoolFull):
        london.replication.replicate("S")
    assert (the_run(london).state, the_run(london).error) == ("failed", "pool A is full")


def test_an_abort_does_not_wait_for_a_disk_that_hangs(london: Quiet) -> None:
    """It says so instead, and nothing has changed: R8."""
    london.replication.replicate("S")
    of = london.replication.sets.record("S")
    locks = london.replication._control._resources.locks
    held, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        with locks.recording(of.uuid, of.name):
            held.set()
            let_go.wait(30)

    with ThreadPoolExecutor() as threads:
        threads.submit(hang)
        assert held.wait(10)
        begun = time.monotonic()
        with pytest.raises(InUse, match="has not ended within 2 s; check its pool, or try again"):
            london.replication.abort("S")
        assert time.monotonic() - begun < 5
        let_go.set()
    assert states(london) == ["running"]
    assert not london.replication.abort("S"), "the secondary cannot be told: it is gone"
