"""The command as a whole: what it leaves behind, when it overwrites RESULTS.md, and what it says when it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import bench as bench_module
from benchmarks.bench import Bench, Settings
from benchmarks.figures import FIGURES, Figure
from benchmarks.machine import file_system
from benchmarks.measure import Line, Measured, Outcomes, Samples, Unit, below
from benchmarks.processes import CannotMeasure, running
from offsite.errors import PoolFull

LINE = Line("a thing", Unit.SECONDS, target=below(1))
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """RESULTS.md in a place of its own; nothing needs free space; the handlers of signals are put back."""
    monkeypatch.setattr(command, "_RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(Settings, "free_bytes_needed", 0)
    monkeypatch.setattr(bench_module, "_IN_MEMORY", ())
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield tmp_path / "RESULTS.md"
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def figures(monkeypatch: pytest.MonkeyPatch, *measures: Callable[[Bench], Outcomes]) -> None:
    made = [Figure(f"figure-{at}", "how", (LINE,), measure) for at, measure in enumerate(measures)]
    monkeypatch.setattr(command, "FIGURES", tuple(made))


def good(bench: Bench) -> Outcomes:
    (bench.directory / "left").write_text("to be cleaned up")
    return {LINE: Measured(Samples.of([0.5]))}


def failing(bench: Bench) -> Outcomes:
    raise CannotMeasure(f"{bench.directory.parent}/x is broken")


def test_a_full_run_writes_results_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, state: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures(monkeypatch, good)
    assert command.main(["--directory", str(state)]) == 0
    assert "| a thing | 500 ms |" in capsys.readouterr().out
    assert "1 of 1 targets reached" in results.read_text()
    assert not state.exists()


def test_a_part_or_a_quick_run_leaves_results_as_they_are(
    monkeypatch: pytest.MonkeyPatch, state: Path, results: Path
) -> None:
    figures(monkeypatch, good, good)
    assert command.main(["--directory", str(state), "--only", "figure-1"]) == 0
    assert command.main(["--directory", str(state), "--quick"]) == 0
    assert command.main(["--directory", str(state), "--repeat", "2"]) == 0
    assert not results.exists()


def test_what_cannot_be_measured_is_said_loudly_without_paths(
    monkeypatch: pytest.MonkeyPatch, state: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures(monkeypatch, failing)
    assert command.main(["--directory", str(state)]) == 1
    assert "!! NOT MEASURED: a thing" in capsys.readouterr().err
    assert "**not measured**: …/x is broken" in results.read_text()
    assert str(state) not in results.read_text()


@pytest.mark.parametrize("error", [PoolFull("no free page"), OSError(28, "No space left on device")])
def test_one_figure_that_breaks_does_not_cost_the_others(
    monkeypatch: pytest.MonkeyPatch, state: Path, results: Path, error: Exception
) -> None:
    other = Line("another thing", Unit.SECONDS)

    def breaking(_bench: Bench) -> Outcomes:
        raise error

    def fine(_bench: Bench) -> Outcomes:
        return {other: Measured(Samples.of([0.5]))}

    figures(monkeypatch, breaking, fine)
    assert command.main(["--directory", str(state)]) == 1
    assert str(error) in results.read_text()
    assert "| another thing | 500 ms |" in results.read_text()


def test_a_directory_that_was_there_stays(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    figures(monkeypatch, good)
    state.mkdir()
    (state / "mine").write_text("")
    command.main(["--directory", str(state), "--quick"])
    assert [each.name for each in state.iterdir()] == ["mine"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_servers_and_removes_files(
    monkeypatch: pytest.MonkeyPatch, state: Path, results: Path, number: signal.Signals
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(bench: Bench) -> Outcomes:
        with running(["sleep", "60"], bench.directory / "log", lambda: True) as process:
            started.append(process)
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 10)
        raise AssertionError("the signal did not come")

    figures(monkeypatch, interrupted)
    assert command.main(["--directory", str(state)]) == 130
    assert started[0].poll() is not None
    assert not state.exists() and not results.exists()


def test_a_directory_in_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures(monkeypatch, good)
    monkeypatch.setattr(bench_module, "_IN_MEMORY", (file_system(state.parent),))
    assert command.main(["--directory", str(state)]) == 1
    assert "lies in memory" in capsys.readouterr().err
    assert not state.exists()


def test_a_full_disk_is_refused(
    monkeypatch: pytest.MonkeyPatch, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures(monkeypatch, good)
    monkeypatch.setattr(Settings, "free_bytes_needed", 1 << 62)
    assert command.main(["--directory", str(state)]) == 1
    assert "are needed" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--only", "nothing"], ["--repeat", "0"], ["--repeat", "x"]])
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        command.main(words)
    assert exit.value.code == 2


def test_no_line_of_the_table_stands_twice() -> None:
    """Outcomes are found by their line: of two that are equal one would be lost."""
    lines = [line for figure in FIGURES for line in figure.lines]
    assert len(set(lines)) == len(lines)
    assert all(figure.method for figure in FIGURES)
