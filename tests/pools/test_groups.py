"""Volume groups as the pools keep them: their rules, and that a refused change leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from offsite.errors import BadParameter, InUse, NameInUse, ObjectNotFound, OffsiteError, VolumeNotFound
from offsite.pools import groups as groups_module
from offsite.pools.groups import (
    MEMBERS_MAX,
    Group,
    Groups,
    all_groups,
    delete_group,
    find_group,
    group_of,
    insert_group,
    members,
)
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create, Delete, Rename, Snapshot
from tests.pools.pool_bench import PAGE, Bench

Make = Callable[[str, int], int]


@pytest.fixture
def groups(bench: Bench) -> Groups:
    return Groups(bench.database)


def content(groups: Groups) -> dict[str, tuple[int, ...]]:
    return {each.name: each.image_ids for each in groups.all()}


def refused(groups: Groups, call: Callable[[], object], error: type[OffsiteError], *words: str) -> None:
    """The refusal has these words, and no group has changed."""
    before = groups.all()
    with pytest.raises(error) as refusal:
        call()
    for word in words:
        assert word in str(refusal.value)
    assert groups.all() == before


def test_a_group_has_its_members_by_their_ids_and_is_found_by_name_or_serial_number(
    groups: Groups, volume: Make
) -> None:
    first, second = volume("a", 1), volume("b", 1)
    made = groups.create("Sales", [second, first])
    assert made.image_ids == (first, second)
    assert groups.get("Sales") == groups.get(made.uuid) == groups.get(made.uuid.upper()) == made
    assert groups.find("nope") is None
    groups.create("Empty")
    assert content(groups) == {"Empty": (), "Sales": (first, second)}


def test_members_come_and_go_and_a_group_that_is_deleted_frees_them(groups: Groups, volume: Make) -> None:
    first, second = volume("a", 1), volume("b", 1)
    groups.create("Sales", [first])
    groups.add("Sales", [second])
    groups.remove("Sales", [first])
    assert content(groups) == {"Sales": (second,)}
    groups.rename("Sales", "Books")
    assert content(groups) == {"Books": (second,)}
    groups.delete("Books")
    assert content(groups) == {}
    groups.create("Sales", [first, second])


def test_a_volume_that_is_deleted_leaves_its_group(groups: Groups, pool: LocalPool, volume: Make) -> None:
    first, second = volume("a", 1), volume("b", 1)
    groups.create("Sales", [first, second])
    pool.apply([Delete(first)])
    assert content(groups) == {"Sales": (second,)}


def test_a_group_has_sixteen_members_at_most(groups: Groups, volume: Make) -> None:
    ids = [volume(f"v{number}", 1) for number in range(MEMBERS_MAX + 1)]
    refused(groups, lambda: groups.create("Sales", ids), BadParameter, "17 members", "at most 16")
    groups.create("Sales", ids[:MEMBERS_MAX])
    refused(groups, lambda: groups.add("Sales", ids[MEMBERS_MAX:]), BadParameter, "Sales", "17 members")
    assert content(groups) == {"Sales": tuple(ids[:MEMBERS_MAX])}


def test_members_are_of_one_pool(groups: Groups, bench: Bench, volume: Make) -> None:
    here = volume("a", 1)
    (there,) = bench.make("B").apply([Create("b", PAGE)])
    refused(groups, lambda: groups.create("Sales", [here, there.id]), BadParameter, "pool A", "b in pool B")
    groups.create("Sales", [here])
    refused(groups, lambda: groups.add("Sales", [there.id]), BadParameter, "a is in pool A", "b in pool B")


def test_members_are_volumes_and_snapshots_and_nothing_hidden(groups: Groups, pool: LocalPool, volume: Make) -> None:
    first = volume("a", 1)
    snapshot, hidden = pool.apply([Snapshot(first, "s"), Snapshot(first, "<hidden>", "internal")])
    refused(groups, lambda: groups.create("Sales", [first, hidden.id]), VolumeNotFound, str(hidden.id))
    refused(groups, lambda: groups.create("Sales", [first, 4711]), VolumeNotFound, "4711")
    groups.create("Sales", [first, snapshot.id])


def test_a_volume_is_in_one_group_at_most_and_once(groups: Groups, volume: Make) -> None:
    first, second = volume("a", 1), volume("b", 1)
    groups.create("Sales", [first])
    refused(groups, lambda: groups.create("Books", [second, first]), InUse, "a is in volume group Sales")
    refused(groups, lambda: groups.add("Sales", [second, first]), InUse, "a is in volume group Sales")
    refused(groups, lambda: groups.create("Books", [second, second]), BadParameter, "b is listed twice")


def test_what_is_not_in_a_group_cannot_be_taken_out_of_it(groups: Groups, volume: Make) -> None:
    first, second = volume("a", 1), volume("b", 1)
    groups.create("Sales", [first])
    refused(groups, lambda: groups.remove("Sales", [first, second]), VolumeNotFound, "b is not in volume group Sales")
    refused(groups, lambda: groups.remove("Sales", [4711]), VolumeNotFound, "image 4711")


@pytest.mark.parametrize(
    "name, error, words",
    [
        ("Books", NameInUse, "'Books' exists already"),
        ("a", NameInUse, "'a' is in use by a volume or snapshot"),
        ("s", NameInUse, "'s' is in use by a volume or snapshot"),
        ("é" * 17, BadParameter, "34 bytes"),
        ("", BadParameter, "0 bytes"),
        ("x,y", BadParameter, "','"),
        (" x", BadParameter, "space"),
    ],
)
def test_a_name_keeps_the_rules_and_is_nobody_elses(
    groups: Groups, pool: LocalPool, volume: Make, name: str, error: type[OffsiteError], words: str
) -> None:
    pool.apply([Snapshot(volume("a", 1), "s")])
    groups.create("Books")
    groups.create("Sales")
    refused(groups, lambda: groups.create(name), error, words)
    refused(groups, lambda: groups.rename("Sales", name), error, words)


def test_a_name_may_have_all_of_thirty_two_bytes(groups: Groups) -> None:
    assert groups.create("é" * 16).name == "é" * 16


def test_no_volume_or_snapshot_is_called_as_a_group(groups: Groups, pool: LocalPool, volume: Make) -> None:
    """Whoever makes it, replication too: the pool refuses the name in the transaction that would write it."""
    first = volume("a", 1)
    groups.create("Sales", [first])
    before = pool.images()
    for change in (Create("Sales", PAGE), Snapshot(first, "Sales"), Rename(first, "Sales")):
        with pytest.raises(NameInUse, match="'Sales' is in use by a volume group"):
            pool.apply([change])
    assert pool.images() == before


@pytest.mark.parametrize(
    "call",
    [
        lambda groups: groups.get("Nope"),
        lambda groups: groups.rename("Nope", "x"),
        lambda groups: groups.add("Nope", []),
        lambda groups: groups.remove("Nope", []),
        lambda groups: groups.delete("Nope"),
    ],
)
def test_a_group_that_is_not_there_is_told(groups: Groups, call: Callable[[Groups], object]) -> None:
    refused(groups, lambda: call(groups), ObjectNotFound, "'Nope' does not exist")


def test_there_is_a_most_of_groups(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups_module, "GROUPS_MAX", 2)
    groups.create("a")
    groups.create("b")
    refused(groups, lambda: groups.create("c"), InUse, "there are 2 volume groups")


def test_a_group_and_its_volumes_come_to_be_in_one_transaction(groups: Groups, pool: LocalPool) -> None:
    made: list[Group | None] = []

    def with_group(connection: Connection, _images: object) -> None:
        ids = [each.id for each in pool.images()]
        group_id = insert_group(connection, "Sales", ids, created_at=7.0)
        made.append(find_group(connection, "Sales"))
        assert members(connection, group_id) == tuple(ids)
        assert group_of(connection, ids[0]) == made[0]
        assert group_of(connection, 4711) is None

    changes = [Create("a", PAGE), Create("b", PAGE)]
    pool.apply(changes, with_group)
    assert groups.all() == made
    assert groups.get("Sales").created_at == 7.0

    with pytest.raises(NameInUse):
        pool.apply([Create("c", PAGE)], lambda connection, _: void(insert_group(connection, "Sales", [])))
    assert [each.name for each in pool.images()] == ["a", "b"]
    assert groups.all() == made


def test_deleting_a_group_twice_is_harmless(groups: Groups, bench: Bench) -> None:
    group = groups.create("Sales")
    with bench.database.transaction() as connection:
        delete_group(connection, group.id)
        delete_group(connection, group.id)
        assert all_groups(connection) == []


def void(_: object) -> None:
    """What takes records returns nothing."""


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["create", "add", "remove", "delete", "rename"]),
        st.sampled_from("XYZ"),
        st.lists(st.integers(0, 4), max_size=3),
        st.sampled_from("XYZ"),
    ),
    max_size=20,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_groups_do_what_a_dictionary_of_sets_does(
    bench: Bench, operations: Sequence[tuple[str, str, list[int], str]]
) -> None:
    """Any list of changes: each is done whole or refused whole, and no volume is ever in two groups."""
    pool = bench.pools[0] if bench.pools else bench.make()
    ids = [each.id for each in pool.images()] or [each.id for each in pool.apply([Create(n, PAGE) for n in "abcde"])]
    groups = Groups(bench.database)
    for left in groups.all():
        groups.delete(left.name)
    model: dict[str, set[int]] = {}
    for what, name, numbers, other in operations:
        chosen = [ids[number] for number in numbers]
        expected = _model(model, what, name, chosen, other)
        try:
            _do(groups, what, name, chosen, other)
        except OffsiteError:
            assert expected is None, "refused what is allowed"
        else:
            assert expected is not None, "did what has to be refused"
            model = expected
        assert content(groups) == {each: tuple(sorted(of)) for each, of in sorted(model.items())}


def _do(groups: Groups, what: str, name: str, chosen: list[int], other: str) -> None:
    match what:
        case "create":
            groups.create(name, chosen)
        case "add":
            groups.add(name, chosen)
        case "remove":
            groups.remove(name, chosen)
        case "delete":
            groups.delete(name)
        case "rename":
            groups.rename(name, other)


def _model(
    model: dict[str, set[int]], what: str, name: str, chosen: list[int], other: str
) -> dict[str, set[int]] | None:
    """The model after it; None when it is to be refused."""
    if (name in model) == (what == "create"):
        return None
    taken = {each for of in model.values() for each in of}
    twice = len(set(chosen)) != len(chosen)
    match what:
        case "create" | "add":
            return None if twice or taken & set(chosen) else model | {name: model.get(name, set()) | set(chosen)}
        case "remove":
            return None if twice or not set(chosen) <= model[name] else model | {name: model[name] - set(chosen)}
        case "rename" if other in model:
            return None
    rest = {each: of for each, of in model.items() if each != name}
    return rest if what == "delete" else rest | {other: model[name]}
