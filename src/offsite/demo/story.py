"""What the demo shows, in order. Every step is checked; the first that fails ends it with exit status 1."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from offsite.demo.disk import Disk
from offsite.demo.filesystem import Ext4, MissingProgram, find_programs
from offsite.demo.group_story import GroupStory
from offsite.demo.narrator import Narrator
from offsite.demo.systems import DemoFailed, DemoSystem
from offsite.units import MIB, format_size

VOLUME_BYTES = 512 * MIB
LEDGER_BYTES = 192 * MIB
VOLUME, SET, CHECK = "Sales", "SalesDR", "Sales-check"


def main() -> int:
    console = Console(highlight=False)
    try:
        find_programs()
    except MissingProgram as error:
        console.print(f"The demo creates an ext4 file system. {error}")
        return 1
    with tempfile.TemporaryDirectory(prefix="offsite-demo-") as directory:
        demo = Demo(Path(directory), console)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            demo.run()
            if os.environ.get("DEMO_EXIT") != "1":
                demo.stay()
        except KeyboardInterrupt:
            console.print("\nStopping both systems.")
        except DemoFailed as error:
            console.print(f"\n[bold red]The demo failed:[/] {error}", soft_wrap=True)
            return 1
        finally:
            demo.stop()
    return 0


class Demo:
    def __init__(self, directory: Path, console: Console) -> None:
        self._directory = directory
        self._console = console
        self._narrator = Narrator(console)
        self._london = DemoSystem("London", "127.0.0.1", directory / "london", console)
        self._newark = DemoSystem("Newark", "127.0.0.2", directory / "newark", console)
        self._started: list[DemoSystem] = []
        self._disk_image = Ext4(directory / "sales.ext4")

    def run(self) -> None:
        self._start_both()
        self._make_volume()
        self._connect()
        first = self._replicate("The first run sends only what was ever written")
        self._change_files()
        second = self._replicate("The second run sends only what changed")
        self._compare_runs(first, second)
        self._prove()
        self._read_back()
        GroupStory(self._london, self._newark, self._narrator, self._directory).tell()
        self._console.rule("[bold green]Everything worked")

    def _start_both(self) -> None:
        self._narrator.title("Two systems, each with its own process and state directory")
        for system in (self._london, self._newark):
            self._started.append(system)
            system.start()

    def _make_volume(self) -> None:
        self._narrator.title("A volume on London, with an ext4 file system and files in it")
        self._london.run("create", "volume", "pool", "A", "size", f"{VOLUME_BYTES // MIB}MiB", VOLUME)
        self._london.run("map", "volume", "access", "rw", "initiator", "nbd:unix", VOLUME)
        files = self._directory / "files"
        files.mkdir()
        source = Path(__file__).parents[1]
        for path in sorted(source.rglob("*.py")):
            shutil.copy(path, files / "-".join(path.relative_to(source).parts))
        (files / "ledger.bin").write_bytes(os.urandom(LEDGER_BYTES))
        self._disk_image.make(VOLUME_BYTES, files)
        written = self._write(None)
        self._narrator.say(f"A host wrote {format_size(written)} over NBD: {len(self._disk_image.names())} files.")
        self._london.run("show", "volumes", VOLUME)

    def _connect(self) -> None:
        self._narrator.title("London connects to Newark: the password is used once, both systems pin certificates")
        (newark,) = self._newark.ask("show", "system")["system"]
        self._london.run(
            "create", "peer-connection", "remote-port-address", self._newark.peer_address,
            "remote-username", "manage", "fingerprint", newark["certificate-fingerprint"], "Newark",
            environment={"OFFSITE_REMOTE_PASSWORD": self._newark.password},
        )  # fmt: skip
        self._london.run("create", "replication-set", "peer-connection", "Newark", "primary-volume", VOLUME, SET)

    def _replicate(self, title: str) -> dict[str, Any]:
        self._narrator.title(title)
        self._london.run("replicate", SET, "--wait")
        return self._last_run()

    def _change_files(self) -> None:
        self._narrator.title("Files change on London")
        before = self._directory / "before.ext4"
        shutil.copy(self._disk_image.image, before)
        news = self._directory / "news.txt"
        news.write_text(f"Written on London at {time.strftime('%Y-%m-%d %H:%M:%S')}, between the two runs.\n")
        self._disk_image.add(news, "news.txt")
        written = self._write(before)
        self._narrator.say(f"The host wrote {format_size(written)}: a new file, news.txt.")

    def _compare_runs(self, first: dict[str, Any], second: dict[str, Any]) -> None:
        sent = [int(run["wire-bytes-numeric"]) for run in (first, second)]
        self._narrator.say(
            f"The first run put {format_size(sent[0])} on the wire, the second {format_size(sent[1])}: "
            f"{sent[0] / max(1, sent[1]):,.0f} times less."
        )
        if sent[1] * 10 > sent[0]:
            raise DemoFailed("the second run sent more than a tenth of the first")

    def _prove(self) -> None:
        self._narrator.title("Proof: the volumes on both systems, read in full, have the same digest")
        self._london.run("show", "digest", VOLUME)
        self._newark.run("show", "digest", VOLUME)
        digests = {system.ask("show", "digest", VOLUME)["digests"][0]["digest"] for system in self._started}
        if len(digests) != 1:
            raise DemoFailed(f"the digests differ: {digests}")
        self._narrator.say("They are equal.")

    def _read_back(self) -> None:
        self._narrator.title("A file, read on Newark from a snapshot of the secondary volume")
        self._newark.run("create", "snapshots", "volumes", VOLUME, CHECK)
        exported = self._directory / "check.ext4"
        self._newark.run("export", CHECK, str(exported))
        copy = Ext4(exported)
        self._narrator.say(f"e2fsck: {copy.check()}")
        self._narrator.say(f"news.txt: {copy.read('news.txt').decode().strip()}")
        for name in self._disk_image.names():
            if copy.read(name) != self._disk_image.read(name):
                raise DemoFailed(f"{name} on Newark differs from London")
        self._narrator.say(
            f"All {len(self._disk_image.names())} files are identical to those on London, byte for byte."
        )

    def _write(self, before: Path | None) -> int:
        with Disk(self._london.directory / "nbd.sock", VOLUME) as disk:
            return disk.write_what_changed(before, self._disk_image.image)

    def _last_run(self) -> dict[str, Any]:
        runs: list[dict[str, Any]] = self._london.ask("show", "replication-runs", SET)["replication-runs"]
        return runs[0]

    def stay(self) -> None:
        self._narrator.title("Both systems keep running. Commands to try in another terminal:")
        for command in (
            f"--state {self._london.directory} show replication-sets",
            f"--state {self._newark.directory} show volumes",
            f"--state {self._london.directory} show events",
            f"--state {self._london.directory} --help",
        ):
            self._console.print(f"    .venv/bin/offsite {command}", soft_wrap=True)
        self._console.print("Ctrl-C stops both and deletes what the demo created.")
        signal.pause()

    def stop(self) -> None:
        for system in reversed(self._started):
            system.stop()
