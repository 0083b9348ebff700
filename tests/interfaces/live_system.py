"""`offsite serve` in a process of its own, and `offsite` as a user types it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from offsite.interfaces.cli import command_line

PASSWORD = "open sesame"
SECONDS = 60
ANY_PORTS = ["--api-port", "0", "--nbd-port", "0", "--peer-port", "0"]


class LiveSystem:
    def __init__(self, directory: Path, process: subprocess.Popen[str], said: str, log: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.process = process
        self.said = said  # on stdout, up to the line that says that it is ready
        self.log = log
        found = re.search(r"API https://([\d.]+):(\d+), NBD ([\d.]+:\d+), peers ([\d.]+:\d+)", said)
        assert found is not None, said
        self.host, self.api_port, self.nbd, self.peer = found[1], int(found[2]), found[3], found[4]

    @property
    def url(self) -> str:
        return f"https://manage@{self.host}:{self.api_port}"

    @property
    def fingerprint(self) -> list[str]:
        """The option with which a user who has compared it trusts the system's certificate."""
        return ["--fingerprint", str(self.json("show", "system")["system"][0]["certificate-fingerprint"])]

    def offsite(
        self, *words: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return quickly("--state", str(self.state), *words, environment=environment, cwd=cwd)

    def do(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        done = self.offsite(*words, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.do("--json", *words))

    def logged(self) -> str:
        return self.log.read_text()

    def wait_for_log(self, text: str, before: int = 0) -> str:
        """The lines of the log from offset `before` on, once one has `text`."""
        deadline = time.monotonic() + 20
        while text not in (found := self.logged()[before:]):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found


def offsite(
    *words: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the program in a process of its own; nothing of this process's own OFFSITE variables reaches it."""
    return subprocess.run(
        [sys.executable, "-m", "offsite", *words],
        env=_environment(environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def quickly(
    *words: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """As `offsite`, in this process, which has loaded its code already."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, _environment(environment), clear=True),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        status = command_line.run(words, {})
    return subprocess.CompletedProcess(words, status, output.getvalue(), errors.getvalue())


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OFFSITE_")}
    return clean | dict(more or {})


def start(directory: Path, *options: str, environment: Mapping[str, str] | None = None) -> LiveSystem:
    """Starts a system in `directory`/state, on any free ports, and waits until it is ready."""
    log = directory / "log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "offsite", "serve", str(directory / "state"), *ANY_PORTS, *options],
            env=_environment({"OFFSITE_MANAGE_PASSWORD": PASSWORD} if environment is None else environment),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    said = ""
    while "is ready" not in said:
        line = process.stdout.readline()
        assert line, log.read_text()
        said += line
    return LiveSystem(directory, process, said, log)


def stop(system: LiveSystem, number: int = signal.SIGTERM) -> int:
    """Asks it to stop; returns its exit status."""
    system.process.send_signal(number)
    try:
        return system.process.wait(SECONDS)
    finally:
        system.process.kill()
        assert system.process.stdout is not None
        system.process.stdout.close()


@contextmanager
def running(directory: Path, *options: str) -> Iterator[LiveSystem]:
    system = start(directory, "--name", "London", "--pool-size", "256MiB", *options)
    try:
        yield system
    finally:
        stop(system)
