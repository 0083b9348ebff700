"""What a system says about a command for an object is what it then does: the answer and the deed agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from offsite.errors import InUse, NotAllowed, ObjectNotFound, OffsiteError, VolumeNotFound
from offsite.management.acceptance import FINDERS, accepted_commands, would_accept
from offsite.management.command_table.command import Command, Parameter
from offsite.management.command_table.listings import LISTINGS
from offsite.management.commands import TABLE
from offsite.management.execution import Request
from tests.management.acceptance_world import (
    SECRETS,
    actions,
    make_acceptance_world,
    names,
    start_slow_run,
    words,
)
from tests.management.declared_answers import execute
from tests.management.management_bench import MANAGE, MONITOR, Bench
from tests.management.replicated_world import World, await_that, changes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Nothing in it may be changed."""
    with make_acceptance_world(tmp_path_factory.mktemp("acceptance")) as made:
        yield made


def asked(bench: Bench, command: Command, target: Parameter, *chosen: str) -> OffsiteError | None:
    return would_accept(bench.system, MANAGE, command, target, chosen)


def done(bench: Bench, line: Sequence[str]) -> OffsiteError | None:
    try:
        execute(bench.system, Request(line, SECRETS, open_secrets=True), MANAGE)
    except OffsiteError as error:
        return error
    return None


def told(error: OffsiteError | None) -> tuple[type[OffsiteError], str] | None:
    return None if error is None else (type(error), str(error))


def test_what_would_be_refused_is_refused_with_the_same_sentence_and_asking_changes_nothing(world: World) -> None:
    before, refused = world.state(), set()
    for bench in world.systems.values():
        for command, target, kind in actions():
            for name in names(bench, kind):
                refusal = asked(bench, command, target, name)
                line = words(bench, command, target, [name])
                if refusal is not None and line is not None:
                    assert told(refusal) == told(done(bench, line)), (bench.system.name, line)
                    refused.add(command.text)
    assert changes(before, world.state()) == []
    assert refused >= {
        *("replicate", "suspend replication-set", "resume replication-set", "abort replication"),
        *("resolve replication-set", "clear replication-queue", "delete replication-set", "create replication-set"),
        *("delete volumes", "expand volume", "set volume", "rollback volume", "map volume", "unmap volume"),
        *("reset snapshot", "create snapshots", "create volume-group", "set volume-group", "delete volume-groups"),
        *("add volume-group-members", "remove volume-group-members", "delete pools", "delete peer-connection"),
        *("delete user", "revoke initiator-certificate", "create task"),
    }


LATER = ("set volume", "set volume-group", "create replication-set")  # what others of the list go by
NOT_REACHED = {"delete peer-connection", "delete pools", "delete initiator-nickname", "delete schedules"}
"""By then something else is in the way, or has taken them along."""
ON_RUNS = ("resolve", "suspend", "abort", "resume", "clear", "replicate")


def _in_order() -> list[tuple[Command, Parameter, str]]:
    """First what is done to runs, last what takes objects away: replication sets before what is in them."""

    def place(action: tuple[Command, Parameter, str]) -> tuple[int, int]:
        command, verb = action[0], action[0].words[0]
        if verb in ON_RUNS:
            return 0, ON_RUNS.index(verb)
        if verb in ("delete", "revoke"):
            return 3, command.text != "delete replication-set"
        return (2, LATER.index(command.text)) if command.text in LATER else (1, 0)

    return sorted(actions(), key=place)


