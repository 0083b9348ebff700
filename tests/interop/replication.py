"""What the tests of replication between two real processes share: volumes that hosts write, sets, and runs that are
held half way by their bandwidth."""

from __future__ import annotations

import os
import socket
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from offsite.demo.disk import Disk
from tests.systems import System, wait_until

MIB = 1 << 20
SECONDS = 30.0
ENDED = ("success", "failed", "aborted", "dropped")


class HostDisk(Disk):
    """The demo's disk, and it can be read."""

    def read(self, offset: int, length: int) -> bytes:
        self._socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 0, offset, length))
        magic, error, _cookie = struct.unpack(">IIQ", self._receive(16))
        assert (magic, error) == (0x67446698, 0)
        return self._receive(length)


class Replicated:
    """Two systems, connected. Volumes are London's, sets go to Newark."""

    def __init__(self, london: System, newark: System) -> None:
        self.london, self.newark = london, newark

    # -- volumes and sets ------------------------------------------------------------------------------------

    def make_volume(self, name: str, size_mib: int = 4, written_mib: int | None = None) -> None:
        """One that a host has filled with what does not compress."""
        self.london.ask("create", "volume", "pool", "A", "size", f"{size_mib}MiB", name)
        self.london.map(name)
        self.write(name, 0, size_mib if written_mib is None else written_mib)

    def write(self, name: str, at_mib: int = 0, size_mib: int = 1) -> None:
        """As a host does; durable on return."""
        with HostDisk(self.london.nbd_socket, name) as disk:
            for at in range(at_mib, at_mib + size_mib):
                disk.write(at * MIB, os.urandom(MIB))
            disk.flush()

    def make_set(self, name: str, primary: str, *more: str) -> None:
        self.london.ask(
            "create", "replication-set", "peer-connection", "Newark", "primary-volume", primary, *more, "name", name
        )

    def same(self, name: str, other: str | None = None) -> bool:
        """Whether an image of London's and one of Newark's hold the same."""
        return self.london.digest(name) == self.newark.digest(other or name)

    # -- runs ------------------------------------------------------------------------------------------------

    def replicate(self, name: str, *more: str) -> dict[str, Any]:
        """A run to its end, which is success."""
        self.london.ask("replicate", *more, name)
        return self.await_success(name)

    def await_success(self, name: str) -> dict[str, Any]:
        """Waits for the newest run of a set, and those before it."""
        wait_until(f"the runs of {name} end", lambda: all(run["state"] in ENDED for run in self.runs(name)), SECONDS)
        last = self.runs(name)[0]
        assert last["state"] == "success", last
        return last

    def runs(self, name: str, system: System | None = None) -> list[dict[str, Any]]:
        """Newest first."""
        return list((system or self.london).ask("show", "replication-runs", name)["replication-runs"])

    def states(self, name: str) -> list[str]:
        return [str(run["state"]) for run in self.runs(name)]

    def begin(self, name: str) -> dict[str, Any]:
        """Asks for a run, and returns once a part of it is there."""
        self.london.ask("replicate", name)
        run = self.runs(name)[0]["run"]
        wait_until("a batch is there", lambda: self._sent(name, run) > MIB, SECONDS)
        return self.runs(name)[0]

    def _sent(self, name: str, run: str) -> int:
        return next(int(each["wire-bytes-numeric"]) for each in self.runs(name) if each["run"] == run)

    @contextmanager
    def slowly(self) -> Iterator[None]:
        """Runs send a batch of a MiB meanwhile, and then wait ten seconds for the next one: time enough to do in the
        middle of a run what has to be done there, without a race. The limit's end is felt at once."""
        self.london.ask("set", "peer-connection", "bandwidth-limit", "100KB", "Newark")
        try:
            yield
        finally:
            self.london.ask("set", "peer-connection", "bandwidth-limit", "none", "Newark")

    # -- what is told ----------------------------------------------------------------------------------------

    def show(self, name: str, system: System | None = None) -> dict[str, Any]:
        return dict((system or self.london).ask("show", "replication-sets", name)["replication-sets"][0])

    def status(self, name: str, system: System | None = None) -> str:
        return str(self.show(name, system)["status"])

    def await_status(self, name: str, status: str, system: System | None = None, seconds: float = SECONDS) -> None:
        wait_until(f"{name} is {status}", lambda: self.status(name, system) == status, seconds)

    def await_on_both(self, what: str, happened: Callable[[System], bool]) -> None:
        for system in (self.london, self.newark):
            wait_until(f"{what} on {system.name}", partial(happened, system), SECONDS)

    def history(self, name: str, system: System) -> list[str]:
        rows = system.ask("show", "replication-snapshot-history", name).get("snapshot-history", [])
        return [str(row["local-snapshot-name"]) for row in rows]


def snapshots(system: System) -> list[str]:
    return [str(row["name"]) for row in system.ask("show", "snapshots").get("snapshots", [])]


def events(system: System, code: int, words: str) -> list[dict[str, Any]]:
    """Of this code, with these words; newest first."""
    told = system.ask("show", "events", "last", "1000")["events"]
    return [each for each in told if each["event-code"] == code and words in each["message"]]


def hidden(system: System) -> int:
    """How many images there are that no listing shows: they belong to replication."""
    path = system.directory / "state.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        return int(database.execute("SELECT count(*) FROM images WHERE kind = 'internal'").fetchone()[0])


def metrics(system: System) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(str(system.directory / "control.sock"))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer.decode()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is done inside may take so long and no longer."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds, f"it took {took:.2f} s"


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())
