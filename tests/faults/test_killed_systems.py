"""R4, R7 and the promise that a secondary is never half of anything, with real processes killed with SIGKILL.

strace kills a system at its Nth call of a kind, for N = 1, 2, 3… until the run gets through: so it dies at every
step that touches the disk durably, without a line of test code in the product.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from offsite.demo.disk import Disk
from tests.systems import System, run, two_systems, wait_until

MIB = 1 << 20
VOLUME_BYTES = 32 * MIB
STEPS_MAX = 40


@contextmanager
def killed_at(system: System, calls: str, number: int) -> Iterator[None]:
    """Kills `system` at the `number`th of these system calls that one of its threads makes."""
    tracer = subprocess.Popen(
        [
            "strace", "-f", "-p", str(system.pid), "-o", "/dev/null",
            "-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={number}",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.terminate()
        tracer.wait(10)


class Pair:
    def __init__(self, london: System, newark: System) -> None:
        self.london, self.newark = london, newark
        self.synced = ""  # digest of the newest point that is known to be complete
        self._round = 0

    def write(self) -> str:
        """Changes 6 MiB here and there, with discards; returns the digest of the volume now."""
        self._round += 1
        with Disk(self.london.nbd_socket, "Sales") as disk:
            for at in range(self._round % 5, 32, 5):
                disk.write(at * MIB, os.urandom(MIB))
            disk.flush()
        return self.london.digest("Sales")

    def start_run(self) -> None:
        """Perhaps the system dies before it can answer."""
        subprocess.run(self.london.command("replicate", "SalesDR"), capture_output=True, timeout=60, check=False)

    def run_has_ended(self) -> bool:
        """False also while the primary is dead."""
        done = subprocess.run(
            self.london.command("--json", "show", "replication-runs", "SalesDR"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode == 0 and all(
            each["state"] != "running" for each in json.loads(done.stdout).get("replication-runs", [])
        )

    def replicate_until_done(self, killed: System, digest: str) -> None:
        """Starts a run, sees one system die in it (or not), brings that back, and sees the set come up to date."""
        if not killed.is_running():
            if killed is self.london:
                assert self.newark.digest("Sales") in (self.synced, digest), "a half-filled secondary was shown"
            killed.start()
        assert self.newark.digest("Sales") in (self.synced, digest), "a half-filled secondary was shown"
        # The run that was cut is taken up again by itself. If it was cut before it existed, nobody asked for one.
        if self.run_has_ended() and self.newark.digest("Sales") != digest:
            run(*self.london.command("replicate", "SalesDR"))
        wait_until("the secondary is up to date", lambda: self.newark.digest("Sales") == digest)
        wait_until("the primary knows it", lambda: self.london.last_run("SalesDR")["state"] == "success")
        self.synced = digest


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_systems(tmp_path_factory.mktemp("killed")) as (london, newark):
        london.ask("create", "volume", "pool", "A", "size", "32MiB", "Sales")
        london.map("Sales")
        london.ask("create", "replication-set", "peer-connection", "Newark", "primary-volume", "Sales", "SalesDR")
        pair = Pair(london, newark)
        pair.synced = newark.digest("Sales")
        yield pair


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.needs("strace")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("calls", ["fdatasync,fsync", "pwrite64"])
@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_a_system_that_is_killed_at_any_step_of_a_run(pair: Pair, side: str, calls: str) -> None:
    """R1, R4, R7: whichever step it dies at, the secondary is whole, and the set comes up to date by itself."""
    killed = pair.london if side == "primary" else pair.newark
    deaths = 0
    number = 1
    while number < STEPS_MAX:
        digest = pair.write()
        with killed_at(killed, calls, number):
            pair.start_run()
            wait_until("it died, or the run ended", lambda: not killed.is_running() or pair.run_has_ended())
        died = not killed.is_running()
        deaths += died
        pair.replicate_until_done(killed, digest)
        if not died:
            break
        number += 1 if calls == "fdatasync,fsync" else 1 + number // 2
    # strace counts each thread's calls for itself, and no thread of a primary makes a third sync in such a run.
    assert deaths >= 2, f"only {deaths} deaths: the calls that were to kill it are not made any more"


def test_strace_is_told_to_kill(tmp_path: Path) -> None:
    """The tool of these tests: a process that syncs dies at the sync that was named."""
    done = subprocess.run(
        [
            "strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:signal=KILL:when=2",
            "python3", "-c", "import os; f = os.open('x', os.O_CREAT | os.O_RDWR); os.fsync(f); print(1, flush=True); "
            "os.fsync(f); print(2)",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )  # fmt: skip
    assert done.stdout == "1\n"
