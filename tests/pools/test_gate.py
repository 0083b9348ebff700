"""The gate: a snapshot waits for those inside, and for nobody for ever."""

from __future__ import annotations

import threading
import time

import pytest

from offsite.errors import InUse
from offsite.pools.gate import Visitors, close_gate, keep_closed, open_gate
from offsite.pools.local import pool as local_pool
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create, Snapshot
from tests.pools.backends import write
from tests.pools.pool_bench import PAGE
from tests.pools.pool_hosts import read


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_gate_waits_until_the_last_one_has_left_each_member(pool: LocalPool, which: int) -> None:
    members = [info.id for info in pool.apply([Create(name, 8 * PAGE) for name in "uvw"])]
    opened = pool.open(members[which])
    opened.begin()
    taken = threading.Event()

    def take() -> None:
        pool.apply([Snapshot(member, f"s{member}") for member in members])
        taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(0.05)
    opened.write(0, memoryview(b"in time"))
    opened.end()
    assert taken.wait(10)
    thread.join()
    opened.close()
    s = next(info.id for info in pool.images() if info.name == f"s{members[which]}")
    assert read(pool, s, 0, 7) == b"in time"


def test_a_gate_gives_up_at_its_deadline_and_opens_again(pool: LocalPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer must not stop everyone else: the snapshot is refused, and hosts go on."""
    monkeypatch.setattr(local_pool, "GATE_DEADLINE_SECONDS", 0.05)
    v, w = (info.id for info in pool.apply([Create("v", 8 * PAGE), Create("w", 8 * PAGE)]))
    stuck = pool.open(v)
    stuck.begin()
    started = time.monotonic()
    with pytest.raises(InUse, match=r"timed out after 0.05 s"):
        pool.apply([Snapshot(w, "ws"), Snapshot(v, "vs")])
    assert time.monotonic() - started < 5
    write(pool, v, 0, b"on")
    write(pool, w, 0, b"on")
    assert len(pool.images()) == 2
    stuck.end()
    stuck.close()
    pool.apply([Snapshot(w, "ws"), Snapshot(v, "vs")])


def test_a_gate_that_was_handed_over_opens_later() -> None:
    now, later = Visitors(), Visitors()
    gate = close_gate([now, later], 1)
    lasting = keep_closed([later])
    open_gate(gate, [now, later])
    assert (now.gate, later.gate) == (None, lasting)
    assert gate.opened.is_set()
    open_gate(lasting, [later])
    assert later.gate is None
