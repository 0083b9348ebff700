"""Commands that run before and after the snapshot of a run, to quiesce a database, say.

A hook is a file in the directory of hooks, which belongs to whoever administrates the machine: a user of the
system may choose among those files, but not bring a command line of their own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from offsite.errors import BadParameter, ErrorClass, OffsiteError
from offsite.return_codes import ReturnCode

TIMEOUT_SECONDS_MIN, TIMEOUT_SECONDS_MAX = 1, 600
_TOLD_CHARACTERS = 500


class HookFailed(OffsiteError):
    """A hook ended with an error, or not in time."""

    code = ReturnCode.HOOK_FAILED
    error_class = ErrorClass.OPERATOR


class Cut:
    """With it, another thread ends a hook before its time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kill: Callable[[], None] | None = None
        self.reason: str | None = None

    def now(self, reason: str) -> None:
        """Also ends one that is not running yet."""
        with self._lock:
            self.reason = reason
            if self._kill is not None:
                self._kill()

    @contextmanager
    def reaches(self, kill: Callable[[], None]) -> Iterator[None]:
        """`kill` is called, once at least, if the hook is to end within the block."""
        with self._lock:
            self._kill = kill
            if self.reason is not None:
                kill()
        try:
            yield
        finally:
            with self._lock:
                self._kill = None


class Hooks(Protocol):
    def check(self, name: str) -> str:
        """Returns `name`, or raises BadParameter when there is no such hook."""
        ...

    def run(self, name: str, timeout_seconds: float, environment: Mapping[str, str], cut: Cut) -> None:
        """Raises HookFailed."""
        ...


class HookDirectory:
    """Hooks that are files in one directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self, name: str) -> str:
        if not name or name != Path(name).name or name.startswith("."):
            raise BadParameter(f"hook {name[:100]!r} is not a file name in {self._path.name}/")
        if not os.access(self._path / name, os.X_OK) or not (self._path / name).is_file():
            raise BadParameter(
                f"hook {name[:100]!r} is not an executable file in {self._path}; put it there, then name it"
            )
        return name

    def run(self, name: str, timeout_seconds: float, environment: Mapping[str, str], cut: Cut) -> None:
        try:
            self.check(name)
        except BadParameter as error:
            raise HookFailed(str(error)) from error
        with tempfile.TemporaryFile() as output:
            status = self._run(name, timeout_seconds, environment, output.fileno(), cut)
            if cut.reason is not None:
                raise HookFailed(f"hook {name} was killed: {cut.reason}")
            if status == 0:
                return
            said = _tail(output.fileno())
        if status is None:
            raise HookFailed(f"timeout: hook {name} did not end within {timeout_seconds:.0f} s and was killed{said}")
        raise HookFailed(f"hook {name} ended with status {status}{said}")

    def _run(
        self, name: str, timeout_seconds: float, environment: Mapping[str, str], output: int, cut: Cut
    ) -> int | None:
        """The status, or None when it had not ended in time. In a session of its own, so that its children go along."""
        try:
            process = subprocess.Popen(
                [self._path / name],
                cwd=self._path,
                env={"PATH": os.defpath, "LANG": "C.UTF-8", **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise HookFailed(f"hook {name} cannot be started: {error.strerror or error}") from error
        with cut.reaches(lambda: _kill(process)):
            try:
                return process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                _kill(process)
                process.wait()
                return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With its children. Harmless when it has just ended: until then its number is nobody else's."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _tail(output: int) -> str:
    """The end of what it said, for the sentence."""
    size = os.fstat(output).st_size
    data = os.pread(output, 4 * _TOLD_CHARACTERS, max(0, size - 4 * _TOLD_CHARACTERS))
    text = " ".join(data.decode(errors="replace").split())[-_TOLD_CHARACTERS:]
    return f": {text}" if text else ""
