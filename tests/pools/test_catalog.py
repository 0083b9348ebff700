"""What the floors above ask the database about images, whatever pool they are in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import Connection, literal, select

from offsite.errors import ObjectNotFound
from offsite.pools import catalog
from offsite.pools.groups import group_name, insert_group
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create, ImageInfo, Snapshot
from tests.pools.pool_bench import PAGE, Bench

Make = Callable[[str, int], int]


def test_images_are_found_by_id_and_by_name(bench: Bench, volume: Make) -> None:
    """What is not there is left out, or refused by its name."""
    first, second = volume("a", 1), volume("b", 1)
    with bench.database.read() as connection:
        assert catalog.image_names(connection, [second, 1, first]) == {first: "a", second: "b"}
        assert list(catalog.image_names(connection, [second, first])) == [first, second], "by rising id"
        assert catalog.image_ids(connection, ["b", "nope", "a"]) == [first, second]
        assert catalog.image_id_by_name(connection, "b") == second
        assert catalog.has_image(connection, first) and not catalog.has_image(connection, 1)
        with pytest.raises(ObjectNotFound, match="image 'nope' does not exist"):
            catalog.image_id_by_name(connection, "nope")


def test_records_of_a_change_find_its_new_image(pool: LocalPool) -> None:
    """The records that belong to a new image are written in the transaction that makes it."""
    found: list[int] = []

    def record(connection: Connection, _: Sequence[ImageInfo]) -> None:
        found.append(catalog.image_id_by_name(connection, "a"))

    (made,) = pool.apply([Create("a", PAGE)], record)
    assert found == [made.id]


def test_names_of_images_and_groups_are_one_name_space(bench: Bench, volume: Make) -> None:
    """A name that is chosen for a snapshot is no group's either."""
    volume("a", 1)
    with bench.database.transaction() as connection:
        group_id = insert_group(connection, "Books")
        assert catalog.all_names(connection) == {"a", "Books"}
        assert sorted(catalog.names_in_use(connection, ["a", "Books", "free"])) == ["Books", "a"]
        assert (group_name(connection, group_id), group_name(connection, None)) == ("Books", None)


def test_only_volumes_count_for_the_size_of_volumes(bench: Bench, pool: LocalPool, volume: Make) -> None:
    """Snapshots share what they hold, and have no size of their own in a limit."""
    first = volume("a", 3)
    volume("b", 2)
    (snapshot,) = pool.apply([Snapshot(first, "s")])
    with bench.database.read() as connection:
        both = select(literal(first)).union_all(select(literal(snapshot.id))).subquery()
        assert catalog.volume_bytes(connection, select(both.c[0])) == 3 * PAGE
        assert catalog.volume_bytes(connection, select(literal(1))) == 0
