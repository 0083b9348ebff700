"""Real Offsite systems, each a process of its own: `offsite serve` and the commands that a user would type."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import boundless
from benchmarks.baselines import uri_of
from benchmarks.bench import Bench
from benchmarks.processes import CannotMeasure, Command, require, run, running, wait_until
from offsite.errors import OffsiteError
from offsite.interfaces.cli import client
from offsite.interfaces.encoding.reply_json import for_programs
from offsite.management.command_table.reply import Question

PASSWORD = "Benchmark-1"  # of systems that live for minutes, on loopback, with random data
POOL = "A"
_OFFSITE = Path(sys.executable).parent / "offsite"
_COMMAND_SECONDS = 300.0
_RUN_SECONDS_MAX = 300.0
_RUN_POLL_SECONDS = 0.2  # as `replicate --wait` does
_SOCKETS = ("nbd.sock", "control.sock")
_SOCKET_PATH_BYTES_MAX = 107  # sun_path of unix(7), less the zero at its end


@dataclass(frozen=True, slots=True)
class Run:
    """A run as its record has it."""

    uuid: str
    state: str
    seconds: float
    ended_at: float | None  # in seconds since the epoch; None: it has not ended
    changed_bytes: int
    wire_bytes: int
    phase: str


@dataclass(frozen=True, slots=True)
class Timed:
    """A run that was waited for: its record, and the seconds that whoever typed the command waited."""

    run: Run
    seen_seconds: float


@dataclass(frozen=True, slots=True)
class System:
    state: Path
    name: str
    address: str
    api_port: int
    nbd_port: int
    peer_port: int
    pool_bytes: int | None  # of pool A; None: the free space

    @contextmanager
    def served(self) -> Iterator[subprocess.Popen[bytes]]:
        size = [] if self.pool_bytes is None else ["--pool-size", f"{self.pool_bytes}B"]
        is_boundless = boundless.mark(self.state).exists()
        program = (sys.executable, boundless.__file__) if is_boundless else (_OFFSITE,)
        command: Command = [
            *(*program, "serve", self.state, "--name", self.name, "--listen", self.address),
            *("--api-port", str(self.api_port), "--nbd-port", str(self.nbd_port), "--peer-port", str(self.peer_port)),
            *size,
        ]
        environment = {**os.environ, "OFFSITE_MANAGE_PASSWORD": PASSWORD}
        log = self.state.parent / f"{self.name}.log"
        with running(command, log, self._answers, environment=environment) as process:
            yield process

    def command(self, *words: str) -> Any:
        """The answer to a command, from its JSON. Raises CannotMeasure when it is refused."""
        environment = {**os.environ, "OFFSITE_REMOTE_PASSWORD": PASSWORD}
        return json.loads(
            run([_OFFSITE, "--state", self.state, "--json", "--yes", *words], _COMMAND_SECONDS, environment)
        )

    def ask(self, *words: str) -> Any:
        """The same without the start of a Python, which takes a core for a third of a second: for what is measured
        while a command is under way, and for asking again and again. Nothing asks back."""
        try:
            reply = client.local(self.state).command(words, {}, asks=False)
        except OffsiteError as error:
            raise CannotMeasure(f"`{' '.join(words[:2])}` was refused: {error}") from error
        assert not isinstance(reply, Question), "a command that asks back is not for here"
        return for_programs(reply)

    def create_volume(self, name: str, size_bytes: int) -> None:
        """A volume that is mapped to everyone."""
        self.ask("create", "volume", "pool", POOL, "size", f"{size_bytes}B", "access", "read-write", name)

    def import_volume(self, name: str, file: Path) -> None:
        self.command("import", name, str(file))
        self.command("map", "volume", name)

    def uri(self, volume: str) -> str:
        return uri_of(self.state / "nbd.sock", volume)

    def create_set(self, name: str, volume: str, secondary: str) -> None:
        """A replication set of `volume` over the peer connection that `two` made; `secondary` is its other end."""
        self.ask(
            *("create", "replication-set", "peer-connection", "Newark"),
            *("primary-volume", volume, "secondary-volume-name", secondary, name),
        )

    def replicate(self, set_name: str) -> Timed:
        """A run from request to end, through the command line."""
        start = time.perf_counter()
        run([_OFFSITE, "--state", self.state, "replicate", set_name, "--wait"], _COMMAND_SECONDS)
        seconds = time.perf_counter() - start
        last = self.last_run(set_name)
        if last.state != "success":
            raise CannotMeasure(f"the run of set {set_name} ended with {last.state}")
        return Timed(last, seconds)

    def last_run(self, set_name: str) -> Run:
        return newest_run(self.ask("show", "replication-runs", set_name))

    def wait_for_run(self, set_name: str) -> Run:
        """The newest run of the set, once it has succeeded. Raises CannotMeasure when it ends otherwise."""
        wait_until(
            lambda: self.last_run(set_name).state != "running",
            _RUN_SECONDS_MAX,
            f"the run of set {set_name} did not end within {_RUN_SECONDS_MAX:g} s",
            poll_seconds=_RUN_POLL_SECONDS,
        )
        last = self.last_run(set_name)
        if last.state != "success":
            raise CannotMeasure(f"the run of set {set_name} ended with {last.state}")
        return last

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.address, self.nbd_port), 1.0):
                return all((self.state / name).exists() for name in _SOCKETS)
        except OSError:
            return False


@contextmanager
def one(bench: Bench) -> Iterator[System]:
    require(str(_OFFSITE))
    system = new(bench, "London", "127.0.0.1")
    with system.served():
        yield system


@contextmanager
def two(bench: Bench, pool_bytes: int | None = None) -> Iterator[tuple[System, System]]:
    """London and Newark, with a peer connection called Newark on London. A pool's file is sparse."""
    require(str(_OFFSITE))
    london = new(bench, "London", "127.0.0.1", pool_bytes)
    newark = new(bench, "Newark", "127.0.0.2", pool_bytes)
    with serving(london, newark):
        connect(london, newark)
        yield london, newark


