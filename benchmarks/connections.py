"""TCP connections of this machine over IPv4, as the kernel lists them in /proc/net/tcp."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MAY_SEND = frozenset({0x01, 0x08})  # ESTABLISHED and CLOSE_WAIT, of the kernel's net/tcp_states.h


@dataclass(frozen=True, slots=True)
class Connection:
    """One end of a connection. `unsent_bytes` were written by the program, and not yet acknowledged."""

    local: tuple[str, int]
    remote: tuple[str, int]
    state: int
    unsent_bytes: int

    @property
    def sends(self) -> bool:
        """Whether more data can come out of this end: it is open for writing, or has something left to send."""
        return self.state in _MAY_SEND or self.unsent_bytes > 0


def sending_to(address: str, port: int) -> set[tuple[str, int]]:
    """The local ends of the connections to there from which data can still come."""
    listed = parse(Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {each.local for each in listed if each.remote == (address, port) and each.sends}


def parse(lines: Iterable[str]) -> list[Connection]:
    """The lines of /proc/net/tcp below its heading."""
    found = []
    for line in lines:
        _, local, remote, state, queues, *_ = line.split()
        found.append(Connection(_end(local), _end(remote), int(state, 16), int(queues.partition(":")[0], 16)))
    return found


def _end(text: str) -> tuple[str, int]:
    """`0100007F:1F90`: the address as a number of this machine's byte order, and the port."""
    address, port = text.split(":")
    return socket.inet_ntoa(struct.pack("=I", int(address, 16))), int(port, 16)
