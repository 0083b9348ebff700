"""A bare copy through TLS: file → socket → file, in two processes of this Python, with nothing else to do.

The least that any replication written in this Python has to pay: TLS 1.3 of the ssl module over loopback, buffers
of 1 MiB, and an fsync before the receiver answers. Run as a program it is either end:

    python -m benchmarks.tls_copy receive KEYS FILE      prints its port, takes one file, answers, ends
    python -m benchmarks.tls_copy send KEYS FILE PORT    prints the seconds from before connect until the answer
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.processes import CannotMeasure, run, stop, tail
from offsite.access.certificates import Authority
from offsite.units import MIB

ADDRESS = "127.0.0.1"
BUFFER_BYTES = MIB
TIMEOUT_SECONDS = 120.0
_DONE = b"\x01"


def copy(keys: Path, source: Path, destination: Path) -> float:
    """Copies through two processes; returns the seconds that the sender saw. Raises CannotMeasure."""
    Authority(keys, "bench", [ADDRESS])
    module = [sys.executable, "-m", "benchmarks.tls_copy"]
    receiver = subprocess.Popen(
        [*module, "receive", str(keys), str(destination)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert receiver.stdout is not None and receiver.stderr is not None
        port = receiver.stdout.readline().strip()
        if not port:
            raise CannotMeasure(f"the receiver of the bare TLS copy ended: {tail(receiver.stderr.read())}")
        return float(run([*module, "send", str(keys), str(source), port], TIMEOUT_SECONDS))
    finally:
        stop(receiver)
        for stream in (receiver.stdout, receiver.stderr):
            if stream is not None:
                stream.close()


def receive(keys: Path, destination: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(keys / "system.pem", keys / "system-key.pem")
    with socket.create_server((ADDRESS, 0)) as listener:
        listener.settimeout(TIMEOUT_SECONDS)
        print(listener.getsockname()[1], flush=True)
        plain, _ = listener.accept()
        plain.settimeout(TIMEOUT_SECONDS)
        with context.wrap_socket(plain, server_side=True) as connection, destination.open("wb", buffering=0) as file:
            buffer = memoryview(bytearray(BUFFER_BYTES))
            _fill(connection, buffer[:8])
            left = int.from_bytes(buffer[:8], "big")
            while left:
                filled = _fill(connection, buffer[: min(left, BUFFER_BYTES)])
                file.write(buffer[:filled])
                left -= filled
            os.fsync(file.fileno())
            connection.sendall(_DONE)


def send(keys: Path, source: Path, port: int) -> float:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(keys / "ca.pem")
    start = time.perf_counter()
    with (
        socket.create_connection((ADDRESS, port), TIMEOUT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=ADDRESS) as connection,
        source.open("rb", buffering=0) as file,
    ):
        connection.sendall(os.fstat(file.fileno()).st_size.to_bytes(8, "big"))
        buffer = memoryview(bytearray(BUFFER_BYTES))
        while length := file.readinto(buffer):
            connection.sendall(buffer[:length])
        if connection.recv(1) != _DONE:
            raise CannotMeasure("the receiver of the bare TLS copy hung up")
    return time.perf_counter() - start


def _fill(connection: ssl.SSLSocket, buffer: memoryview) -> int:
    """Fills the buffer: one recv gives at most a TLS record, 16 KiB."""
    filled = 0
    while filled < len(buffer):
        count = connection.recv_into(buffer[filled:])
        if not count:
            raise CannotMeasure("the sender of the bare TLS copy hung up")
        filled += count
    return filled


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["receive", keys_name, file_name]:
            receive(Path(keys_name), Path(file_name))
        case ["send", keys_name, file_name, port_text]:
            print(send(Path(keys_name), Path(file_name), int(port_text)))
        case _:
            sys.exit("this is run by the benchmarks")
