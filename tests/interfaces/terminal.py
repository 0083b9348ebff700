"""A terminal with someone at it, who reads what is shown and types answers."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence


def at_a_terminal(
    words: Sequence[str],
    answers: Sequence[tuple[str, str]],
    environment: Mapping[str, str] | None = None,
    columns: int = 100,
) -> tuple[int, str]:
    """Runs `offsite` there. Each answer is typed once its prompt has been shown; returns exit status and screen."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OFFSITE_") and name != "COLUMNS"}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "offsite", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=clean | {"TERM": "xterm"} | dict(environment or {}),
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    screen, seen, waiting, deadline = "", 0, list(answers), time.monotonic() + 60
    try:
        while more := _read(ours, deadline):
            screen += more
            if waiting and waiting[0][0] in screen[seen:]:
                seen = len(screen)
                os.write(ours, (waiting.pop(0)[1] + "\n").encode())
        return process.wait(60), screen
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _take_terminal() -> None:
    """So that Ctrl-C is a signal; also when whoever runs the tests ignores it, as background jobs of a shell do."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read(descriptor: int, deadline: float) -> str:
    """Nothing once the program has ended."""
    assert select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0], "it waits for an answer"
    try:
        return os.read(descriptor, 4096).decode(errors="replace")
    except OSError:  # EIO: the other side is closed
        return ""
