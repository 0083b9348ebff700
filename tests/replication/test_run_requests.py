"""What becomes of a request to replicate: policy, numbers, sources, hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from offsite.errors import BadParameter, InUse, NotAllowed, SnapshotNotFound
from offsite.pools.protocol import Clone, Snapshot
from offsite.replication.hooks import HookFailed
from offsite.replication.set_settings import Settings
from tests.replication.test_conductor import Quiet


class Hooks:
    """Tells what was called; fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: set[str] = set()

    def check(self, name: str) -> str:
        if name == "unknown":
            raise BadParameter("hook 'unknown' is not there")
        return name

    def run(self, name: str, timeout_seconds: float, environment: Mapping[str, str]) -> None:
        self.calls.append(f"{name} {timeout_seconds:.0f} {environment['OFFSITE_SET']}")
        if name in self.failing:
            raise HookFailed(f"hook {name} ended with status 1")


@pytest.fixture
def london(tmp_path: Path) -> Iterator[Quiet]:
    site = Quiet(tmp_path / "london", "London")
    site.add_peer()
    site.add_set("S")
    yield site
    site.database.close()


def states(site: Quiet) -> list[str]:
    """Oldest first."""
    return [run.state for run in reversed(site.runs("S"))]


def images(site: Quiet, kind: str) -> list[str]:
    return sorted(image.name for image in site.pool.images() if image.kind == kind)


def modify(site: Quiet, **settings: object) -> None:
    site.replication.sets.modify("S", Settings(**settings))  # type: ignore[arg-type]  # names and values of Settings


def test_discard_drops_what_comes_while_a_run_is_under_way(london: Quiet) -> None:
    modify(london, queue_policy="discard")
    assert [london.replication.replicate("S").state for _ in range(3)] == ["running", "dropped", "dropped"]
    assert states(london) == ["running", "dropped", "dropped"]
    assert len(images(london, "internal")) == 1
    london.step()
    london.succeed(london.attempts[0])
    assert london.replication.replicate("S").state == "running"


def test_every_request_takes_a_number_whatever_becomes_of_it(london: Quiet) -> None:
    """ME4: the number grows with dropped and failed requests, too, so that names tell how many there were."""
    modify(london, queue_policy="discard")
    london.replication.replicate("S")
    london.replication.replicate("S")
    with pytest.raises(SnapshotNotFound):
        london.step()
        london.succeed(london.attempts[0])
        london.replication.replicate("S", last_snapshot=True)
    london.replication.replicate("S")
    assert [run.snapshot_number for run in reversed(london.runs("S"))] == [0, 1, 2, 3]
    assert states(london) == ["success", "dropped", "failed", "running"]


def test_the_policy_cannot_become_discard_while_a_run_is_queued(london: Quiet) -> None:
    london.replication.replicate("S")
    london.replication.replicate("S")
    with pytest.raises(InUse, match="clear its queue first"):
        modify(london, queue_policy="discard")
    assert london.replication.clear_queue("S")
    assert not london.replication.clear_queue("S")
    modify(london, queue_policy="discard")
    assert states(london) == ["running", "dropped"]
    assert len(images(london, "internal")) == 1


def test_a_snapshot_is_sent_instead_of_the_volume(london: Quiet) -> None:
    volume = london.image_id("VS")
    london.write(volume, 0, b"monday")
    (monday,) = london.pool.apply([Snapshot(volume, "Monday")])
    london.write(volume, 0, b"friday")
    (inner,) = london.pool.apply([Snapshot(monday.id, "Inner")])
    london.pool.apply([Clone(volume, "Copy")])
    run = london.replication.replicate("S", snapshot="Monday").run
    assert london.content(f"<{run} 0>").startswith(b"monday")
    assert london.runs("S")[0].source == "Monday"
    assert london.replication.replicate("S", snapshot=inner.uuid).state == "queued", (
        "a snapshot of a snapshot, by serial"
    )
    (strange,) = london.pool.apply([Snapshot(london.image_id("Copy"), "Strange")])
    with pytest.raises(NotAllowed, match="Strange is not a snapshot of VS"):
        london.replication.replicate("S", snapshot="Strange")
    with pytest.raises(SnapshotNotFound, match="'VS'"):
        london.replication.replicate("S", snapshot="VS")
    assert strange.kind == "snapshot"


def test_the_last_snapshot_is_the_newest_one(london: Quiet) -> None:
    with pytest.raises(SnapshotNotFound, match="VS has no snapshot"):
        london.replication.replicate("S", last_snapshot=True)
    for name in ("One", "Two", "Three"):
        london.pool.apply([Snapshot(london.image_id("VS"), name)])
    london.replication.replicate("S", last_snapshot=True)
    assert london.runs("S")[0].source == "Three"