@contextmanager
def serving(*systems: System) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Gives their processes, in the same order."""
    with ExitStack() as stack:
        yield [stack.enter_context(system.served()) for system in systems]


def connect(london: System, newark: System) -> None:
    london.command(
        *("create", "peer-connection", "remote-port-address", f"{newark.address}:{newark.peer_port}"),
        *("remote-username", "manage", newark.name),
    )


def newest_run(answer: Any) -> Run:
    """The first of the answer to `show replication-runs`, which lists the newest first."""
    try:
        newest = answer["replication-runs"][0]
        return Run(
            uuid=newest["run"],
            state=newest["state"],
            seconds=newest["duration-numeric"],
            ended_at=newest["end-time-numeric"],
            changed_bytes=newest["changed-bytes-numeric"],
            wire_bytes=newest["wire-bytes-numeric"],
            phase=newest["phase"],
        )
    except (LookupError, TypeError) as error:
        raise CannotMeasure(f"the record of a run cannot be read: {error!r}") from error


def new(bench: Bench, name: str, address: str, pool_bytes: int | None = None) -> System:
    """A system that is not there yet; `served` makes and starts it. `address` is one of this machine's."""
    longest = max(len(os.fsencode(bench.directory / name / socket_name)) for socket_name in _SOCKETS)
    if longest > _SOCKET_PATH_BYTES_MAX:
        raise CannotMeasure(
            f"the path of a Unix socket would have {longest} bytes; name a --directory with a shorter path"
        )
    api_port, nbd_port, peer_port = _free_ports(address, 3)
    return System(bench.directory / name, name, address, api_port, nbd_port, peer_port, pool_bytes)


def _free_ports(address: str, count: int) -> list[int]:
    """Ports that nobody listens on just now; the default ones may be in use by a system that is no benchmark."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server((address, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]
