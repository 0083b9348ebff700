"""The sockets that a target listens on: TCP ports, and Unix sockets for this machine."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from offsite.errors import BadParameter, InUse

Address = tuple[str, int] | Path
"""Host and TCP port (0: any free one), or the path of a Unix socket."""

BACKLOG = 128
_UNIX_SOCKET_MODE = 0o600


def listen(address: Address, target: str) -> socket.socket:
    """Raises InUse for an address that is taken, BadParameter for one that is not this machine's."""
    family = socket.AF_UNIX
    if not isinstance(address, Path):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if isinstance(address, Path):
            _remove_stale(address)
            os.fchmod(listener.fileno(), _UNIX_SOCKET_MODE)  # which bind gives to the file, from its first moment
            listener.bind(str(address))
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        kind = InUse if error.errno == errno.EADDRINUSE else BadParameter
        raise kind(f"{target} cannot listen on {as_text(address)}: {error.strerror or error}") from error
    return listener


def close(listener: socket.socket) -> None:
    if listener.family == socket.AF_UNIX:
        Path(listener.getsockname()).unlink(missing_ok=True)
    listener.close()


def address_of(listener: socket.socket) -> Address:
    """With the port that it got."""
    name = listener.getsockname()
    return Path(name) if listener.family == socket.AF_UNIX else (name[0], name[1])


def as_text(address: Address) -> str:
    return str(address) if isinstance(address, Path) else f"{address[0]}:{address[1]}"


def _remove_stale(path: Path) -> None:
    """The socket that a process left behind which was killed. One that someone listens on stays."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
