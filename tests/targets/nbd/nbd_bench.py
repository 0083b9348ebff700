"""A pool with volumes, and NBD servers on it; and a pool whose disk does what a test wants it to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from offsite.access.certificates import Authority
from offsite.access.maps import Maps
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create, ImageInfo, OpenImage, Pool
from offsite.store.database import Database
from offsite.targets.common.grants import Grants, everything
from offsite.targets.common.listeners import Address
from offsite.targets.common.server import TargetServer
from offsite.targets.nbd.connection import NbdConnection
from offsite.units import MIB
from tests.targets.nbd.nbd_client import RawClient

PAGE = 16 << 10


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread is about to do."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def complaints(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What an operator should see: not that clients come and go."""
    return [line for line in lines if line["log_level"] != "info"]


class SupportsBool(Protocol):
    def __bool__(self) -> bool: ...


class Disk:
    """What a test lets happen below its images."""

    def __init__(self) -> None:
        self.cold: SupportsBool = False  # nothing is in the page cache
        self.gate = threading.Event()  # cold reads and flushes pass while it is set
        self.gate.set()
        self.failure: Exception | None = None  # of every read, write and flush
        self.flushes = 0
        self.flushing = threading.Event()  # a flush has begun
        self.written: list[int] = []  # length of every write


class FaultyImage:
    """An image of a real pool on a Disk."""

    def __init__(self, image: OpenImage, disk: Disk) -> None:
        self._image = image
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image, name)

    def _fail(self) -> None:
        if self._disk.failure is not None:
            raise self._disk.failure

    def read_nowait(self, offset: int, buffer: memoryview) -> bool:
        self._fail()
        return not self._disk.cold and self._image.read_nowait(offset, buffer)

    def read(self, offset: int, buffer: memoryview) -> None:
        assert self._disk.gate.wait(10)
        self._fail()
        self._image.read(offset, buffer)

    def write(self, offset: int, data: memoryview) -> None:
        self._fail()
        self._disk.written.append(len(data))
        self._image.write(offset, data)


class FaultyPool:
    """A real pool on a Disk."""

    def __init__(self, pool: Pool, disk: Disk) -> None:
        self._pool = pool
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def open(self, image_id: int) -> Any:
        return FaultyImage(self._pool.open(image_id), self._disk)

    def flush(self) -> None:
        self._disk.flushes += 1
        self._disk.flushing.set()
        assert self._disk.gate.wait(10)
        if self._disk.failure is not None:
            raise self._disk.failure
        self._pool.flush()


class NbdBench:
    """Everything a test of the NBD target needs, closed at its end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = Database(directory / "state.db")
        self.pool = LocalPool.create(self.database, "A", Path("pool-A.data"), 256 * MIB, PAGE)
        self.maps = Maps(self.database)
        self.disk = Disk()
        self.socket_path = directory / "nbd.sock"
        self._servers: list[TargetServer] = []
        self._clients: list[RawClient] = []

    def volume(self, name: str = "Sales", size_bytes: int = 8 * MIB, access: Any = "read-write") -> ImageInfo:
        """A new volume, mapped to everyone."""
        (image,) = self.pool.apply([Create(name, size_bytes)])
        self.maps.map(image.id, None, access)
        return image

    def serve(
        self,
        *addresses: Address,
        authority: Authority | None = None,
        available: Callable[[ImageInfo], bool] = everything,
        **options: Any,
    ) -> TargetServer:
        """A started server, on the Unix socket unless told otherwise; its pool's disk is `disk`."""
        faulty: Any = FaultyPool(self.pool, self.disk)
        grants = Grants({"A": faulty}, self.maps, available)
        server = TargetServer(NbdConnection, addresses or (self.socket_path,), grants, authority, **options)
        server.start()
        self._servers.append(server)
        return server

    def connect(self, address: Address | None = None, source: str = "") -> RawClient:
        client = RawClient(address or self.socket_path, source)
        self._clients.append(client)
        return client

    def client(self, name: str = "Sales", **options: bool) -> RawClient:
        """A client in the transmission phase."""
        client = self.connect()
        client.go(name, **options)
        return client

    def uri(self, name: str = "Sales") -> str:
        return f"nbd+unix:///{name}?socket={self.socket_path}"

    def content(self, image: ImageInfo) -> bytes:
        """All bytes of an image, past the server."""
        opened = self.pool.open(image.id)
        buffer = bytearray(image.size_bytes)
        opened.begin()
        opened.read(0, memoryview(buffer))
        opened.end()
        opened.close()
        return bytes(buffer)

    def close(self) -> None:
        self.disk.gate.set()
        for client in self._clients:
            client.close()
        for server in self._servers:
            server.stop(5)
        self.pool.close()
        self.database.close()


def bench_in(directory: Path) -> Iterator[NbdBench]:
    bench = NbdBench(directory)
    yield bench
    bench.close()