@pytest.mark.slow
def test_what_would_be_accepted_is_done_and_what_would_not_is_refused_also_as_the_state_changes(tmp_path: Path) -> None:
    accepted = set()
    with make_acceptance_world(tmp_path) as world:
        start_slow_run(world)
        first = {(bench, kind): names(bench, kind) for bench in world.systems.values() for kind in FINDERS}
        for command, target, kind in _in_order():
            for bench in world.systems.values():
                for name in sorted(set(first[bench, kind]) & set(names(bench, kind))):
                    _settle(world.london)
                    refusal = asked(bench, command, target, name)
                    line = words(bench, command, target, [name])
                    if line is None:
                        continue
                    assert told(refusal) == told(done(bench, line)), (bench.system.name, line)
                    if refusal is None:
                        accepted.add(command.text)
                        _name_back(bench, command, line, name)
            if command.text == "abort replication":
                world.london.do("set peer-connection bandwidth-limit none Newark")
    assert accepted >= {command.text for command, _, _ in actions()} - NOT_REACHED


def _settle(london: Bench) -> None:
    """No run comes to its end between a question and the deed."""
    rows = [row for row in london.rows("show replication-sets") if row["name"] != "SlowDR"]
    if any(row["status"] == "Running" for row in rows):
        await_that(lambda: not _running(london))


def _running(london: Bench) -> bool:
    rows = london.rows("show replication-sets")
    slow = any(row["bandwidth-limit"] != "none" for row in london.rows("show peer-connections"))
    return any(row["status"] == "Running" and not (slow and row["name"] == "SlowDR") for row in rows)


def _name_back(bench: Bench, command: Command, line: Sequence[str], name: str) -> None:
    if command.text in ("set volume", "set volume-group"):
        bench.do(f"{command.text} name {name} {line[line.index('name') + 1]}")


def test_asking_waits_for_no_command_that_is_under_way_and_asks_no_other_system(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A console asks for every object that somebody points at."""
    london = world.london.system

    def dial(*_: object) -> None:
        raise AssertionError("another system was asked")

    chosen = {kind: names(world.london, kind) for kind in FINDERS}
    monkeypatch.setattr(london.replication.peers.reachability, "is_online", dial)
    monkeypatch.setattr(london.replication.peers, "connect", dial)
    with london.changing:
        for kind, found in chosen.items():
            for name in found:
                assert accepted_commands(list(TABLE), london, MANAGE, kind, [name])


def rows(world: World, line: str) -> dict[object, object]:
    return {row["command"]: row["reason"] for row in world.london.rows(line)}


def test_several_objects_are_accepted_together_or_the_reason_names_the_one_in_the_way(world: World) -> None:
    found = rows(world, "show actions volume Free,Sales")
    assert found["create snapshots"] == ""
    assert "Sales cannot be deleted: " in str(found["delete volumes"])
    assert found["expand volume"] == "`expand volume` takes one volume at a time; 2 are given"
    assert rows(world, "show actions replication-set SalesDR,BusyDR")["suspend replication-set"] == (
        "replication set BusyDR is already suspended"
    )


def test_who_only_monitors_is_told_that_the_role_is_missing(world: World) -> None:
    found = world.london.do("show actions volume Free", MONITOR).rows
    assert {row["command"] for row in found if row["accepted"]} == {"show digest"}
    assert all("requires the role manage" in str(row["reason"]) for row in found if not row["accepted"])


def test_what_is_not_there_has_no_actions(world: World) -> None:
    world.london.refused("show actions volume Nope", VolumeNotFound, "Nope")
    world.london.refused("show actions schedule Nope", ObjectNotFound, "Nope")
    world.london.refused("show actions", OffsiteError, "objects of one kind")


def test_the_refusal_has_its_code(world: World) -> None:
    (row,) = (row for row in world.london.rows("show actions pool A") if row["command"] == "delete pools")
    assert (row["accepted"], row["return-code"], row["parameter"]) == (False, InUse.code, "pool")
    assert InUse.code != NotAllowed.code


def test_a_question_is_asked_only_about_what_is_accepted(world: World) -> None:
    with pytest.raises(InUse, match="delete them first"):
        world.london.answer("delete pools A", asks=True)


def test_each_kind_of_object_that_can_be_listed_has_actions_and_can_be_found() -> None:
    assert set(FINDERS) == set(LISTINGS) == {kind for _, _, kind in actions()}
