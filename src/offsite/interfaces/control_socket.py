"""The Unix socket in the state directory, over which the same user and root manage without a password."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offsite.errors import StateDirectoryError

NAME = "control.sock"
PATH_BYTES_MAX = 107  # sun_path of unix(7), less the zero at its end
_BACKLOG = 64


def listen(path: Path) -> socket.socket:
    """A socket at `path` that only its owner (and root) can connect to, from the first moment on.

    One that a killed process left is replaced: the caller holds the lock of the state directory.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # which bind gives to the file, from its first moment
        with short(path) as reachable:
            listener.bind(reachable)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StateDirectoryError(f"{path} cannot be made: {error.strerror or error}") from error
    return listener


@contextmanager
def short(path: Path) -> Iterator[str]:
    """A name for the socket at `path` that fits a Unix socket's address, however long the path is."""
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
