"""The transmission phase over a real socket and a real pool: every command, every refusal, and a slow disk."""

from __future__ import annotations

import errno
import os
import random
import struct
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from offsite.errors import PoolFailed, PoolFull
from offsite.pools.protocol import Create, Delete, Resize
from offsite.targets.common.background import OUTSTANDING_MAX
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd.commands import EXTENTS_MAX, READ_PIECE_BYTES
from offsite.units import MIB
from tests.targets.nbd.nbd_bench import PAGE, NbdBench, complaints, until
from tests.targets.nbd.nbd_client import RawClient

FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
HOLE = nbd.STATE_HOLE | nbd.STATE_ZERO


@pytest.fixture(params=[True, False], ids=["structured", "simple"])
def structured(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# -- reading and writing ---------------------------------------------------------------------------------------


def test_what_is_written_is_read_back_and_the_rest_is_zero(bench: NbdBench, structured: bool) -> None:
    image = bench.volume()
    bench.serve()
    client = bench.client(structured=structured)
    assert client.size_bytes == image.size_bytes
    data = os.urandom(3 * PAGE)
    client.write(PAGE - 100, data)
    assert client.read(PAGE - 100, len(data)) == data
    assert client.read(0, 5 * PAGE) == bytes(PAGE - 100) + data + bytes(PAGE + 100)
    assert client.read(image.size_bytes - 1, 1) == b"\0"


@pytest.mark.parametrize("seed", range(3))
def test_a_pipeline_of_everything_does_to_the_volume_what_it_does_to_a_bytearray(
    bench: NbdBench, structured: bool, seed: int
) -> None:
    """Requests of all sizes, many in flight: replies carry the right data, and the volume ends up the same."""
    size = 4 * MIB
    image = bench.volume(size_bytes=size)
    bench.serve()
    client = bench.client(structured=structured)
    choice, model = random.Random(seed), bytearray(size)
    for _ in range(12):
        asked: dict[int, bytes | None] = {}
        taken: list[range] = []  # no two requests in flight overlap, or their order would not be known
        for _ in range(choice.randrange(1, 40)):
            length = choice.choice([1, 512, 4096, 4096, 4096, PAGE, 3 * PAGE + 7, 300_000])
            offset = (
                choice.randrange(size - length) // choice.choice([1, 4096]) * choice.choice([1, 4096]) % (size - length)
            )
            if any(offset < other.stop and other.start < offset + length for other in taken):
                continue
            taken.append(range(offset, offset + length))
            where = slice(offset, offset + length)
            kind = choice.choice([nbd.CMD_READ, nbd.CMD_READ, nbd.CMD_WRITE, nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES])
            if kind == nbd.CMD_READ:
                asked[client.ask(kind, offset, length)] = bytes(model[where])
                continue
            data = choice.randbytes(length) if kind == nbd.CMD_WRITE else bytes(length)
            model[where] = data
            flags = FUA if choice.random() < 0.05 else 0
            asked[client.ask(kind, offset, length, data if kind == nbd.CMD_WRITE else b"", flags)] = None
        for cookie, reply in client.replies(*asked).items():
            assert (reply.error, reply.sentence) == (0, "")
            expected = asked[cookie]
            assert expected is None or reply.data == expected
    assert bench.content(image) == model


def test_a_long_read_comes_in_pieces_that_fit_together(bench: NbdBench) -> None:
    image = bench.volume(size_bytes=40 * MIB)
    bench.serve()
    client = bench.client()
    data = os.urandom(5 * MIB + 3)
    client.write(1000, data)
    reply = client.run(nbd.CMD_READ, 1000, len(data))
    assert reply.data == data
    assert max(map(len, reply.pieces.values())) == READ_PIECE_BYTES
    assert client.read(0, nbd.PAYLOAD_BYTES_MAX) == bench.content(image)[: nbd.PAYLOAD_BYTES_MAX]


@pytest.mark.parametrize("length", [4096, 65536, READ_PIECE_BYTES + 1, 3 * MIB])
def test_a_read_that_must_not_be_fragmented_comes_in_one_piece(bench: NbdBench, length: int) -> None:
    bench.volume()
    bench.serve()
    client = bench.client()
    data = os.urandom(length)
    client.write(512, data)
    assert client.run(nbd.CMD_READ, 512, length, flags=DF).pieces == {512: data}


def test_a_long_read_without_structured_replies_comes_whole(bench: NbdBench) -> None:
    bench.volume(size_bytes=16 * MIB)
    bench.serve()
    client = bench.client(structured=False)
    data = os.urandom(9 * MIB)
    client.write(0, data)
    assert client.read(0, len(data)) == data
    assert client.read(5, MIB) == data[5 : MIB + 5]


@pytest.mark.parametrize("flags", [0, FUA])
def test_a_long_write_goes_through_in_aligned_pieces(bench: NbdBench, structured: bool, flags: int) -> None:
    image = bench.volume()
    bench.serve()
    client = bench.client(structured=structured)
    data = os.urandom(5 * MIB + 4097)
    client.write(70_001, data, flags)
    assert bench.content(image)[70_001 : 70_001 + len(data)] == data
    assert len(bench.disk.written) > 10
    assert bench.disk.flushes == bool(flags)


def test_requests_that_come_a_few_bytes_at_a_time_are_put_together(bench: NbdBench) -> None:
    bench.volume()
    bench.serve()
    client = bench.client()
    header = struct.pack(">IHHQQI", nbd.REQUEST_MAGIC, 0, nbd.CMD_WRITE, 9, 100, 5)
    for byte in header + b"hello":
        client.socket.sendall(bytes([byte]))
    assert client.replies(9)[9].error == 0
    assert client.read(100, 5) == b"hello"


# -- refusals --------------------------------------------------------------------------------------------------

SIZE = 8 * MIB


OUT_OF_BOUNDS = [  # (command, offset, length, flags, error)
    (nbd.CMD_READ, SIZE, 1, 0, nbd.EINVAL),
    (nbd.CMD_READ, SIZE - 1, 2, 0, nbd.EINVAL),
    (nbd.CMD_READ, 2**64 - 1, 2**32 - 1, 0, nbd.EINVAL),
    (nbd.CMD_READ, 0, nbd.PAYLOAD_BYTES_MAX + 1, 0, nbd.EINVAL),
    (nbd.CMD_READ, 0, 512, NO_HOLE, nbd.EINVAL),
    (nbd.CMD_READ, 0, 512, 1 << 15, nbd.EINVAL),
    (nbd.CMD_WRITE, SIZE - 4, 8, 0, nbd.ENOSPC),
    (nbd.CMD_WRITE, 2**64 - 8, 8, 0, nbd.ENOSPC),
    (nbd.CMD_WRITE, 0, 8, DF, nbd.EINVAL),
    (nbd.CMD_TRIM, SIZE - 4, 8, 0, nbd.EINVAL),
    (nbd.CMD_TRIM, 0, 8, NO_HOLE, nbd.EINVAL),
    (nbd.CMD_WRITE_ZEROES, SIZE - 4, 8, 0, nbd.ENOSPC),
    (nbd.CMD_WRITE_ZEROES, 0, 2**32 - 1, 0, nbd.ENOSPC),
    (nbd.CMD_WRITE_ZEROES, 0, 8, REQ_ONE, nbd.EINVAL),
    (nbd.CMD_CACHE, SIZE - 4, 8, 0, nbd.EINVAL),
    (nbd.CMD_CACHE, 0, 8, FAST_ZERO, nbd.EINVAL),
    (nbd.CMD_FLUSH, 0, 0, DF, nbd.EINVAL),
    (nbd.CMD_BLOCK_STATUS, 0, 8, 0, nbd.EINVAL),  # the context was not agreed on
    (8, 0, 0, 0, nbd.EINVAL),
    (0xFFFF, 0, 0, 0, nbd.EINVAL),
]


def test_a_request_out_of_bounds_is_refused_and_the_connection_goes_on(bench: NbdBench, structured: bool) -> None:
    image = bench.volume(size_bytes=SIZE)
    bench.serve()
    client = bench.client(structured=structured)
    client.write(0, b"before" * 1000)
    before = bench.content(image)
    for kind, offset, length, flags, error in OUT_OF_BOUNDS:
        data = b"x" * length if kind == nbd.CMD_WRITE else b""
        reply = client.run(kind, offset, length, data, flags)
        assert reply.error == error, (kind, offset, length, flags)
        assert bool(reply.sentence) == structured
        assert not reply.pieces
    assert client.read(0, 6) == b"before"
    assert bench.content(image) == before


def test_dont_fragment_needs_structured_replies(bench: NbdBench) -> None:
    bench.volume()
    bench.serve()
    client = bench.client(structured=False)
    assert client.run(nbd.CMD_READ, 0, 512, flags=DF).error == nbd.EINVAL


@pytest.mark.parametrize(
    ("kind", "length"),
    [(nbd.CMD_WRITE, 4096), (nbd.CMD_WRITE, 2 * MIB), (nbd.CMD_TRIM, 4096), (nbd.CMD_WRITE_ZEROES, 4096)],
)
def test_a_read_only_map_lets_nobody_write(bench: NbdBench, structured: bool, kind: int, length: int) -> None:
    image = bench.volume(access="read-only")
    bench.serve()
    client = bench.client(structured=structured)
    assert client.flags & nbd.FLAG_READ_ONLY
    data = b"x" * length if kind == nbd.CMD_WRITE else b""
    assert client.run(kind, 0, length, data).error == nbd.EPERM
    assert client.run(kind, 0, length, data, FUA).error == nbd.EPERM
    assert client.run(nbd.CMD_FLUSH).error == 0
    assert client.read(0, 4096) == bytes(4096)
    assert not any(bench.content(image))


def test_a_request_for_nothing_is_harmless(bench: NbdBench, structured: bool) -> None:
    bench.volume()
    bench.serve()
    client = bench.client(structured=structured)
    for kind in (nbd.CMD_READ, nbd.CMD_WRITE, nbd.CMD_FLUSH, nbd.CMD_TRIM, nbd.CMD_CACHE, nbd.CMD_WRITE_ZEROES):
        reply = client.run(kind)
        assert (reply.error, reply.data) == (0, b"")
    assert client.read(0, 1) == b"\0"


def test_a_write_over_the_maximum_is_refused_and_the_connection_closed(bench: NbdBench, structured: bool) -> None:
    """Its payload, up to 4 GiB of it, is not even taken."""
    bench.volume()
    bench.serve()
    client = bench.client(structured=structured)
    client.socket.sendall(struct.pack(">IHHQQI", nbd.REQUEST_MAGIC, 0, nbd.CMD_WRITE, 5, 0, nbd.PAYLOAD_BYTES_MAX + 1))
    assert client.replies(5)[5].error == nbd.EINVAL
    assert client.is_closed()


def test_garbage_closes_its_connection_with_one_line_in_the_log(bench: NbdBench) -> None:
    bench.volume()
    bench.serve()
    bystander, client = bench.client(), bench.client()
    with capture_logs() as lines:
        cookie = client.ask(nbd.CMD_READ, 0, 512)
        client.socket.sendall(b"\xde\xad\xbe\xef" * 10)
        assert client.replies(cookie)[cookie].data == bytes(512)
        assert client.is_closed()
        until(lambda: bool(complaints(lines)))
    assert [line["event"] for line in complaints(lines)] == ["NBD connection closed"]
    assert "0xdeadbeef" in complaints(lines)[0]["reason"]
    assert bystander.read(0, 512) == bytes(512)


# -- what the disk says ----------------------------------------------------------------------------------------


FAILURES: list[tuple[Exception, int]] = [
    (PoolFull("no free page is left"), nbd.ENOSPC),
    (PoolFailed("the disk did not take the data"), nbd.EIO),
    (OSError(errno.ENOSPC, "file system full"), nbd.ENOSPC),
    (OSError(errno.EFBIG, "file too large"), nbd.ENOSPC),
    (OSError(errno.EDQUOT, "quota"), nbd.ENOSPC),
    (OSError(errno.EIO, "bad sector"), nbd.EIO),
]


@pytest.mark.parametrize("length", [4096, 2 * MIB])
@pytest.mark.parametrize("flags", [0, FUA])
def test_a_write_that_fails_hurts_nothing_else(bench: NbdBench, structured: bool, length: int, flags: int) -> None:
    bench.volume()
    bench.serve()
    client = bench.client(structured=structured)
    client.write(0, b"kept")
    for failure, error in FAILURES:
        bench.disk.failure = failure
        assert client.run(nbd.CMD_WRITE, 4 * MIB, data=b"x" * length, flags=flags).error == error, failure
    bench.disk.failure = None
    assert client.read(0, 4) == b"kept"
    client.write(4 * MIB, b"again")
    assert client.read(4 * MIB, 5) == b"again"


def test_a_full_pool_gives_enospc_and_takes_writes_again_after_a_trim(bench: NbdBench) -> None:
    """With the real pool, filled to its last page."""
    bench.volume(size_bytes=400 * MIB)
    bench.serve()
    client = bench.client()
    data = b"x" * (4 * MIB)
    errors = [client.run(nbd.CMD_WRITE, offset, data=data).error for offset in range(0, 300 * MIB, len(data))]
    assert set(errors) == {0, nbd.ENOSPC}
    assert client.read(0, 4096) == data[:4096]
    assert client.run(nbd.CMD_TRIM, 0, 100 * MIB).error == 0
    client.write(350 * MIB, data)
    assert client.read(350 * MIB, len(data)) == data


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("length", [4096, MIB])
def test_a_read_that_fails_gives_eio(bench: NbdBench, structured: bool, cold: bool, length: int) -> None:
    bench.volume()
    bench.serve()
    client = bench.client(structured=structured)
    first = client.ask(nbd.CMD_READ, 0, length)
    assert client.replies(first)[first].error == 0
    bench.disk.cold, bench.disk.failure = cold, OSError(errno.EIO, "bad sector")
    reply = client.run(nbd.CMD_READ, 0, length)
    assert (reply.error, reply.data) == (nbd.EIO, b"")
    bench.disk.failure = None
    assert client.read(0, length) == bytes(length)


def test_a_flush_that_fails_is_told(bench: NbdBench, structured: bool) -> None:
    bench.volume()
    bench.serve()
    client = bench.client(structured=structured)
    bench.disk.failure = OSError(errno.EIO, "sync failed")
    assert client.run(nbd.CMD_FLUSH).error == nbd.EIO
    bench.disk.failure = None
    assert client.run(nbd.CMD_FLUSH).error == 0


def test_a_defect_in_the_background_is_an_error_and_a_line_in_the_log(bench: NbdBench) -> None:
    """An exception that nobody expected must not leave the client waiting for ever."""
    bench.volume()
    bench.serve()
    client = bench.client()
    bench.disk.cold, bench.disk.failure = True, RuntimeError("a defect")
    with capture_logs() as lines:
        assert client.run(nbd.CMD_FLUSH).error == nbd.EIO
        until(lambda: bool(complaints(lines)))
    assert [line["event"] for line in complaints(lines)] == ["work of a target in the background failed"]


def test_flushes_go_on_after_a_defect_in_one(bench: NbdBench) -> None:
    """Also those that were asked for while it ran: no later flush may wait for one that is not under way."""
    bench.volume()
    bench.serve()
    client = bench.client()
    bench.disk.failure = RuntimeError("a defect")
    bench.disk.gate.clear()
    first = client.ask(nbd.CMD_FLUSH)
    assert bench.disk.flushing.wait(10)
    second = client.ask(nbd.CMD_FLUSH)
    assert client.run(nbd.CMD_BLOCK_STATUS, 0, 0).error == nbd.EINVAL, "what came before it has been taken"
    bench.disk.gate.set()
    assert [reply.error for reply in client.replies(first, second).values()] == [nbd.EIO] * 2
    bench.disk.failure = None
    assert client.run(nbd.CMD_FLUSH).error == 0


def test_a_defect_in_the_connection_closes_it_with_a_line_in_the_log(bench: NbdBench) -> None:
    bench.volume()
    bench.serve()
    client = bench.client()
    bench.disk.failure = RuntimeError("a defect")
    with capture_logs() as lines:
        client.ask(nbd.CMD_READ, 0, 512)
        assert client.is_closed()
        until(lambda: bool(complaints(lines)))
    assert [line["event"] for line in complaints(lines)] == ["NBD connection closed by a defect"]


# -- flushing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nbd.CMD_WRITE, nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES, nbd.CMD_FLUSH])
def test_a_reply_that_promises_durability_waits_for_the_flush(bench: NbdBench, kind: int) -> None:
    bench.volume()
    bench.serve()
    client = bench.client()
    bench.disk.gate.clear()
    flags = 0 if kind == nbd.CMD_FLUSH else FUA
    durable = client.ask(kind, 0, 4096 if flags else 0, b"x" * 4096 if kind == nbd.CMD_WRITE else b"", flags)
    assert bench.disk.flushing.wait(10)
    assert client.read(MIB, 512) == bytes(512), "a read was held up by a flush"
    assert not client.run(nbd.CMD_WRITE, MIB, data=b"y").error
    bench.disk.gate.set()
    assert client.replies(durable)[durable].error == 0
    assert bench.disk.flushes == 1


def test_flushes_that_wait_for_a_flush_share_the_next_one(bench: NbdBench) -> None:
    """The one that runs may have begun too early for them."""
    bench.volume()
    bench.serve()
    client = bench.client()
    bench.disk.gate.clear()
    first = client.ask(nbd.CMD_FLUSH)
    assert bench.disk.flushing.wait(10)
    others = [client.ask(nbd.CMD_WRITE, n * 4096, data=b"x" * 4096, flags=FUA) for n in range(20)]
    assert client.read(0, 1) == b"x"
    bench.disk.gate.set()
    assert all(reply.error == 0 for reply in client.replies(first, *others).values())
    assert bench.disk.flushes == 2


# -- what is not in the page cache -----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [4096, READ_PIECE_BYTES, 2 * MIB + 5])
def test_a_cold_read_does_not_hold_up_the_connection(bench: NbdBench, structured: bool, length: int) -> None:
    bench.volume()
    bench.serve()
    client = bench.client(structured=structured)
    data = os.urandom(length)
    client.write(3, data)
    bench.disk.cold = True
    bench.disk.gate.clear()
    cold = client.ask(nbd.CMD_READ, 3, length)
    assert client.run(nbd.CMD_WRITE, 4 * MIB, data=b"meanwhile").error == 0
    bench.disk.cold = False
    assert client.read(4 * MIB, 9) == b"meanwhile"
    bench.disk.gate.set()
    assert client.replies(cold)[cold].data == data


def test_cold_reads_are_bounded_and_all_answered(bench: NbdBench, structured: bool) -> None:
    """Beyond the bound the server takes no more requests until some are done; it loses none."""
    image = bench.volume()
    bench.serve()
    client = bench.client(structured=structured)
    data = os.urandom(image.size_bytes)
    client.write(0, data)
    bench.disk.cold = True
    bench.disk.gate.clear()
    offsets = [n * 4096 for n in range(2 * OUTSTANDING_MAX + 5)]
    cookies = {client.ask(nbd.CMD_READ, offset, 4096): offset for offset in offsets}
    bench.disk.gate.set()
    replies = client.replies(*cookies)
    assert all(replies[cookie].data == data[offset : offset + 4096] for cookie, offset in cookies.items())


def test_cache_reads_ahead_and_answers_without_data(bench: NbdBench, structured: bool) -> None:
    bench.volume()
    bench.serve()
    client = bench.client(structured=structured)
    bench.disk.gate.clear()
    cookie = client.ask(nbd.CMD_CACHE, 0, 4 * MIB)
    assert client.read(0, 1) == b"\0"
    bench.disk.gate.set()
    reply = client.replies(cookie)[cookie]
    assert (reply.error, reply.data) == (0, b"")


# -- zeroes and extents ----------------------------------------------------------------------------------------


def test_block_status_tells_data_from_holes(bench: NbdBench) -> None:
    bench.volume()
    bench.serve()
    client = bench.client(contexts=True)
    client.write(4 * PAGE, b"x" * PAGE)
    client.write(6 * PAGE, b"x")
    whole = client.run(nbd.CMD_BLOCK_STATUS, 0, 8 * MIB).extents
    assert whole == [(4 * PAGE, HOLE), (PAGE, 0), (PAGE, HOLE), (PAGE, 0), (8 * MIB - 7 * PAGE, HOLE)]
    assert client.run(nbd.CMD_BLOCK_STATUS, 4 * PAGE + 512, PAGE).extents == [(PAGE - 512, 0), (512, HOLE)]
    assert client.run(nbd.CMD_BLOCK_STATUS, 100, 8 * PAGE, flags=REQ_ONE).extents == [(4 * PAGE - 100, HOLE)]
    assert client.run(nbd.CMD_BLOCK_STATUS, 0, 0).error == nbd.EINVAL
    assert client.run(nbd.CMD_BLOCK_STATUS, 8 * MIB - 1, 2).error == nbd.EINVAL


def test_block_status_of_a_volume_in_shreds_is_answered_in_part(bench: NbdBench) -> None:
    """The client goes on from where the answer ends."""
    bench.volume(size_bytes=80 * MIB)
    bench.serve()
    client = bench.client(contexts=True)
    cookies = [client.ask(nbd.CMD_WRITE, offset, data=b"x") for offset in range(0, 80 * MIB, 2 * PAGE)]
    client.replies(*cookies)
    extents = client.run(nbd.CMD_BLOCK_STATUS, 0, 80 * MIB).extents
    assert extents == [(PAGE, 0), (PAGE, HOLE)] * (EXTENTS_MAX // 2)


@pytest.mark.parametrize("kind", [nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES])
def test_zeroes_and_trims_give_space_back(bench: NbdBench, kind: int) -> None:
    image = bench.volume(size_bytes=160 * MIB)
    bench.serve()
    client = bench.client(contexts=True)
    client.write(0, b"x" * (20 * MIB))
    client.write(150 * MIB, b"x" * PAGE)
    assert client.run(kind, 100, 160 * MIB - 100).error == 0
    assert bench.content(image) == b"x" * 100 + bytes(160 * MIB - 100)
    assert client.run(nbd.CMD_BLOCK_STATUS, 0, 160 * MIB).extents == [(PAGE, 0), (160 * MIB - PAGE, HOLE)]


def test_zeroes_without_a_hole_are_allocated(bench: NbdBench) -> None:
    image = bench.volume(size_bytes=16 * MIB)
    bench.serve()
    client = bench.client(contexts=True)
    client.write(0, b"x" * (10 * MIB))
    assert client.run(nbd.CMD_WRITE_ZEROES, 1, 12 * MIB, flags=NO_HOLE).error == 0
    assert bench.content(image) == b"x" + bytes(16 * MIB - 1)
    assert client.run(nbd.CMD_BLOCK_STATUS, 0, 12 * MIB).extents == [(12 * MIB, 0)]


@pytest.mark.parametrize(
    ("offset", "length", "flags", "error"),
    [
        (0, PAGE, 0, 0),
        (100, 2 * PAGE, 0, 0),
        (0, PAGE - 1, 0, nbd.ENOTSUP),
        (1, PAGE, 0, nbd.ENOTSUP),
        (0, 4 * PAGE, NO_HOLE, nbd.ENOTSUP),
    ],
)
def test_fast_zeroes_are_refused_where_they_are_no_faster(
    bench: NbdBench, offset: int, length: int, flags: int, error: int
) -> None:
    image = bench.volume()
    bench.serve()
    client = bench.client()
    client.write(0, b"x" * (4 * PAGE))
    assert client.run(nbd.CMD_WRITE_ZEROES, offset, length, flags=FAST_ZERO | flags).error == error
    zeroes = 0 if error else length
    content = b"x" * offset + bytes(zeroes) + b"x" * (4 * PAGE - offset - zeroes)
    assert bench.content(image)[: 4 * PAGE] == content


# -- the end ---------------------------------------------------------------------------------------------------


def test_disconnect_handles_what_is_outstanding_first(bench: NbdBench) -> None:
    bench.volume()
    bench.serve()
    client = bench.client()
    bench.disk.gate.clear()
    flush = client.ask(nbd.CMD_FLUSH)
    client.ask(nbd.CMD_DISC)
    assert bench.disk.flushing.wait(10)
    bench.disk.gate.set()
    assert client.replies(flush)[flush].error == 0
    assert client.is_closed()


def test_a_client_that_goes_in_the_middle_of_a_write_leaves_the_server_as_it_was(bench: NbdBench) -> None:
    image = bench.volume()
    server = bench.serve()
    for sent in (10, 28, 5000, 700_000):
        client = bench.client()
        header = struct.pack(">IHHQQI", nbd.REQUEST_MAGIC, 0, nbd.CMD_WRITE, 1, 0, MIB)
        client.socket.sendall((header + b"y" * MIB)[:sent])
        client.close()
    until(lambda: server.connections() == [])
    bench.client().write(4 * MIB, b"fine")
    assert set(bench.content(image)[: 4 * MIB]) <= {0, ord("y")}


def test_a_client_that_goes_while_the_disk_works_leaves_nothing_behind(bench: NbdBench) -> None:
    bench.volume()
    server = bench.serve()
    descriptors = Path("/proc/self/fd")
    bench.client().run(nbd.CMD_FLUSH)  # so that the threads are there
    before = len(list(descriptors.iterdir()))
    bench.disk.cold = True
    bench.disk.gate.clear()
    clients = [bench.client() for _ in range(4)]
    for client in clients:
        client.ask(nbd.CMD_READ, 0, 4096)
        client.ask(nbd.CMD_FLUSH)
        client.close()
    bench.disk.gate.set()
    until(lambda: len(server.connections()) == 1)
    until(lambda: len(list(descriptors.iterdir())) <= before)


def test_the_connection_to_a_deleted_volume_ends(bench: NbdBench) -> None:
    image = bench.volume()
    bench.serve()
    client = bench.client()
    client.write(0, b"x")
    bench.pool.apply([Delete(image.id)])
    with capture_logs() as lines:
        client.ask(nbd.CMD_READ, 0, 512)
        assert client.is_closed()
        until(lambda: bool(complaints(lines)))
    assert "deleted" in complaints(lines)[0]["reason"]


def test_a_volume_that_shrinks_under_a_connection_is_not_read_beyond_its_end(bench: NbdBench) -> None:
    """A rollback may bring back a smaller size."""
    image = bench.volume()
    bench.serve()
    client = bench.client()
    bench.pool.apply([Resize(image.id, MIB)])
    assert client.run(nbd.CMD_READ, MIB, 512).error == nbd.EINVAL
    assert client.run(nbd.CMD_WRITE, MIB, data=b"x").error == nbd.ENOSPC
    assert client.read(MIB - 512, 512) == bytes(512)


def test_a_snapshot_is_an_export_like_a_volume(bench: NbdBench) -> None:
    bench.volume()
    (other,) = bench.pool.apply([Create("Sales-snap", MIB, "snapshot")])
    bench.maps.map(other.id, None, "read-write")
    bench.serve()
    client: RawClient = bench.client("Sales-snap")
    client.write(0, b"writable")
    assert bench.content(other)[:8] == b"writable"
