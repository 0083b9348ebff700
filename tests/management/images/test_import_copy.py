"""Import and export: whole or not at all, of one instant, and nothing is left behind."""

from __future__ import annotations

import os

import pytest

from offsite.errors import NameInUse, NotAllowed
from offsite.management.images.import_copy import Import, delete_leftovers, pieces
from offsite.management.images.point_in_time_reader import Frozen
from offsite.units import MIB
from tests.management.management_bench import Bench


def internal(bench: Bench) -> list[str]:
    return [image.name for pool in bench.system.pools.values() for image in pool.images() if image.kind == "internal"]


def test_an_import_appears_when_it_is_finished(bench: Bench) -> None:
    data = os.urandom(100_000)
    with Import(bench.system.pools["A"], 8 * MIB) as volume:
        volume.write(5000, memoryview(data))
        assert bench.names("show volumes") == []
        volume.finish("Sales")
    assert bench.names("show volumes") == ["Sales"]
    assert bench.read("Sales", 0, 8 * MIB) == bytes(5000) + data + bytes(8 * MIB - 105_000)
    assert internal(bench) == []


def test_an_import_that_is_given_up_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError), Import(bench.system.pools["A"], 8 * MIB) as volume:
        volume.write(0, memoryview(b"x" * MIB))
        raise ZeroDivisionError
    with Import(bench.system.pools["A"], 8 * MIB) as volume:
        pass
    volume.close()
    assert bench.names("show volumes") == internal(bench) == []


def test_an_import_under_a_name_that_came_into_use_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(NameInUse), Import(bench.system.pools["A"], 8 * MIB) as volume:
        bench.do("create volume pool A size 1MiB Sales")
        volume.finish("Sales")
    assert internal(bench) == []


def test_an_export_is_of_one_instant(bench: Bench) -> None:
    bench.do("create volume pool A size 8MiB Sales")
    before = os.urandom(3 * MIB)
    bench.write("Sales", MIB, before)
    found = bench.system.image("Sales")
    with Frozen(found.pool, found.image) as content:
        assert content.size_bytes == 8 * MIB
        assert sum(length for _, length in content.data_extents()) == 3 * MIB
        read = bytearray(8 * MIB)
        for number, (offset, data) in enumerate(pieces(content)):
            read[offset : offset + len(data)] = data
            if number == 0:
                bench.write("Sales", MIB, os.urandom(3 * MIB))
    assert read == bytes(MIB) + before + bytes(4 * MIB)
    assert internal(bench) == []


def test_a_copy_in_the_same_pool_shares_and_one_in_another_does_not(bench: Bench) -> None:
    bench.do("create pool size 64MiB page-size 64KiB B")
    bench.do("create volume pool A size 8MiB Sales")
    data = os.urandom(3 * MIB)
    bench.write("Sales", 12_345, data)
    used = bench.system.pools["A"].capacity().allocated_bytes
    bench.do("copy volume name Same Sales")
    assert bench.system.pools["A"].capacity().allocated_bytes == used
    bench.do("copy volume destination-pool B name Other Sales")
    assert bench.system.image("Other").pool.name == "B"
    for name in ("Same", "Other"):
        assert bench.read(name, 12_345, len(data)) == data
    bench.write("Sales", 12_345, b"changed")
    assert bench.read("Same", 12_345, 10) == data[:10]
    assert internal(bench) == []


def test_a_copy_that_is_stopped_leaves_nothing(bench: Bench) -> None:
    bench.do("create pool size 64MiB B")
    bench.do("create volume pool A size 8MiB Sales")
    bench.write("Sales", 0, os.urandom(MIB))
    before = bench.state()
    check = bench.system.check_stopping

    def stop_at_the_second_call() -> None:
        check()
        bench.system.stopping.set()

    bench.system.check_stopping = stop_at_the_second_call  # type: ignore[method-assign]
    with pytest.raises(NotAllowed, match="is stopping"):
        bench.do("copy volume destination-pool B name Other Sales")
    assert bench.state() == before


def test_what_a_killed_process_left_is_deleted_and_nothing_of_a_users(bench: Bench) -> None:
    pool = bench.system.pools["A"]
    bench.do("create volume pool A size 8MiB Sales")
    bench.do('create volume pool A size 8MiB "import 0123"')
    Import(pool, 8 * MIB)
    Frozen(pool, bench.system.image("Sales").image)
    assert len(internal(bench)) == 2
    delete_leftovers(pool)
    assert internal(bench) == []
    assert bench.names("show volumes") == ["Sales", "import 0123"]
