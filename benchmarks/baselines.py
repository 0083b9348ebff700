"""The peers that serve a file over NBD, each on a Unix socket, one connection at a time or many alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from benchmarks.bench import Bench
from benchmarks.processes import Command, require, run, running

CONNECTIONS = 16


@contextmanager
def nbdkit(bench: Bench, file: Path, threads: int) -> Iterator[str]:
    """nbdkit's file plugin on `file`, with up to `threads` requests of a connection at once; yields the URI."""
    require("nbdkit")
    socket = bench.sockets / f"nbdkit-{threads}"
    command: Command = ["nbdkit", "--foreground", "--exit-with-parent", "-U", socket, "-t", str(threads), "file", file]
    with running(command, bench.directory / f"nbdkit-{threads}.log", socket.exists):
        yield uri_of(socket)


@contextmanager
def qemu_nbd(bench: Bench, file: Path, file_format: Literal["raw", "qcow2"]) -> Iterator[str]:
    """qemu-nbd on `file` with io_uring and a warm page cache; yields the URI."""
    require("qemu-nbd")
    socket = bench.sockets / "qemu-nbd"
    socket.unlink(missing_ok=True)  # it leaves its socket behind
    command: Command = [
        *("qemu-nbd", "--persistent", f"--shared={CONNECTIONS}", "--aio=io_uring", "--cache=writeback"),
        *("--discard=unmap", f"--format={file_format}", f"--socket={socket}", file),
    ]
    with running(command, bench.directory / "qemu-nbd.log", socket.exists):
        yield uri_of(socket)


def make_overlay(overlay: Path, base: Path, options: str) -> None:
    """A new qcow2 overlay on the raw image `base`."""
    require("qemu-img")
    overlay.unlink(missing_ok=True)
    with_options = ["-o", options] if options else []
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", *with_options, overlay])


def uri_of(socket: Path, export: str = "") -> str:
    return f"nbd+unix:///{export}?socket={socket}"
