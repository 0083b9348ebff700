"""Which pages are given out: never one that is in use, never one twice, none lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsite.errors import PoolFull
from offsite.pools.gate import Visitor, Visitors
from offsite.pools.local import free_space
from offsite.pools.local.allocator import LONG_RUN_PAGES, Allocator
from offsite.pools.local.reclaim import Retired, runs_of


@given(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=1, max_size=60), st.integers(2, 9))
@settings(max_examples=200)
def test_what_is_free_is_found_at_start(owners: list[int], at_a_time: int) -> None:
    """Piece by piece, as in one go: runs of free pages below the last one in use."""
    owners[0] = 0  # the header's page has no owner, and is not free
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(free_space, "_PAGES_AT_A_TIME", at_a_time)
        fresh, runs = free_space._free_runs(np.array(owners, dtype=np.uint16))
    in_use = [page for page, count in enumerate(owners) if count]
    assert fresh == max(in_use, default=0) + 1
    assert [page for start, count in runs for page in range(start, start + count)] == [
        page for page in range(1, fresh) if not owners[page]
    ]
    assert all(a + b < c for (a, b), (c, _) in itertools.pairwise(runs))


@given(st.data())
@settings(max_examples=100)
def test_the_allocator_gives_each_page_to_one_only(data: st.DataObject) -> None:
    end = data.draw(st.integers(2, 400))
    allocator = Allocator(1, end)
    held: set[int] = set()
    for _ in range(data.draw(st.integers(1, 40))):
        if data.draw(st.booleans()) or not held:
            wanted = data.draw(st.sampled_from([1, 2, 7, LONG_RUN_PAGES, 300]))
            free = end - 1 - len(held)
            assert allocator.free == free
            if not free:
                with pytest.raises(PoolFull):
                    allocator.take(wanted)
                continue
            start, count = allocator.take(wanted)
            pages = set(range(start, start + count))
            assert 1 <= count <= wanted
            assert not pages & held
            assert pages <= set(range(1, end))
            held |= pages
        else:
            back = data.draw(st.sets(st.sampled_from(sorted(held)), min_size=1))
            held -= back
            allocator.give(runs_of(np.array(sorted(back), dtype=np.uint32)))


def test_crumbs_are_joined_once_there_are_enough() -> None:
    """A pool that was filled page by page and emptied so does not stay in crumbs."""
    allocator = Allocator(1, 1025)
    for _ in range(1024):
        allocator.take(1)
    allocator.give([(page, 1) for page in range(1, 1025)])
    assert allocator.take(512) == (1, 512)


def test_warm_pages_are_given_only_to_who_asks_for_one() -> None:
    allocator = Allocator(1, 3)
    allocator.take(2)
    allocator.keep_warm((1, 2))
    with pytest.raises(PoolFull):
        allocator.take(1)
    assert {allocator.take_warm(), allocator.take_warm()} == {1, 2}
    assert allocator.take_warm() is None


def test_a_page_waits_for_all_who_entered_before_it_was_let_go() -> None:
    visitors = Visitors()
    early, late, idle = Visitor(visitors), Visitor(visitors), Visitor(visitors)
    for visitor in (early, late, idle):
        visitors.add(visitor)
    retired = Retired()
    early.entered = 5
    retired.add(5, [(10, 1)])
    late.entered = 6
    retired.add(6, [(20, 2)])
    assert retired.take_ready(lambda: [visitors], 100, 1000) == []
    early.entered = 0
    assert retired.take_ready(lambda: [visitors], 100, 1000) == [(10, 1)]
    assert retired.pages == 2
    late.entered = 7
    assert retired.take_ready(lambda: [visitors], 100, 1000) == [(20, 2)]
    assert retired.pages == 0


def test_a_few_at_a_time_are_taken_and_what_fails_is_put_back() -> None:
    retired = Retired()
    retired.add(1, [(page, 1) for page in range(10)])
    first = retired.take_ready(list, 4, 1000)
    assert first == [(0, 1), (1, 1), (2, 1), (3, 1)]
    retired.put_back(first[2:])
    retired.put_back([])
    assert retired.pages == 8
    rest = []
    while some := retired.take_ready(list, 4, 1000):
        rest += some
    assert sorted(rest) == [(page, 1) for page in range(2, 10)]


def test_no_more_pages_are_taken_at_a_time_than_who_waits_for_one_should_wait_for() -> None:
    """A volume of gigabytes that was deleted is one run."""
    retired = Retired()
    retired.add(1, [(1, 10), (20, 5)])
    assert retired.take_ready(list, 100, 4) == [(1, 4)]
    assert retired.take_ready(list, 100, 8) == [(5, 6), (20, 2)]
    assert retired.pages == 3
    assert retired.take_ready(list, 100, 4) == [(22, 3)]
    assert retired.take_ready(list, 100, 4) == []
    assert retired.pages == 0
