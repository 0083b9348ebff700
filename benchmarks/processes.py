"""Child processes: run to their end or kept running, always with a deadline, always ended.

They get a session of their own, so that Ctrl-C reaches only us, and we end them in the right order. Should we be
killed, the kernel tells the servers to end.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from offsite.units import KIB

Command = Sequence[str | Path]

_END_WITH_US = ("setpriv", "--pdeathsig", "TERM")  # of util-linux
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.01
_TAIL_CHARACTERS = 600
_PLAIN = re.compile(r"[a-z][a-z-]*")
_SHOWN_WORDS = 2


class CannotMeasure(Exception):
    """Why a figure could not be measured, in a sentence for the table: a program that is missing or failed."""


def require(*programs: str) -> None:
    missing = [Path(program).name for program in programs if shutil.which(program) is None]
    if missing:
        raise CannotMeasure(f"not installed: {', '.join(missing)}")


def run(command: Command, timeout_seconds: float = 120.0, environment: Mapping[str, str] | None = None) -> str:
    """What `command` printed. Raises CannotMeasure with what it said when it fails or takes too long."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            env=environment,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotMeasure(f"{words[0]} did not end within {timeout_seconds:g} s") from error
    if done.returncode:
        raise CannotMeasure(f"{_shown(words)} failed with {done.returncode}: {tail(done.stderr or done.stdout)}")
    return done.stdout


@contextmanager
def running(
    command: Command,
    log: Path,
    is_ready: Callable[[], bool],
    timeout_seconds: float = 30.0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server: in the block it is ready, after the block it has ended. Its words go to `log`."""
    words = [str(word) for word in command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_END_WITH_US, *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            wait_until(
                is_ready,
                timeout_seconds,
                f"{_shown(words)} was not ready within {timeout_seconds:g} s",
                lambda: _check_alive(process, words, log),
            )
            yield process
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(
    is_true: Callable[[], bool],
    timeout_seconds: float,
    otherwise: str,
    check: Callable[[], None] = lambda: None,
    poll_seconds: float = _POLL_SECONDS,
) -> None:
    """Raises CannotMeasure(`otherwise`) at the deadline, and whatever `check` raises before it."""
    deadline = time.monotonic() + timeout_seconds
    while not is_true():
        check()
        if time.monotonic() > deadline:
            raise CannotMeasure(otherwise)
        time.sleep(poll_seconds)


def peak_memory_bytes(pid: int) -> int:
    """The most memory (resident set) that a process has had since it began: VmHWM of proc(5)."""
    match = re.search(r"^VmHWM:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if match is None:
        raise CannotMeasure("the kernel does not tell the peak memory of a process")
    return int(match[1]) * KIB


def processor_seconds(pid: int) -> float:
    """What all threads of a process have used of processors since it began, in it and in the kernel: proc(5), to a
    hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tail(text: str) -> str:
    """The end of what a program said, on one line."""
    return " ".join(text.split())[-_TAIL_CHARACTERS:]


def _check_alive(process: subprocess.Popen[bytes], words: Sequence[str], log: Path) -> None:
    if process.poll() is not None:
        raise CannotMeasure(f"{_shown(words)} ended with {process.returncode}: {tail(log.read_text())}")


def _shown(words: Sequence[str]) -> str:
    """The program and its first plain words: the rest may hold paths, and this may stand in the table."""
    plain = [word for word in words[1:] if _PLAIN.fullmatch(word)]
    return " ".join([Path(words[0]).name, *plain[:_SHOWN_WORDS]])
