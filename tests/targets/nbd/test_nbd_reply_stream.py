"""Every byte and every length of what comes back for batches of requests: a reply that is cut short, or too long, makes
the client take its neighbour for data, without an error.

Each connection's replies lie together in one buffer: what is tried here are the orders and sizes in which they fill it.
"""

from __future__ import annotations

import random
import struct

import pytest

from offsite.access.certificates import Authority
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd.commands import READ_PIECE_BYTES
from offsite.targets.nbd.replies import BUFFER_BYTES
from offsite.units import MIB
from tests.targets.nbd.nbd_bench import NbdBench
from tests.targets.nbd.nbd_client import RawClient
from tests.targets.nbd.reply_stream import DF, Asked, after, exchange, random_batch
from tests.targets.nbd.test_nbd_tls import certificate_directory, start_tls, tcp_address

READ, WRITE, FLUSH, TRIM, CACHE, ZEROES, STATUS = (
    nbd.CMD_READ,
    nbd.CMD_WRITE,
    nbd.CMD_FLUSH,
    nbd.CMD_TRIM,
    nbd.CMD_CACHE,
    nbd.CMD_WRITE_ZEROES,
    nbd.CMD_BLOCK_STATUS,
)
READ_AREA, SIZE = 33 * MIB, 48 * MIB


def filled(bench: NbdBench) -> bytes:
    """A volume with other bytes everywhere in its read area; returns its content."""
    image = bench.volume(size_bytes=SIZE)
    content = random.Random(1).randbytes(READ_AREA) + bytes(SIZE - READ_AREA)
    opened = bench.pool.open(image.id)
    opened.begin()
    opened.write(0, memoryview(content)[:READ_AREA])
    opened.end()
    opened.close()
    return content


SIMPLE: dict[str, list[Asked]] = {
    "a long read, then the longest plain one": [Asked(READ, 0, 5 * MIB // 4), Asked(READ, 7, MIB)],
    "a read that leaves 100 bytes, then another": [Asked(READ, 0, BUFFER_BYTES - 116), Asked(READ, 9, 4096)],
    "a read that leaves nothing, then a write": [
        Asked(READ, 3, BUFFER_BYTES - 16),
        Asked(WRITE, READ_AREA, 512, payload=b"w" * 512),
    ],
    "a read that leaves nothing, then a read": [Asked(READ, 3, BUFFER_BYTES - 16), Asked(READ, 0, 1)],
    "refusals behind a long read, then a read": [
        Asked(READ, 0, 5 * MIB // 4),
        Asked(99, 0, 0, error=nbd.EINVAL),
        Asked(TRIM, READ_AREA, 0),
        Asked(READ, 1, MIB),
    ],
}
STRUCTURED: dict[str, list[Asked]] = {
    "a plain read, a trim of nothing, a plain read": [
        Asked(READ, 0, 1_048_520),
        Asked(TRIM, READ_AREA, 0),
        Asked(READ, 5, MIB),
    ],
    "a long read in one piece, then a plain one": [Asked(READ, 0, 5 * MIB // 4, DF), Asked(READ, 5, MIB)],
    "block status behind a plain read, then a plain one": [
        Asked(READ, 0, MIB - 60),
        Asked(STATUS, 0, READ_AREA),
        Asked(READ, 5, MIB),
    ],
}


@pytest.mark.parametrize("name", SIMPLE)
def test_no_simple_reply_is_cut_short_by_those_before_it(bench: NbdBench, name: str) -> None:
    content = filled(bench)
    bench.serve()
    exchange(bench.client(structured=False), SIMPLE[name], content)


@pytest.mark.parametrize("name", STRUCTURED)
def test_no_structured_reply_is_cut_short_by_those_before_it(bench: NbdBench, name: str) -> None:
    content = filled(bench)
    bench.serve()
    exchange(bench.client(contexts=True), STRUCTURED[name], content)


@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
@pytest.mark.parametrize("left", [-1, 0, 13, 16, 27, 28, 59])
def test_any_reply_may_come_when_little_room_is_left(bench: NbdBench, structured: bool, left: int) -> None:
    """Each kind of reply, behind one that leaves `left` bytes of the buffer."""
    content = filled(bench)
    bench.serve()
    client = bench.client(structured=structured, contexts=structured)
    long, flags = BUFFER_BYTES - left - (28 if structured else 16), DF if structured else 0
    others = [
        Asked(READ, 1, 4096),
        Asked(READ, 1, 0),
        Asked(READ, 2, 3 * MIB),
        Asked(WRITE, READ_AREA, 4, payload=b"four"),
        Asked(WRITE, READ_AREA, 4, nbd.CMD_FLAG_FUA, payload=b"four"),
        Asked(FLUSH),
        Asked(TRIM, READ_AREA, 0),
        Asked(ZEROES, READ_AREA, 9),
        Asked(CACHE, 0, 4096),
        Asked(99, error=nbd.EINVAL),
        Asked(READ, SIZE, 1, error=nbd.EINVAL),
        Asked(STATUS, 0, MIB, error=0 if structured else nbd.EINVAL),
    ]
    for other in others:
        exchange(client, [Asked(READ, 0, long, flags), other, Asked(READ, 11, 512), Asked(READ, 12, MIB)], content)


SIZES = [
    *(0, 1, 512, 4096, 4096, 4096, 65536, 300_000),
    *(READ_PIECE_BYTES // 2, READ_PIECE_BYTES - 56, READ_PIECE_BYTES, READ_PIECE_BYTES + 1, 5 * MIB // 4),
    *(BUFFER_BYTES - MIB, BUFFER_BYTES - 116, BUFFER_BYTES - 28, BUFFER_BYTES - 16, BUFFER_BYTES, 3 * MIB),
]


class Sometimes:
    """Whether a read finds its data in the page cache: by chance."""

    def __init__(self, choice: random.Random, share: float) -> None:
        self._choice = choice
        self._share = share

    def __bool__(self) -> bool:
        return self._choice.random() < self._share


@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
@pytest.mark.parametrize("transport", ["unix", "tcp", "tls"])
@pytest.mark.parametrize("seed", range(2))
def test_batches_of_everything_are_answered_to_the_byte(
    bench: NbdBench, transport: str, structured: bool, seed: int
) -> None:
    content = filled(bench)
    image = bench.pool.images()[0]
    authority = Authority(bench.directory / "keys", "London", ["127.0.0.1"]) if transport == "tls" else None
    server = bench.serve(bench.socket_path, ("127.0.0.1", 0), authority=authority)
    choice = random.Random(seed)
    bench.disk.cold = Sometimes(choice, 0.3 * seed)
    client = bench.connect(None if transport == "unix" else tcp_address(server))
    client.greet()
    if authority is not None:
        start_tls(client, certificate_directory(authority, bench.directory / "db", "db"))
    client.haggle("Sales", structured=structured, contexts=structured)
    for number in range(12):
        sizes = [*SIZES, nbd.PAYLOAD_BYTES_MAX] if number == 0 else SIZES
        batch = random_batch(choice, READ_AREA, SIZE, sizes, structured=structured)
        cuts = [choice.randrange(1 << 30) for _ in range(choice.choice([0, 0, 1, 2, 20]))]
        exchange(client, batch, content, cuts)
        content = after(content, batch)
    assert_nothing_more_comes(client)
    assert bench.content(image) == content


def assert_nothing_more_comes(client: RawClient) -> None:
    client.socket.sendall(struct.pack(">IHHQQI", nbd.REQUEST_MAGIC, 0, nbd.CMD_DISC, 1, 0, 0))
    assert client.is_closed()
