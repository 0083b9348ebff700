"""A link that misbehaves: forwards TCP between two systems, until it is told to cut, stall or come back."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    def __init__(self, target_port: int, target_host: str = "127.0.0.1") -> None:
        self.target_port = target_port
        self.target_host = target_host
        self.bytes_there = 0  # from the one who connected, to the target
        self.cut_at: int | None = None  # cuts all once so many bytes went there
        self.stall_at: int | None = None  # stalls once so many bytes went there
        self.stalled = threading.Event()
        self.refusing = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            try:
                server = socket.create_connection((self.target_host, self.target_port))
            except OSError:  # the target is down: whoever tries is to see that
                client.close()
                continue
            self._pairs.append((client, server))
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, there: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                while self.stalled.is_set():
                    threading.Event().wait(0.01)
                sink.sendall(data)
                if not there:
                    continue
                self.bytes_there += len(data)
                if self.stall_at is not None and self.bytes_there >= self.stall_at:
                    self.stall_at = None
                    self.stalled.set()
                if self.cut_at is not None and self.bytes_there >= self.cut_at:
                    self.cut_at = None
                    self.cut()
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return
