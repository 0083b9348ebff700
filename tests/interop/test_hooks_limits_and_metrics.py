"""What goes on around runs between two real processes: hooks, runs at a time, events, metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.interop.replication import Replicated, events, hidden, metrics, within
from tests.systems import System, two_systems, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    with two_systems(tmp_path_factory.mktemp("around")) as systems:
        yield Replicated(*systems)


# Hooks


class HookedSet:
    """A set H with hooks whose scripts a test writes; each notes that it ran, and for which set."""

    def __init__(self, pair: Replicated) -> None:
        self._pair = pair
        self._directory = pair.london.directory / "hooks"
        self._directory.mkdir(exist_ok=True)
        self._log = self._directory / "log"
        for name in ("freeze", "thaw"):
            self.script(name)
        pair.make_volume("H")
        pair.make_set("HDR", "H", "before-snapshot", "freeze", "after-snapshot", "thaw", "hook-timeout", "1")

    def script(self, name: str, then: str = "") -> None:
        path = self._directory / name
        path.write_text(f'#!/bin/sh\necho "{name} $OFFSITE_SET" >>log\n{then}\n')
        path.chmod(0o755)

    def time_out_after(self, seconds: int) -> None:
        self._pair.london.ask("set", "replication-set", "hook-timeout", str(seconds), "HDR")

    def ran(self) -> list[str]:
        """Since it was asked last."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return lines


@pytest.fixture(scope="module")
def hooked(pair: Replicated) -> HookedSet:
    return HookedSet(pair)


def test_hooks_stand_around_the_snapshot_of_each_run(pair: Replicated, hooked: HookedSet) -> None:
    pair.replicate("HDR")
    assert hooked.ran() == ["freeze HDR", "thaw HDR"]
    assert pair.same("H")


@pytest.mark.parametrize("name", ["freeze", "thaw"])
@pytest.mark.parametrize(
    ("then", "told"),
    [
        ("echo the database is busy >&2; exit 3", "ended with status 3: the database is busy"),
        ("sleep 600", "did not end within 1 s and was killed"),
    ],
    ids=["fails", "hangs"],
)
def test_a_hook_that_fails_or_hangs_fails_the_run_before_anything_is_sent(
    pair: Replicated, hooked: HookedSet, name: str, then: str, told: str
) -> None:
    images, digest, runs = (hidden(pair.london), hidden(pair.newark)), pair.newark.digest("H"), len(pair.runs("HDR"))
    there = len(pair.runs("HDR", pair.newark))
    pair.write("H")
    hooked.ran()
    hooked.script(name, then)
    try:
        with within(10):
            assert f"hook {name} {told}" in pair.london.refused("replicate", "HDR")
    finally:
        hooked.script(name)
    assert [line.split()[0] for line in hooked.ran()][-1] == "thaw", "what was frozen is thawed"
    failed = pair.runs("HDR")[0]
    assert (failed["state"], failed["wire-bytes-numeric"], len(pair.runs("HDR"))) == ("failed", 0, runs + 1)
    assert told in failed["error"]
    assert len(pair.runs("HDR", pair.newark)) == there, "Newark was not even asked"
    assert (hidden(pair.london), hidden(pair.newark)) == images
    assert pair.newark.digest("H") == digest
    assert pair.show("HDR")["last-run-status"] == "Fail"
    assert told in events(pair.london, 583, "HDR")[0]["message"]

    pair.replicate("HDR")
    assert pair.same("H")


@pytest.fixture
def slow_freeze(pair: Replicated, hooked: HookedSet) -> Iterator[HookedSet]:
    """A hook that would take ten minutes, if it were let, of a set that is Ready."""
    pair.replicate("HDR")
    hooked.script("freeze", "sleep 600")
    hooked.time_out_after(600)
    hooked.ran()
    yield hooked
    hooked.script("freeze")
    hooked.time_out_after(1)


def test_an_abort_and_a_stop_do_not_wait_for_a_hook(pair: Replicated, slow_freeze: HookedSet) -> None:
    """The set shows Running: so there is something to suspend, to abort and to wait for."""
    images = (hidden(pair.london), hidden(pair.newark))
    with ThreadPoolExecutor() as threads:
        for suspended in (False, True):
            asked = threads.submit(pair.london.refused, "replicate", "HDR")
            wait_until("the hook runs", lambda: slow_freeze.ran() == ["freeze HDR"])
            pair.await_status("HDR", "Running")
            if suspended:
                with within(1):
                    pair.london.ask("suspend", "replication-set", "HDR")
                assert pair.status("HDR") == "Suspended"
            with within(5):
                pair.london.ask("abort", "replication", "HDR")
            assert pair.status("HDR") == "Ready" and pair.show("HDR")["last-run-status"] == "Aborted"
            assert "was aborted while its hooks ran" in asked.result(10)
            assert slow_freeze.ran() == ["thaw HDR"], "what was frozen is thawed"
            assert pair.runs("HDR")[0]["error"] == "aborted by a user"
            assert (hidden(pair.london), hidden(pair.newark)) == images

        asked = threads.submit(pair.london.refused, "replicate", "HDR")
        wait_until("the hook runs", lambda: slow_freeze.ran() == ["freeze HDR"])
        with within(4):
            pair.london.stop()
        asked.result(10)
        pair.london.start()
    assert slow_freeze.ran()[0] == "thaw HDR", "before the stop or at the start"
    assert pair.runs("HDR")[0]["state"] == "failed" and "the system is stopping" in pair.runs("HDR")[0]["error"]
    slow_freeze.script("freeze")
    pair.replicate("HDR")
    assert pair.same("H")


