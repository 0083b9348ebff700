"""Hosts, snapshots, deletions and the freeing of pages, all at once in real threads (P2, P3, P4, P5).

test_interleavings visits certain places one by one; here everything happens everywhere, with the interpreter
switching threads as often as it can.
"""

from __future__ import annotations

import random
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from offsite.errors import PoolFull
from offsite.pools.local import capture
from offsite.pools.local.image import Image
from offsite.pools.local.page_table import PageTable
from offsite.pools.protocol import Clone, Create, Delete, Replace, Snapshot
from tests.pools.backends import inside, write
from tests.pools.pool_bench import PAGE, Bench
from tests.pools.pool_hosts import check_counts, check_free_pages_are_holes, read

BLOCK = 512
SECONDS = 0.6


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(*bodies: Callable[[Callable[[], bool]], None]) -> None:
    """Runs all bodies in threads until the time is over; each gets a function that tells whether to go on."""
    errors: list[Exception] = []
    deadline = time.monotonic() + SECONDS

    def go_on() -> bool:
        return not errors and time.monotonic() < deadline

    def run(body: Callable[[Callable[[], bool]], None]) -> None:
        try:
            body(go_on)
        except Exception as error:  # noqa: BLE001, it is raised in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "stuck"
    if errors:
        raise errors[0]


