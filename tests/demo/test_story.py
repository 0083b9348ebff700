"""The demo is the first thing that a new user sees: it has to run, and to notice when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from offsite.demo import filesystem
from offsite.demo.disk import Disk
from offsite.demo.filesystem import Ext4, MissingProgram
from offsite.demo.story import main
from offsite.errors import ProtocolError


@pytest.mark.slow
def test_the_demo_runs_from_nothing_to_its_last_check(short_directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "offsite", "demo"],
        env=os.environ | {"DEMO_EXIT": "1", "TMPDIR": str(short_directory)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything worked" in done.stdout
    assert "byte for byte" in done.stdout
    for shown in ("Shop_0002-2", "run of replication set ShopDR was aborted", "Schedule EveryHour was created"):
        assert shown in done.stdout
    assert list(short_directory.iterdir()) == [], "what the demo made has to be gone when it ends"


def test_without_e2fsprogs_the_demo_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(filesystem, "_PROGRAMS", ("mkfs.ext4", "no-such-program"))
    assert main() == 1
    told = capsys.readouterr().out
    assert "no-such-program" in told
    assert "e2fsprogs" in told


def test_a_file_system_is_made_changed_and_read_without_root(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_text("one\n")
    disk = Ext4(tmp_path / "disk")
    disk.make(8 << 20, files)
    (tmp_path / "new").write_text("two\n")
    disk.add(tmp_path / "new", "b.txt")
    assert disk.names() == ["a.txt", "b.txt"]
    assert (disk.read("a.txt"), disk.read("b.txt")) == (b"one\n", b"two\n")
    assert "sales" in disk.check()


def test_a_damaged_file_system_is_noticed(tmp_path: Path) -> None:
    """Or the demo's own check of the copy could not fail."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_text("one\n")
    disk = Ext4(tmp_path / "disk")
    disk.make(8 << 20, files)
    with disk.image.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 65536)
    with pytest.raises(subprocess.CalledProcessError):
        disk.check()


def test_what_does_not_speak_nbd_is_refused(short_directory: Path) -> None:
    import socket
    import threading

    path = short_directory / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def answer() -> None:
        connection, _ = listener.accept()
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(ProtocolError, match="does not speak NBD"):
        Disk(path, "x")
    thread.join(5)
    listener.close()


def test_missing_program_names_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "_PROGRAMS", ("no-such-1", "no-such-2"))
    with pytest.raises(MissingProgram, match="no-such-1, no-such-2"):
        filesystem.find_programs()
