"""When nothing is on the wire any more is read from the kernel's list: misread, a suspension would look quicker."""

from __future__ import annotations

import socket
import time

from benchmarks import connections
from benchmarks.connections import Connection

LINES = """\
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100 0 0 10 0
   1: 0100007F:D431 0200007F:1F91 01 0000002A:00000000 01:00000014 00000000  1000        0 12346 2 0 20 4 30 10 -1
   2: 0100007F:D432 0200007F:1F91 04 00000001:00000000 01:00000014 00000000  1000        0 12347 2 0 20 4 30 10 -1
   3: 0100007F:D433 0200007F:1F91 05 00000000:00000000 00:00000000 00000000  1000        0 12348 2 0 20 4 30 10 -1
"""


def test_the_kernels_lines_are_read() -> None:
    """On a little-endian machine, as these lines are of one."""
    listening, open_, closing, closed = connections.parse(LINES.splitlines())
    assert open_ == Connection(("127.0.0.1", 0xD431), ("127.0.0.2", 0x1F91), 1, 42)
    assert [listening.sends, open_.sends, closing.sends, closed.sends] == [False, True, True, False]


def test_a_connection_counts_until_it_is_shut_and_has_nothing_left_to_send() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address, port = listener.getsockname()
        with socket.create_connection((address, port)) as sender, listener.accept()[0] as receiver:
            assert connections.sending_to(address, port) == {sender.getsockname()}
            sender.setblocking(False)
            sent_bytes = _fill(sender)
            sender.shutdown(socket.SHUT_WR)
            assert connections.sending_to(address, port) == {sender.getsockname()}, "the buffer is not empty yet"
            receiver.settimeout(10)
            while sent_bytes:
                sent_bytes -= len(receiver.recv(1 << 20))
            deadline = time.monotonic() + 10
            while connections.sending_to(address, port):
                assert time.monotonic() < deadline
                time.sleep(0.001)


def _fill(sender: socket.socket) -> int:
    """Sends until neither side's buffer takes any more; returns how much it was."""
    sent_bytes = 0
    while True:
        try:
            sent_bytes += sender.send(bytes(1 << 16))
        except BlockingIOError:
            return sent_bytes
