"""What needs an image to stay, of all floors together: the order in which it is told, and who asks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from offsite.errors import InUse
from offsite.management.command_table.reply import Question
from offsite.management.schedules.records import find_task
from offsite.management.task_runner.task_work import TaskWork
from offsite.pools.needs import Need
from offsite.pools.protocol import Change, ImageInfo, Records
from offsite.replication.records.run_states import RunEvent
from offsite.replication.records.run_writer import change_run
from tests.management.commands.test_group_commands import put_in_set
from tests.management.management_bench import Bench

LOAN = Need("it is on loan", "return it first")


def need(bench: Bench, need: Need, name: str) -> None:
    """A floor that is to be, which needs the image of this name."""
    image_id = bench.system.image(name).image.id
    bench.system.needs.register(lambda _connection, ids: [(each, need) for each in ids if each == image_id])


def test_the_order_in_which_needs_are_told(bench: Bench) -> None:
    """What is binding comes first: of a rotation's event only the first is told."""
    bench.do("create volume pool A size 1MiB Sales")
    bench.do("create snapshots volumes Sales Monday")
    bench.do("create snapshots volumes Monday Drill")
    bench.do("create task type ResetSnapshot snapshot-volume Monday Reset")
    bench.do("create volume-group volumes Monday Books")
    bench.do("map volume access read-only initiator tls:web1 Monday")
    put_in_set(bench, "Books", "primary")
    monday, database = bench.system.image("Monday").image.id, bench.system.database
    with database.transaction() as connection:
        change_run(connection, 1, "run", RunEvent.PREPARE, 0.0, source="Monday")
    with database.read() as connection:
        needs = bench.system.needs.of(connection, [monday])
    assert [each.sentence for each in needs[monday]] == [
        "it is the primary volume of replication set SalesDR",
        "a run of replication set SalesDR sends it",
        "it is mapped to tls:web1",
        "it is in volume group Books",
        "task Reset uses it",
        "it is the parent of snapshot Drill",
    ]
    assert [each.is_binding for each in needs[monday]] == [True, True, False, False, False, False]


@pytest.mark.parametrize(
    "line", ["delete snapshot Monday", "delete volumes Sales", "delete volume-groups delete-volumes yes Books"]
)
def test_what_a_floor_comes_to_need_no_command_deletes(bench: Bench, line: str) -> None:
    """Nor is anybody asked whether it should: all of them go by the one rule."""
    bench.do("create volume pool A size 1MiB Sales")
    bench.do("create snapshots volumes Sales Monday")
    bench.do("create volume-group volumes Sales Books")
    name = "Monday" if "Monday" in line else "Sales"
    need(bench, Need("it is on display"), name)
    assert isinstance(bench.answer(line, asks=True), Question), "a need that does not bind"
    need(bench, LOAN, name)
    bench.refused(line, InUse, f"{name} cannot be deleted: it is on loan; return it first")
    with pytest.raises(InUse, match="it is on loan"):
        bench.answer(line, asks=True)


def test_what_a_run_comes_to_send_at_that_moment_is_not_deleted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at what needs it and the deletion: no row of another table refers to the snapshot then."""
    bench.do("create volume pool A size 1MiB volume-group Books Sales")
    bench.do("create snapshots volumes Sales Monday")
    put_in_set(bench, "Books", "primary")
    pool = bench.system.pools["A"]
    apply = pool.apply

    def request_and_apply(changes: Sequence[Change], write: Records | None = None) -> list[ImageInfo]:
        with bench.system.database.transaction() as connection:
            change_run(connection, 1, "run", RunEvent.PREPARE, 0.0, source="Monday")
        return apply(changes, write)

    monkeypatch.setattr(pool, "apply", request_and_apply)
    with pytest.raises(InUse, match="Monday cannot be deleted: a run of replication set SalesDR sends it"):
        bench.do("delete snapshot Monday")
    assert bench.names("show snapshots") == ["Monday"]


def test_what_a_floor_comes_to_need_no_task_lets_go(bench: Bench) -> None:
    bench.do("create volume pool A size 1MiB Sales")
    bench.do("create task type TakeSnapshot source-volume Sales snapshot-prefix s retention-count 1 Take")
    work, database = TaskWork(bench.system), bench.system.database
    for _ in range(3):
        with database.read() as connection:
            task = find_task(connection, "Take")
        assert task is not None
        work.do(task, lambda _connection: None)
        if len(bench.names("show snapshots")) == 1:
            need(bench, Need("it is on display"), "s_S0001")
    assert bench.names("show snapshots") == ["s_S0001", "s_S0003"]
