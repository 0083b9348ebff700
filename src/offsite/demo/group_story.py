"""The second half of the demo: a volume group with a snapshot history, a run that is aborted, a schedule.

A shop books each order in two volumes, first in Orders and, once that is acknowledged, in Stock. A copy of both that
is not of one instant could show goods that left the stock for an order that nobody has.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from offsite.demo.disk import BLOCK_BYTES, Disk
from offsite.demo.narrator import Narrator
from offsite.demo.systems import DemoFailed, DemoSystem
from offsite.units import MIB, format_size

VOLUMES = ("Orders", "Stock")
VOLUME_BYTES = 64 * MIB
GROUP, SET = "Shop", "ShopDR"
RUNS = 3
ABORT_SECONDS = 5.0
FIRST_START_SECONDS = 6 * 60  # a schedule begins at least five minutes ahead


class GroupStory:
    def __init__(self, london: DemoSystem, newark: DemoSystem, narrator: Narrator, directory: Path) -> None:
        self._london = london
        self._newark = newark
        self._narrator = narrator
        self._directory = directory

    def tell(self) -> None:
        self._make_group()
        self._run_with_history()
        self._abort()
        self._schedule()

    def _make_group(self) -> None:
        self._narrator.title("A volume group: two volumes, replicated as of one instant, with a snapshot history")
        for name in VOLUMES:
            self._london.run("create", "volume", "pool", "A", "size", f"{VOLUME_BYTES // MIB}MiB", name)
            self._london.run("map", "volume", "access", "rw", "initiator", "nbd:unix", name)
        self._london.run("create", "volume-group", "volumes", ",".join(VOLUMES), GROUP)
        self._london.run(
            "create", "replication-set", "peer-connection", "Newark", "primary-volume", GROUP,
            "snapshot-history", "both", "snapshot-basename", "Shop", "snapshot-count", "3", SET,
        )  # fmt: skip

    def _run_with_history(self) -> None:
        for booked in range(1, RUNS + 1):
            self._book(booked)
            self._london.run("replicate", SET, "--wait")
        self._narrator.say("Each run left a snapshot of both volumes on each system:")
        self._newark.run("show", "replication-snapshot-history", SET)
        kept = self._newark.ask("show", "replication-snapshot-history", SET)["snapshot-history"]
        for number in range(RUNS):
            names = [str(each["local-snapshot-name"]) for each in kept if int(each["number"]) == number]
            orders = [self._orders_in(name) for name in names]
            if orders != [number + 1] * len(VOLUMES):
                raise DemoFailed(f"{names} on Newark hold {orders}, not {number + 1} orders each")
        self._narrator.say(
            f"Read on Newark, the snapshots of runs 0000 to {RUNS - 1:04} hold 1 to {RUNS} orders, the same in both "
            "volumes."
        )

    def _abort(self) -> None:
        self._narrator.title(
            "A run is aborted: it leaves nothing behind, and the secondary keeps its last recovery point"
        )
        self._london.run("set", "peer-connection", "bandwidth-limit", "1MB", "Newark")
        with Disk(self._london.directory / "nbd.sock", "Orders") as disk:
            for at in range(16, 32):
                disk.write(at * MIB, os.urandom(MIB))
            disk.flush()
        self._london.run("replicate", SET)
        self._london.run("show", "replication-runs", SET)
        begun = time.monotonic()
        self._london.run("abort", "replication", SET, "prompt", "yes")
        took = time.monotonic() - begun
        self._london.run("show", "replication-sets", SET)
        if took > ABORT_SECONDS:
            raise DemoFailed(f"the abort took {took:.1f} s")
        (last, *_) = self._london.ask("show", "replication-runs", SET)["replication-runs"]
        if last["state"] != "aborted":
            raise DemoFailed(f"the run is {last['state']}, not aborted")
        self._check_copy()
        self._london.run("set", "peer-connection", "bandwidth-limit", "none", "Newark")

    def _check_copy(self) -> None:
        """The secondary is, byte for byte, what the newest snapshot of its history holds."""
        newest = f"{VOLUMES[0]} as run {RUNS - 1:04} left it"
        kept = self._newark.ask("show", "replication-snapshot-history", SET)["snapshot-history"]
        names = [str(each["local-snapshot-name"]) for each in kept if int(each["number"]) == RUNS - 1]
        digests = [self._digest(name) for name in (VOLUMES[0], names[0])]
        if digests[0] != digests[1]:
            raise DemoFailed(f"the secondary is not {newest}")
        self._narrator.say(f"On Newark the volume is {newest}: {digests[0][:16]}…, both.")

    def _schedule(self) -> None:
        self._narrator.title("A schedule starts all further runs")
        first = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + FIRST_START_SECONDS))
        self._london.run("create", "task", "type", "Replicate", "replication-set", SET, "ShopHourly")
        self._london.run(
            "create", "schedule", "schedule-specification", f"start {first} every 1 hours", "task-name", "ShopHourly",
            "EveryHour",
        )  # fmt: skip
        self._london.run("show", "schedules")

    def _book(self, number: int) -> None:
        """One order, in one volume after the other, as a host does it."""
        with ExitStack() as stack:
            disks = [stack.enter_context(Disk(self._london.directory / "nbd.sock", name)) for name in VOLUMES]
            for disk in disks:
                disk.write(0, number.to_bytes(4, "big").ljust(BLOCK_BYTES, b"\0"))
                disk.write(number * MIB, os.urandom(MIB))
                disk.flush()
        self._narrator.say(f"The host wrote order {number} to both volumes: {format_size(2 * MIB)} of new data.")

    def _orders_in(self, name: str) -> int:
        """How many orders a volume or snapshot on Newark holds."""
        exported = self._directory / f"{name}.raw"
        self._newark.ask("export", name, str(exported))
        with exported.open("rb") as file:
            number = int.from_bytes(file.read(4), "big")
        exported.unlink()
        return number

    def _digest(self, name: str) -> str:
        found: dict[str, Any] = self._newark.ask("show", "digest", name)
        return str(found["digests"][0]["digest"])
