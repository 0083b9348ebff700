"""Whatever is started ends, in time, and what failed says why."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from benchmarks import processes
from benchmarks.processes import CannotMeasure


def test_a_program_that_is_missing_is_named() -> None:
    processes.require("sh")
    with pytest.raises(CannotMeasure, match="not installed: no-such-program"):
        processes.require("sh", "no-such-program")


def test_run_returns_what_was_printed() -> None:
    assert processes.run(["echo", "word"]) == "word\n"


def test_a_failure_carries_the_programs_own_words_but_not_its_paths() -> None:
    with pytest.raises(CannotMeasure, match=r"^sh failed with 3: it broke$"):
        processes.run(["/bin/sh", "-c", "echo it broke >&2; exit 3", "/secret/path"])


def test_a_program_that_hangs_is_ended() -> None:
    start = time.monotonic()
    with pytest.raises(CannotMeasure, match=r"did not end within 0\.1 s"):
        processes.run(["sleep", "60"], timeout_seconds=0.1)
    assert time.monotonic() - start < 5


def test_a_server_runs_in_the_block_and_not_after_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), processes.running(["sleep", "60"], tmp_path / "log", lambda: True) as process:
        assert process.poll() is None
        raise KeyError
    assert process.poll() is not None


def test_a_server_that_ignores_the_request_to_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_STOP_SECONDS", 0.1)
    ready = tmp_path / "ready"
    command = ["bash", "-c", f"trap '' TERM; touch {ready}; while true; do sleep 0.05; done"]
    with processes.running(command, tmp_path / "log", ready.exists) as process:
        pass
    assert process.returncode == -9


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo no such export; exit 4"]
    with (
        pytest.raises(CannotMeasure, match="ended with 4: no such export"),
        processes.running(command, tmp_path / "log", lambda: False),
    ):
        pass


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with (
        pytest.raises(CannotMeasure, match=r"was not ready within 0\.1 s"),
        processes.running(["sleep", "60"], tmp_path / "log", lambda: False, timeout_seconds=0.1),
    ):
        pass


def test_the_peak_of_memory_counts_what_was_given_back(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    program = (
        f"import pathlib, time; bytearray(b'x' * (64 << 20)); pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    with processes.running([sys.executable, "-c", program], tmp_path / "log", ready.exists) as process:
        assert 64 << 20 < processes.peak_memory_bytes(process.pid) < 512 << 20


def test_processor_time_is_counted_and_sleep_is_not(tmp_path: Path) -> None:
    ready = tmp_path / "ready of (it)"
    loop = "while time.process_time() < 0.5: pass"
    program = f"import pathlib, time\n{loop}\npathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    with processes.running([sys.executable, "-c", program], tmp_path / "log", ready.exists) as process:
        used_seconds = processes.processor_seconds(process.pid)
        assert 0.45 < used_seconds < 5
        time.sleep(0.2)
        assert processes.processor_seconds(process.pid) - used_seconds < 0.1
