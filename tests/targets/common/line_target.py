"""A target that nobody would want: lines of text. Made of targets/common alone, it shows what that is enough for.

HELLO line:web1                        ──▶  READY 0 1          LUNs
READ TAG LUN OFFSET LENGTH             ──▶  TAG DATA LENGTH, and the data
WRITE TAG LUN OFFSET LENGTH, the data  ──▶  TAG OK
FLUSH TAG LUN                          ──▶  TAG OK
anything that fails                    ──▶  TAG no space, TAG I/O error, TAG internal error
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offsite.errors import OffsiteError, ProtocolError
from offsite.pools.protocol import OpenImage
from offsite.targets.common import identity
from offsite.targets.common.background import Background
from offsite.targets.common.buffers import new_buffer
from offsite.targets.common.channel import ClientChannel
from offsite.targets.common.connection import TargetConnection, prefer_batches
from offsite.targets.common.counters import Activity
from offsite.targets.common.failure import failure_of
from offsite.targets.common.grants import Grant

BUFFER_BYTES = 1 << 20


@dataclass
class Unit:
    """One LUN of one connection."""

    grant: Grant
    image: OpenImage
    activity: Activity


class LineConnection(TargetConnection):
    NAME = "LINE"
    PROTOCOL = "line"
    ID_PREFIX = "line:"

    def serve(self, log: Any) -> None:
        buffer = new_buffer(BUFFER_BYTES)
        deadline = time.monotonic() + self._settings.handshake_seconds
        received = self._channel.receive_before(buffer, deadline)
        word, _, name = bytes(buffer[:received]).decode().strip().partition(" ")
        if word != "HELLO":
            raise ProtocolError(f"{word!r} in place of HELLO")
        self.initiator = identity.checked_claim(name, self.ID_PREFIX)
        self.settle()
        log.info("LINE client connected", initiator=self.initiator)
        prefer_batches()
        with ExitStack() as stack:
            background = stack.enter_context(closing(Background(self._settings.workers, self.initiator)))
            units = {lun: self._unit(stack, each) for lun, each in self._settings.grants.by_lun(self.initiator).items()}
            self._channel.send(f"READY {' '.join(map(str, units))}\n".encode(), deadline)
            LineSession(self._channel, units, background, buffer).run()

    def _unit(self, stack: ExitStack, grant: Grant) -> Unit:
        self.use(grant)
        image = stack.enter_context(closing(grant.pool.open(grant.image.id)))
        return Unit(grant, image, stack.enter_context(self.counting(grant)))


class LineSession:
    def __init__(
        self, channel: ClientChannel, units: dict[int, Unit], background: Background, buffer: memoryview
    ) -> None:
        self._channel = channel
        self._units = units
        self._background = background
        self._buffer = buffer
        self._pending: dict[int, Unit] = {}  # by tag, what the background does
        self._replies: list[bytes] = []

    def run(self) -> None:
        rest = b""
        while received := self._channel.receive(self._buffer):
            received_at = time.perf_counter()
            rest = self._carry_out(rest + bytes(self._buffer[:received]))
            self._wait_for_background()
            self._channel.send(b"".join(self._replies))
            self._replies.clear()
            for unit in self._units.values():
                unit.activity.end_batch(time.perf_counter() - received_at)

    def _carry_out(self, data: bytes) -> bytes:
        """All requests that are complete; returns what is left."""
        while b"\n" in data:
            line, _, rest = data.partition(b"\n")
            word, *numbers = line.decode().split()
            tag, lun, offset, length = (*map(int, numbers), 0, 0)[:4]
            payload = rest[:length] if word == "WRITE" else b""
            if word == "WRITE" and len(payload) < length:
                break
            data = rest[len(payload) :]
            try:
                self._request(word, tag, self._units[lun], offset, length, payload)
            except (OffsiteError, OSError) as error:
                self._replies.append(f"{tag} {failure_of(error).value}\n".encode())
        return data

    def _request(self, word: str, tag: int, unit: Unit, offset: int, length: int, payload: bytes) -> None:
        if word == "FLUSH":
            self._pending[tag] = unit
            self._background.flush(unit.grant, tag)
            return
        unit.image.begin()
        try:
            if word == "WRITE":
                unit.image.write(offset, memoryview(payload))
                unit.activity.batch_writes += 1
                unit.activity.written_bytes += length
                self._replies.append(f"{tag} OK\n".encode())
                return
            data = memoryview(bytearray(length))
            is_there = unit.image.read_nowait(offset, data)
        finally:
            unit.image.end()
        if is_there:
            unit.activity.batch_reads += 1
            unit.activity.read_bytes += length
            self._replies.append(f"{tag} DATA {length}\n".encode() + data)
        else:
            self._pending[tag] = unit
            self._background.read(unit.grant, tag, offset, length, 0)

    def _wait_for_background(self) -> None:
        wakeup = select.poll()
        wakeup.register(self._background.wakeup, select.POLLIN)
        while self._background.outstanding:
            self._background.start_waiting(lambda: False)
            wakeup.poll()
            for done in self._background.take_done():
                unit = self._pending.pop(done.cookie)
                if done.failure is not None:
                    self._replies.append(f"{done.cookie} {done.failure.value}\n".encode())
                elif done.buffer is None:
                    self._replies.append(f"{done.cookie} OK\n".encode())
                else:
                    unit.activity.add_read(done.size_bytes, time.perf_counter() - done.asked_at)
                    self._replies.append(f"{done.cookie} DATA {done.size_bytes}\n".encode() + done.buffer)
                self._background.give_back(done)


class LineClient:
    def __init__(self, path: Path, initiator: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")
        self.send(f"HELLO {initiator}\n".encode())
        self.greeting = self._file.readline().decode().strip()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> tuple[str, bytes]:
        """A line, and the data behind it."""
        line = self._file.readline().decode().strip()
        _, _, length = line.partition(" DATA ")
        return line, self._file.read(int(length)) if length else b""

    def ask(self, line: str, payload: bytes = b"") -> tuple[str, bytes]:
        self.send(f"{line}\n".encode() + payload)
        return self.answer()

    def is_closed(self) -> bool:
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._file.close()
        self._socket.close()
