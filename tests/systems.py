"""Two real systems in processes of their own, for tests that need nothing less."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from offsite.demo.systems import DemoSystem
from offsite.interfaces.cli.client import local
from offsite.interfaces.encoding.reply_json import for_programs
from offsite.management.command_table.reply import Reply

DEADLINE_SECONDS = 60


def loopback(number: int) -> str:
    """An address of this machine, 127.0.0.1 for 1; tests that run side by side have others, so that none takes the
    ports of another's systems."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return f"127.0.{int(worker.removeprefix('gw')) + 1 if worker else 0}.{number}"


class System(DemoSystem):
    """As the demo's, and it can be killed."""

    def __init__(self, name: str, address: str, directory: Path, pool_size: str = "4GiB") -> None:
        super().__init__(name, address, directory, Console(quiet=True), pool_size)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def nbd_socket(self) -> Path:
        return self.directory / "nbd.sock"

    def nbd_uri(self, export: str) -> str:
        return f"nbd+unix:///{export}?socket={self.nbd_socket}"

    def ask(self, *command: str) -> Any:
        """As the demo's, without the time that a process of its own takes to start."""
        return for_programs(cast(Reply, local(self.directory).command(command, {}, asks=False)))

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(DEADLINE_SECONDS)

    def refused(self, *command: str) -> str:
        """The sentence with which a command is refused."""
        done = subprocess.run(
            self.command(*command),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
        return done.stderr.strip()

    def popen(self, *command: str) -> subprocess.Popen[str]:
        """A command that goes on beside the test, in a process of its own."""
        return subprocess.Popen(
            self.command(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )

    def digest(self, name: str) -> str:
        return str(self.ask("show", "digest", name)["digests"][0]["digest"])

    def map(self, name: str) -> None:
        self.ask("map", "volume", "access", "rw", "initiator", "nbd:unix", name)

    def last_run(self, set_name: str) -> dict[str, Any]:
        return dict(self.ask("show", "replication-runs", set_name)["replication-runs"][0])


@contextlib.contextmanager
def two_systems(
    directory: Path, secondary_pool_size: str = "4GiB", *, paired: bool = True
) -> Iterator[tuple[System, System]]:
    """London and Newark, started and paired; stopped at the end, however it comes."""
    london = System("London", loopback(1), directory / "london")
    newark = System("Newark", loopback(2), directory / "newark", secondary_pool_size)
    started: list[System] = []
    try:
        for system in (london, newark):
            system.start()
            started.append(system)
        if paired:
            pair(london, newark)
        yield london, newark
    finally:
        for system in started:
            if system.is_running():
                system.kill()


def pair(primary: System, secondary: System) -> None:
    done = try_to_pair(primary, secondary.peer_address, secondary.password, secondary.name)
    assert done.returncode == 0, done.stderr


def try_to_pair(
    primary: System, address: str, password: str, name: str, *more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        primary.command(
            "create", "peer-connection", "remote-port-address", address, "remote-username", "manage", *more, name
        ),
        env=os.environ | {"OFFSITE_REMOTE_PASSWORD": password},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


def wait_until(what: str, happened: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"after {seconds} s still not so: {what}"
        time.sleep(0.05)


def run(*command: str, timeout: float = DEADLINE_SECONDS, **options: Any) -> str:
    """Runs a real program; what it said is a part of the failure when it fails."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, **options
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_json(*command: str) -> Any:
    return json.loads(run(*command))
