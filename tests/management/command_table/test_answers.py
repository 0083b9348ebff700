"""What commands declare about their answers."""

from __future__ import annotations

import pytest

from offsite.errors import MapNotFound, NameInUse, ObjectNotFound, PoolFull, SetDiverged, VolumeNotFound
from offsite.management.command_table.answers import errors_of, is_declared, undeclared_objects
from offsite.management.command_table.command import Command, Role
from offsite.management.command_table.object_types import ObjectType, Row
from offsite.management.command_table.reply import Reply
from offsite.management.commands import TABLE


def command(text: str) -> Command:
    return next(each for each in TABLE if each.text == text)


def test_parameters_say_which_objects_may_be_missing() -> None:
    assert errors_of(command("copy volume"))[:2] == (ObjectNotFound, NameInUse)
    assert VolumeNotFound in errors_of(command("copy volume"))
    assert MapNotFound in errors_of(command("unmap volume"))


def test_an_error_that_is_neither_declared_nor_general_is_found() -> None:
    assert is_declared(command("copy volume"), PoolFull("full"))
    assert not is_declared(command("copy volume"), SetDiverged("diverged"))


def test_an_object_that_is_not_declared_is_found() -> None:
    other = ObjectType[object]("others", "other", ())
    assert undeclared_objects(command("copy volume"), Reply(rows=(Row(other, ()),))) == {"others"}
    assert undeclared_objects(command("copy volume"), Reply()) == set()


@pytest.mark.parametrize("command", list(TABLE), ids=lambda command: command.text)
def test_what_only_shows_returns_objects_and_needs_not_be_alone(command: Command) -> None:
    if command.words[0] == "show":
        assert command.returns
    assert not (command.alone and command.role is Role.MONITOR)