def test_history_on_both_takes_the_primarys_when_the_run_starts(london: Quiet) -> None:
    """That of a queued run shows the instant at which it was queued, and is there only once it runs."""
    modify(london, snapshot_history="both", snapshot_basename="h", snapshot_count=2)
    volume = london.image_id("VS")
    london.write(volume, 0, b"first")
    london.replication.replicate("S")
    london.write(volume, 0, b"queue")
    london.replication.replicate("S")
    london.write(volume, 0, b"later")
    assert images(london, "snapshot") == ["h_0000"]
    london.step()
    london.succeed(london.attempts[0])
    london.step()
    assert images(london, "snapshot") == ["h_0000", "h_0001"]
    assert london.content("h_0000").startswith(b"first") and london.content("h_0001").startswith(b"queue")
    queued = next(image for image in london.pool.images() if image.name == "h_0001")
    assert queued.parent_id == volume, "a snapshot of the volume, not of something hidden"
    london.succeed(london.attempts[0])
    london.replication.replicate("S")
    assert images(london, "snapshot") == ["h_0001", "h_0002"]


@pytest.fixture
def hooks(london: Quiet, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    hooks = Hooks()
    monkeypatch.setattr(london.replication._requests, "_hooks", hooks)
    monkeypatch.setattr(london.replication.sets, "_hooks", hooks)
    modify(london, before_snapshot="freeze", after_snapshot="thaw", hook_timeout_seconds=7)
    return hooks


def test_hooks_stand_around_the_snapshot(london: Quiet, hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = london.pool.apply

    def noted(*arguments: object) -> object:
        hooks.calls.append("snapshot")
        return apply(*arguments)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(london.pool, "apply", noted)
    london.replication.replicate("S")
    assert hooks.calls == ["freeze 7 S", "snapshot", "thaw 7 S"]
    assert states(london) == ["running"]


@pytest.mark.parametrize("failing", ["freeze", "thaw"])
def test_a_hook_that_fails_fails_the_run_before_anything_is_sent(london: Quiet, hooks: Hooks, failing: str) -> None:
    hooks.failing = {failing}
    with pytest.raises(HookFailed, match=f"hook {failing} ended"):
        london.replication.replicate("S")
    assert hooks.calls[-1] == "thaw 7 S", "what was frozen thaws"
    london.step()
    assert london.attempts == [] and images(london, "internal") == []
    (run,) = london.runs("S")
    assert (run.state, run.error) == ("failed", f"hook {failing} ended with status 1")
    hooks.failing = set()
    assert london.replication.replicate("S").state == "running"


def test_both_hooks_failing_are_both_told(london: Quiet, hooks: Hooks) -> None:
    hooks.failing = {"freeze", "thaw"}
    with pytest.raises(HookFailed, match="hook freeze ended with status 1; and then hook thaw ended with status 1"):
        london.replication.replicate("S")


def test_nothing_is_sent_before_the_last_hook_went_well(
    london: Quiet, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hooks.run

    def run_and_look(name: str, timeout_seconds: float, environment: Mapping[str, str]) -> None:
        run(name, timeout_seconds, environment)
        london.step()
        assert london.attempts == [], name

    monkeypatch.setattr(hooks, "run", run_and_look)
    london.replication.replicate("S")
    london.step()
    assert london.under_way() == ["S"]


@pytest.mark.parametrize("thaw_fails", [False, True])
def test_a_system_that_went_down_between_its_hooks_thaws_at_its_next_start(
    london: Quiet, hooks: Hooks, monkeypatch: pytest.MonkeyPatch, thaw_fails: bool
) -> None:
    class Down(BaseException):
        """The power is gone."""

    def down(*_arguments: object) -> None:
        raise Down

    with monkeypatch.context() as broken:
        broken.setattr(london.pool, "apply", down)
        with pytest.raises(Down):
            london.replication.replicate("S")
    assert states(london) == ["preparing"] and hooks.calls == ["freeze 7 S"]
    hooks.failing = {"thaw"} if thaw_fails else set()
    london.replication.recover()
    assert hooks.calls == ["freeze 7 S", "thaw 7 S"]
    (run,) = london.runs("S")
    assert run.state == "failed" and "the system was stopped before its snapshot was taken" in (run.error or "")
    assert ("hook thaw ended" in (run.error or "")) is thaw_fails


def test_a_hook_that_is_not_there_cannot_be_chosen(london: Quiet, hooks: Hooks) -> None:
    with pytest.raises(BadParameter, match="'unknown'"):
        modify(london, after_snapshot="unknown")
    modify(london, before_snapshot="", after_snapshot="")
    london.replication.replicate("S")
    assert hooks.calls == [], "and none can be"
