"""Replies that nobody takes: what they cost is bounded over all connections, and hosts that take theirs go on."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from offsite.targets.common import channel
from offsite.targets.common.memory import Memory
from offsite.targets.nbd import constants as nbd
from offsite.units import MIB
from tests.targets.nbd.nbd_bench import NbdBench, until

LONG = 8 * MIB


def started(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_no_more_is_held_than_there_is() -> None:
    memory = Memory(100)
    assert memory.take_now(60)
    assert not memory.take_now(41)
    assert memory.take_now(40)
    memory.give(60)
    memory.give(0)
    assert memory.held_bytes == 40


def test_a_request_that_is_longer_than_all_there_is_is_done_alone() -> None:
    memory = Memory(100)
    assert memory.take_now(1000)
    assert not memory.take_now(1)
    memory.give(1000)
    assert memory.take_now(1)


def test_holders_take_turns_however_many_requests_one_has() -> None:
    memory, order = Memory(100), []
    assert memory.take_now(100)

    def ask(holder: str) -> None:
        assert memory.wait(100, holder, lambda: False)
        order.append(holder)
        memory.give(100)

    threads = []
    for holder in ("greedy", "greedy", "greedy", "modest"):
        count = sum(map(len, memory._queues.values()))
        threads.append(started(lambda holder=holder: ask(holder)))  # type: ignore[misc]
        until(lambda count=count: sum(map(len, memory._queues.values())) == count + 1)  # type: ignore[misc]
    assert memory.wanted
    assert not memory.take_now(1), "who comes later waits behind"
    memory.give(100)
    for thread in threads:
        thread.join(20)
    assert order == ["greedy", "modest", "greedy", "greedy"]
    assert (memory.wanted, memory.held_bytes) == (False, 0)


def test_who_is_gone_waits_no_longer_and_holds_nothing() -> None:
    memory = Memory(100)
    assert memory.take_now(100)
    assert not memory.wait(1, "gone", lambda: True)
    assert (memory.wanted, memory.held_bytes) == (False, 100)


@pytest.mark.parametrize("cold", [False, True])
def test_replies_that_are_not_taken_cost_no_more_than_the_budget_and_hosts_that_take_go_on(
    bench: NbdBench, monkeypatch: pytest.MonkeyPatch, cold: bool
) -> None:
    """Each of 12 clients asks for 16 MiB, and takes nothing; the budget is 20 MiB. Two stay what they are: slow."""
    monkeypatch.setattr(channel, "HURRIED_SECONDS", 0.5)
    image = bench.volume(size_bytes=LONG)
    content = random.Random(3).randbytes(LONG)
    opened = bench.pool.open(image.id)
    opened.begin()
    opened.write(0, memoryview(content))
    opened.end()
    opened.close()
    memory = Memory(20 * MIB)
    server = bench.serve(bench.socket_path, ("127.0.0.1", 0), memory=memory, send_seconds=60.0)
    bench.disk.cold = cold
    highest = 0
    for _ in range(12):
        stalled = bench.client(structured=False)
        for _ in range(2):
            stalled.ask(nbd.CMD_READ, 0, LONG)
        highest = max(highest, memory.held_bytes)
    taking = bench.client(structured=False)
    for offset in (0, 5, 4096):
        highest = max(highest, memory.held_bytes)
        assert taking.read(offset, LONG - offset) == content[offset:], "a host that takes its replies goes on"
        assert taking.read(offset, 4096) == content[offset : offset + 4096]
    assert 0 < highest <= 20 * MIB
    for client in bench._clients:
        client.close()
    until(lambda: server.connections() == [])
    until(lambda: memory.held_bytes == 0)
    assert not memory.wanted


def test_reading_ahead_takes_little_memory_however_much_is_asked_for(bench: NbdBench) -> None:
    bench.volume(size_bytes=40 * MIB)
    memory = Memory(MIB)
    bench.serve(memory=memory)
    client = bench.client()
    for _ in range(4):
        assert client.run(nbd.CMD_CACHE, 3, 32 * MIB).error == 0
    assert memory.held_bytes == 0


def test_a_client_that_goes_while_it_waits_for_memory_is_noticed(bench: NbdBench) -> None:
    bench.volume()
    memory = Memory(MIB)
    assert memory.take_now(MIB)
    server = bench.serve(memory=memory)
    client = bench.client(structured=False)
    client.ask(nbd.CMD_READ, 0, 4 * MIB)
    until(lambda: memory.wanted)
    client.close()
    until(lambda: server.connections() == [])
    assert (memory.wanted, memory.held_bytes) == (False, MIB)
