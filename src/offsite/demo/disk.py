"""A host's disk, as small as it can be: an NBD client that writes to a volume over a Unix socket.

The demo is a host like any other: what it knows of Offsite is the NBD protocol
(https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md).
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Self

from offsite.errors import ProtocolError

BLOCK_BYTES = 4096
WRITE_BYTES_MAX = 1 << 20
TIMEOUT_SECONDS = 60.0

_GREETING, _OPTION = 0x4E42444D41474943, 0x49484156454F5054
_OPTION_EXPORT_NAME = 1
_FLAGS_FIXED_NO_ZEROES = 3
_REQUEST, _REPLY = 0x25609513, 0x67446698
_WRITE, _DISCONNECT, _FLUSH = 1, 2, 3


class Disk:
    """A volume, opened for writing. Use it in a `with`."""

    def __init__(self, path: Path, export: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_SECONDS)
        self._socket.connect(str(path))
        if struct.unpack(">QQH", self._receive(18))[:2] != (_GREETING, _OPTION):
            raise ProtocolError(f"{path} does not speak NBD")
        name = export.encode()
        self._socket.sendall(
            struct.pack(">IQII", _FLAGS_FIXED_NO_ZEROES, _OPTION, _OPTION_EXPORT_NAME, len(name)) + name
        )
        self.size_bytes, _flags = struct.unpack(">QH", self._receive(10))

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self._ask(_WRITE, offset, len(data), data)

    def write_what_changed(self, before: Path | None, after: Path) -> int:
        """Writes the blocks in which `after` differs from `before` (None: from zeros), as a file system would.

        Returns how many bytes that were; flushed on return.
        """
        written = 0
        with after.open("rb") as new, (before or Path("/dev/zero")).open("rb") as old:
            offset = 0
            while piece := new.read(WRITE_BYTES_MAX):
                was = old.read(len(piece))
                if piece != was:
                    written += self._write_blocks(offset, piece, was)
                offset += len(piece)
        self.flush()
        return written

    def flush(self) -> None:
        self._ask(_FLUSH, 0, 0)

    def _write_blocks(self, offset: int, piece: bytes, was: bytes) -> int:
        """Writes the stretches of blocks that differ, each with one request."""
        written, at = 0, 0
        while at < len(piece):
            start = at
            while at < len(piece) and piece[at : at + BLOCK_BYTES] != was[at : at + BLOCK_BYTES]:
                at += BLOCK_BYTES
            if at > start:
                self.write(offset + start, piece[start:at])
                written += len(piece[start:at])
            else:
                at += BLOCK_BYTES
        return written

    def _ask(self, command: int, offset: int, length: int, data: bytes | memoryview = b"") -> None:
        self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, command, 0, offset, length))
        self._socket.sendall(data)
        magic, error, _cookie = struct.unpack(">IIQ", self._receive(16))
        if magic != _REPLY or error:
            raise ProtocolError(f"a write of {length} bytes at {offset} was answered with error {error}")

    def _receive(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            piece = self._socket.recv(length - len(received))
            if not piece:
                raise ProtocolError("the system closed the connection; is the volume mapped?")
            received += piece
        return received

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._socket.sendall(struct.pack(">IHHQQI", _REQUEST, 0, _DISCONNECT, 0, 0, 0))
        finally:
            self._socket.close()
