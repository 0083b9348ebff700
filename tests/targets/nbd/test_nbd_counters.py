"""Each read and write of a host is counted once, with all its bytes, however it is carried out."""

from __future__ import annotations

import pytest

from offsite.errors import PoolFailed
from offsite.targets.common.counters import Counters, Totals
from offsite.targets.nbd import constants as nbd
from offsite.units import MIB
from tests.targets.nbd.nbd_bench import NbdBench, until

FUA, DF = nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_DF


def counted(counters: Counters) -> tuple[int, int, int, int]:
    (totals,) = counters.volumes().values()
    return totals.reads, totals.read_bytes, totals.writes, totals.written_bytes


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("structured", [False, True])
def test_reads_and_writes_of_every_kind_are_counted(bench: NbdBench, cold: bool, structured: bool) -> None:
    """Short and long, in pieces and whole, of the page cache and of the disk, with and without FUA."""
    counters = Counters()
    bench.volume()
    bench.serve(counters=counters)
    client = bench.client(structured=structured)
    bench.disk.cold = cold
    client.write(0, bytes(4096))
    client.write(4096, bytes(MIB))
    client.write(0, bytes(100), FUA)
    client.write(0, bytes(MIB), FUA)
    written = 4096 + 2 * MIB + 100
    client.read(0, 512)
    client.read(1, 4 * MIB)
    if structured:
        client.run(nbd.CMD_READ, 0, MIB + 1, flags=DF)
    else:
        client.read(0, MIB + 1)
    until(lambda: counted(counters) == (3, 512 + 5 * MIB + 1, 4, written))
    client.close()
    until(lambda: not counters._living)
    assert counted(counters) == (3, 512 + 5 * MIB + 1, 4, written)
    (totals,) = counters.initiators().values()
    assert totals.read_seconds > 0
    assert totals.write_seconds > 0


def test_a_pipeline_is_counted_whole(bench: NbdBench) -> None:
    counters = Counters()
    bench.volume()
    server = bench.serve(counters=counters)
    client = bench.client()
    asked = [client.ask(nbd.CMD_READ, number * 4096, 4096) for number in range(100)]
    asked += [client.ask(nbd.CMD_WRITE, number * 4096, 4096, data=bytes(4096)) for number in range(50)]
    client.replies(*asked)
    until(lambda: counted(counters) == (100, 100 * 4096, 50, 50 * 4096))
    (port,) = counters.ports()
    assert (port.protocol, port.address) == ("nbd", str(server.addresses()[0]))


def test_what_fails_and_what_is_no_read_or_write_is_not_counted(bench: NbdBench) -> None:
    counters = Counters()
    bench.volume()
    bench.serve(counters=counters)
    client = bench.client()
    client.run(nbd.CMD_TRIM, 0, 65536)
    client.run(nbd.CMD_WRITE_ZEROES, 0, 65536, flags=FUA)
    client.run(nbd.CMD_FLUSH)
    client.run(nbd.CMD_CACHE, 0, 65536)
    bench.disk.failure = PoolFailed("the disk is dead")
    assert client.run(nbd.CMD_READ, 0, 4096).error == nbd.EIO
    assert client.run(nbd.CMD_WRITE, 0, data=bytes(4096)).error == nbd.EIO
    assert list(counters.volumes().values()) == [Totals()]