# Runs at a time


def test_one_run_at_a_time_in_the_order_of_the_requests(pair: Replicated) -> None:
    """Who asks again comes behind those who wait already."""
    pair.london.ask("set", "setting", "name", "runs-at-a-time", "value", "1")
    names = ["T1", "T2", "T3"]
    for name in names:
        pair.make_volume(name, size_mib=2)
        pair.make_set(f"{name}DR", name)
    with pair.slowly():
        pair.begin("T1DR")
        for name in ("T2DR", "T3DR", "T1DR"):
            pair.london.ask("replicate", name)
        phases = [pair.runs(f"{name}DR")[-1]["phase"] for name in names]
        assert phases == ["sending", "waiting for its turn", "waiting for its turn"]
        assert [pair.runs(f"{name}DR")[-1]["wire-bytes-numeric"] for name in names[1:]] == [0, 0]
    for name in names:
        pair.await_success(f"{name}DR")
    ended = [(run["end-time-numeric"], name) for name in names for run in pair.runs(f"{name}DR")]
    assert [name for _, name in sorted(ended)] == ["T1", "T2", "T3", "T1"]
    pair.london.ask("set", "setting", "name", "runs-at-a-time", "value", "2")


# Statuses, events, metrics


def test_both_systems_tell_of_the_last_run(pair: Replicated) -> None:
    pair.make_volume("W")
    pair.make_set("WDR", "W")
    assert (pair.status("WDR"), pair.show("WDR")["last-run-status"]) == ("Unsynchronized", "N/A")
    run = pair.replicate("WDR")
    for system in (pair.london, pair.newark):
        shown = pair.show("WDR", system)
        assert (shown["status"], shown["last-run-status"], shown["last-run-error"]) == ("Ready", "Success", "")
        assert shown["last-run-bytes-numeric"] == run["changed-bytes-numeric"] == 4 << 20
        assert shown["last-run-start-time-numeric"] <= shown["last-run-end-time-numeric"]
        assert 0 <= shown["lag-numeric"] < 30


def test_each_step_of_a_set_is_an_event_and_events_are_chosen_by_filters(pair: Replicated) -> None:
    first = pair.london.ask("show", "events", "last", "1")["events"][0]["event-id"]
    pair.make_volume("E")
    pair.make_set("EDR", "E")
    pair.replicate("EDR")
    pair.london.ask("set", "replication-set", "queue-policy", "discard", "EDR")
    pair.london.ask("suspend", "replication-set", "EDR")
    pair.london.ask("resume", "replication-set", "EDR")
    pair.london.ask("delete", "replication-set", "EDR")
    told = pair.london.ask("show", "events", "from-event", first)["events"]
    assert [each["event-code"] for each in told if "EDR" in each["message"]] == [577, 581, 582, 578, 579, 580, 576]
    assert pair.london.ask("show", "events", "last", "1")["events"] == told[:1]
    troubles = pair.london.ask("show", "events", "error", "last", "1000")["events"]
    assert {each["severity"] for each in troubles} <= {"WARNING", "ERROR", "CRITICAL"}
    assert {each["event-code"] for each in troubles} >= {583}, "the hooks that failed"


def test_metrics_tell_the_lag_on_both_systems_until_the_next_run(pair: Replicated) -> None:
    pair.make_volume("L")
    pair.make_set("LagDR", "L")
    assert sample(pair.london, "offsite_set_lag_seconds", "LagDR") is None, "there is no recovery point yet"
    pair.replicate("LagDR")
    began, first = time.monotonic(), lag(pair.london)
    pair.await_on_both("it grows", lambda system: lag(system) > first)
    for system in (pair.london, pair.newark):
        assert lag(system) == pytest.approx(pair.show("LagDR", system)["lag-numeric"], abs=5)
        assert lag(system) < 30
    pair.replicate("LagDR")
    assert lag(pair.london) < first + time.monotonic() - began, "it is that of the newer recovery point"
    assert sample(pair.london, "offsite_set_runs", "LagDR", 'result="success"') == 2


def sample(system: System, metric: str, of: str, more: str = "") -> float | None:
    """The value of a metric of a set, or None when there is none."""
    for line in metrics(system).splitlines():
        if line.startswith(metric + "{") and f'set="{of}"' in line and more in line:
            return float(line.rpartition(" ")[2])
    return None


def lag(system: System) -> float:
    seconds = sample(system, "offsite_set_lag_seconds", "LagDR")
    assert seconds is not None and seconds >= 0
    return seconds