def stamp(number: int) -> bytes:
    return struct.pack("<Q", number) * (BLOCK // 8)


def stamped(block: bytes | bytearray) -> int:
    (number,) = struct.unpack_from("<Q", block)
    assert block == stamp(number), "a torn block"
    return int(number)


def test_a_group_snapshot_is_of_one_instant(bench: Bench) -> None:
    """Each writer stamps the next number into the next volume once the last one is acknowledged. A snapshot of all
    volumes must hold a prefix of what each has written (P3), and go on doing so (P2)."""
    pool = bench.make("C", pages=32768)
    volumes = [pool.apply([Create(f"v{n}", 2048 * PAGE)])[0].id for n in range(3)]
    taken: list[tuple[list[int], list[list[int]]]] = []

    def writer(lane: int) -> Callable[[Callable[[], bool]], None]:
        def body(go_on: Callable[[], bool]) -> None:
            opened, number = [pool.open(volume) for volume in volumes], 0
            while go_on() and number < 3 * 2048:
                # Each lane has a block of its own in each page, so that all of them copy the same pages.
                handle = opened[number % 3]
                handle.begin()
                handle.write(number // 3 * PAGE + lane * BLOCK, memoryview(stamp(number + 1)))
                handle.end()
                number += 1
            for handle in opened:
                handle.close()

        return body

    def found(images: list[int]) -> list[list[int]]:
        contents = [read(pool, image, 0, 2048 * PAGE) for image in images]
        lanes = []
        for lane in range(2):
            numbers = []
            for number in range(3 * 2048):
                at = number // 3 * PAGE + lane * BLOCK
                numbers.append(stamped(contents[number % 3][at : at + BLOCK]))
            lanes.append(numbers)
        return lanes

    def snapshots(go_on: Callable[[], bool]) -> None:
        while (go_on() and len(taken) < 20) or len(taken) < 4:
            infos = pool.apply([Snapshot(volume, f"s{len(taken)}-{volume}") for volume in volumes])
            images = [info.id for info in infos]
            taken.append((images, []))
            time.sleep(0.02)

    at_once(writer(0), writer(1), snapshots)
    for images, _ in taken:
        for numbers in found(images):
            length = sum(map(bool, numbers))
            assert numbers == [*range(1, length + 1), *[0] * (len(numbers) - length)]
    check_counts(pool)


def test_no_write_is_lost_while_snapshots_come_and_go(bench: Bench) -> None:
    """Writers of different blocks of the same pages; each reads back what it wrote last."""
    pool = bench.make("C", pages=2048)
    v = pool.apply([Create("c", 8 * PAGE)])[0].id

    def writer(block: int) -> Callable[[Callable[[], bool]], None]:
        def body(go_on: Callable[[], bool]) -> None:
            last, number, chance = [0] * 8, 0, random.Random(block)
            with inside(pool, v) as opened:
                opened.end()
                while go_on():
                    number += 1
                    page = chance.randrange(8)
                    last[page] = number
                    opened.begin()
                    opened.write(page * PAGE + block * BLOCK, memoryview(stamp(number)))
                    opened.end()
                    page = chance.randrange(8)
                    buffer = bytearray(BLOCK)
                    opened.begin()
                    if not opened.read_nowait(page * PAGE + block * BLOCK, memoryview(buffer)):
                        opened.read(page * PAGE + block * BLOCK, memoryview(buffer))
                    opened.end()
                    assert stamped(buffer) == last[page]

        return body

    def snapshots(go_on: Callable[[], bool]) -> None:
        number, there = 0, list[int]()
        while go_on():
            number += 1
            there.append(pool.apply([Snapshot(v, f"s{number}")])[0].id)
            while len(there) > number % 3:
                pool.apply([Delete(there.pop(0))])

    at_once(writer(0), writer(1), writer(2), snapshots)
    check_counts(pool)
    check_free_pages_are_holes(pool)


def test_nobody_sees_what_is_not_his_while_pages_change_hands(bench: Bench) -> None:
    """Three volumes and their clones in a pool that is nearly full. Every block that anyone reads is zero or
    bears the mark of the volume, whatever is discarded, rolled back, deleted, freed and written meanwhile."""
    pool = bench.make("C", pages=96)
    volumes = [pool.apply([Create(f"v{n}", 24 * PAGE)])[0].id for n in range(3)]

    def host(which: int) -> Callable[[Callable[[], bool]], None]:
        mark = b"%c" % (65 + which)

        def body(go_on: Callable[[], bool]) -> None:
            chance = random.Random(which)
            clone = pool.apply([Clone(volumes[which], f"c{which}")])[0].id
            while go_on():
                image = chance.choice([volumes[which], clone])
                offset, length = chance.randrange(48) * (PAGE // 2), chance.choice([1, 2, 9]) * (PAGE // 2)
                length = min(length, 24 * PAGE - offset)
                action = chance.randrange(10)
                with suppress(PoolFull):
                    if action < 4:
                        write(pool, image, offset, mark * length)
                    elif action < 6:
                        with inside(pool, image) as opened:
                            opened.discard(offset, length)
                    elif action < 9:
                        assert not read(pool, image, offset, length).strip(mark + b"\0")
                    elif chance.randrange(4):
                        pool.apply([Replace(image, volumes[which])])
                    else:
                        clone = pool.apply([Delete(clone), Clone(volumes[which], f"c{which}")])[1].id
                if not chance.randrange(20):
                    pool.flush()

        return body

    def tidier(go_on: Callable[[], bool]) -> None:
        chance = random.Random(9)
        while go_on():
            pool.flush()
            pool.reclaim(chance.choice([0, 8 * PAGE]))

    def watcher(go_on: Callable[[], bool]) -> None:
        handles = [pool.open(volume) for volume in volumes]
        buffer = memoryview(bytearray(24 * PAGE))
        while go_on():
            for which, opened in enumerate(handles):
                opened.begin()
                opened.read(0, buffer)
                opened.end()
                assert not bytes(buffer).strip(b"%c\0" % (65 + which))
        for opened in handles:
            opened.close()

    at_once(host(0), host(1), host(2), tidier, watcher)
    check_counts(pool)
    check_free_pages_are_holes(pool)


def test_flushes_share_a_commit_and_none_returns_too_early(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many hosts that flush at once wait for few syncs; and the commit that covers a flush began after it was asked
    for, so that it has all that was acknowledged before."""
    pool = bench.make("C", pages=2048)
    v = pool.apply([Create("c", 1024 * PAGE)])[0].id
    captured: dict[int, set[int]] = {}
    durable: set[int] = set()  # pages that a commit captured, and that is done
    take, commit, commits = capture.take, pool._commit, [0]

    def take_and_note(table: PageTable, images: Iterable[Image]) -> capture.Capture:
        taken = take(table, images)
        nodes = pool.by_id[v].nodes
        captured[id(taken)] = {page for page in range(1024) if table.page_at(nodes, page)}
        return taken

    def slow_commit(taken: capture.Capture, *rest: Any) -> None:
        time.sleep(0.005)
        commit(taken, *rest)
        commits[0] += 1
        durable.update(captured.pop(id(taken)))

    monkeypatch.setattr(capture, "take", take_and_note)
    monkeypatch.setattr(pool, "_commit", slow_commit)
    flushes = [0]

    def host(which: int) -> Callable[[Callable[[], bool]], None]:
        def body(go_on: Callable[[], bool]) -> None:
            page = which
            while go_on() and page < 1024:
                write(pool, v, page * PAGE, b"x")
                pool.flush()
                flushes[0] += 1
                assert page in durable, "a flush returned before what was written before it was durable"
                page += 8

        return body

    at_once(*(host(which) for which in range(8)))
    assert commits[0] < flushes[0]
