"""The demo's systems: real processes, started and stopped as a user would."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

START_SECONDS = 30
STOP_SECONDS = 30
COMMAND_SECONDS = 300
POOL_SIZE = "4GiB"
PORTS = {"--api-port": 8443, "--nbd-port": 10809, "--peer-port": 7443}


class DemoFailed(Exception):
    """Something that the demo shows did not work."""


class DemoSystem:
    """`offsite serve`, in a process and a state directory of its own."""

    def __init__(self, name: str, address: str, directory: Path, console: Console, pool_size: str = POOL_SIZE) -> None:
        self.name = name
        self.address = address
        self.directory = directory
        self.log = directory.with_suffix(".log")
        self.password = f"demo-{os.urandom(6).hex()}"
        self._console = console
        self._pool_size = pool_size
        self._ports = [part for option, port in PORTS.items() for part in (option, str(_free_port(address, port)))]
        self.peer_address = f"{address}:{self._ports[-1]}"

    def start(self, *more: str) -> None:
        """Returns when it answers. `more` are further options."""
        command = [
            "serve",
            str(self.directory),
            "--name",
            self.name,
            "--listen",
            self.address,
            "--pool-size",
            self._pool_size,
            *more,
        ]
        self.show(*command)
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "offsite", *command, *self._ports],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"OFFSITE_MANAGE_PASSWORD": self.password},
                start_new_session=True,  # Ctrl-C reaches the demo alone, which then stops its systems in order
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"{self.name} did not start; its log:\n{self.log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise DemoFailed(f"{self.name} did not stop within {STOP_SECONDS} s; it was killed") from None

    def run(self, *command: str, environment: dict[str, str] | None = None) -> None:
        """Shows a command and runs it, on the user's own terminal."""
        self.show("--state", str(self.directory), *command)
        done = subprocess.run(
            self.command(*command), env=os.environ | (environment or {}), timeout=COMMAND_SECONDS, check=False
        )
        if done.returncode:
            raise DemoFailed(f"the command above ended with exit status {done.returncode}")

    def ask(self, *command: str) -> Any:
        """What a command says, for the demo itself."""
        done = subprocess.run(
            self.command("--json", *command), capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        if done.returncode:
            raise DemoFailed(f"{shlex.join(command)}: {done.stderr}")
        return json.loads(done.stdout)

    def show(self, *command: str) -> None:
        self._console.print(f"[dim]$[/] [bold]offsite {shlex.join(command)}[/]", highlight=False, soft_wrap=True)

    def command(self, *command: str) -> list[str]:
        """The whole command line, for a process of its own."""
        return [sys.executable, "-m", "offsite", "--state", str(self.directory), *command]

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as control:
            try:
                control.connect(str(self.directory / "control.sock"))
            except OSError:
                return False
        return True


def _free_port(address: str, wanted: int) -> int:
    """The port that a user would find there by default, or any other if somebody has that."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoFailed(f"no free port on {address}")
