"""The rule of what needs an image to stay, with made-up floors: what is told first, and what is not deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from sqlalchemy import Connection

from offsite.errors import InUse
from offsite.pools.groups import insert_group
from offsite.pools.local.pool import LocalPool
from offsite.pools.needs import Finder, Need, Needs, find_children, find_groups
from offsite.pools.protocol import Snapshot
from tests.pools.pool_bench import Bench

Make = Callable[[str, int], int]
LOOSE, BINDING = Need("it is on display"), Need("it is on loan", "return it first")


@pytest.fixture
def needs(bench: Bench) -> Needs:
    return Needs(bench.database)


def always(need: Need) -> Finder:
    return lambda _connection, image_ids: [(each, need) for each in image_ids]


def found(bench: Bench, needs: Needs, *image_ids: int) -> dict[int, list[str]]:
    with bench.database.read() as connection:
        return {key: [each.sentence for each in value] for key, value in needs.of(connection, image_ids).items()}


def test_what_is_binding_is_told_first_whoever_is_registered_first(bench: Bench, needs: Needs) -> None:
    """What a user has to do before a deletion is told before what goes along with it."""
    needs.register(always(LOOSE))
    needs.register(always(BINDING), always(Need("it is old")))
    assert found(bench, needs, 7) == {7: ["it is on loan", "it is on display", "it is old"]}


def test_what_no_floor_needs_goes(pool: LocalPool, volume: Make, needs: Needs) -> None:
    doomed = volume("a", 1)
    assert needs.delete_unneeded(pool, [doomed]) == {}
    assert pool.images() == []


@pytest.mark.parametrize("need", [LOOSE, BINDING])
def test_what_any_floor_needs_does_not_go_by_itself(pool: LocalPool, volume: Make, needs: Needs, need: Need) -> None:
    """All of the images stay when one is needed."""
    first, second = volume("a", 1), volume("b", 1)
    needs.register(lambda _connection, ids: [(each, need) for each in ids if each == first])
    assert needs.delete_unneeded(pool, [first, second]) == {first: [need]}
    assert len(pool.images()) == 2


def test_what_comes_to_be_needed_before_the_commit_stays(pool: LocalPool, volume: Make, needs: Needs) -> None:
    """The look is repeated in the transaction that deletes."""
    looks = []

    def later(_connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
        looks.append(image_ids)
        if len(looks) > 1:
            yield image_ids[0], LOOSE

    doomed = volume("a", 1)
    needs.register(later)
    assert needs.delete_unneeded(pool, [doomed]) == {doomed: [LOOSE]}
    assert [image.id for image in pool.images()] == [doomed]


def test_a_user_may_delete_what_is_needed_unless_that_binds(pool: LocalPool, volume: Make, needs: Needs) -> None:
    images = [pool.image(volume("a", 1)), pool.image(volume("b", 1))]
    needs.register(always(LOOSE))
    needs.check_deletable(images)
    needs.register(lambda _connection, ids: [(each, BINDING) for each in ids if each == images[1].id])
    with pytest.raises(InUse, match=r"^b cannot be deleted: it is on loan; return it first$"):
        needs.check_deletable(images)


def test_groups_and_snapshots_need_what_they_are_of(bench: Bench, pool: LocalPool, volume: Make, needs: Needs) -> None:
    """A snapshot that goes along needs nothing."""
    needs.register(find_groups, find_children)
    parent = volume("a", 1)
    child = pool.apply([Snapshot(parent, "Drill")])[0].id
    with bench.database.transaction() as connection:
        insert_group(connection, "Books", [parent])
    assert found(bench, needs, parent) == {
        parent: ["it is in volume group Books", "it is the parent of snapshot Drill"]
    }
    assert found(bench, needs, parent, child) == {parent: ["it is in volume group Books"]}
