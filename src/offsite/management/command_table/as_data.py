"""The table of commands as plain data, and back: so that a program may know all declarations without the code that does
the commands, which takes long to load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NoReturn

from offsite.management.command_table.command import Command, Needs, Option, Parameter, Role, Subject
from offsite.management.command_table.values import Choice, ValueKind, ValueType

_LEFT_OUT = {
    "parser",
    "handler",
    "returns",
    "own_errors",
    "acts_on",
    "acceptance",
}  # what is code, or says what a system answers


def to_data(commands: Iterable[Command]) -> list[dict[str, Any]]:
    """What JSON can hold; a field that has its default is left out."""
    return [_plain(command) for command in commands]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, (Command, Parameter, Option, ValueType, Choice, Needs)):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in fields(value)
            if field.name not in _LEFT_OUT and getattr(value, field.name) != field.default
        }
    if isinstance(value, Role):
        return value.word
    return True if callable(value) else value  # that there is a confirmation


def from_data(data: Iterable[Mapping[str, Any]]) -> list[Subject]:
    """The commands that `to_data` was given, by subject, but for what does them."""
    subjects: dict[str, Subject] = {}
    for each in data:
        command = _command(each)
        subjects.setdefault(command.subject, Subject(command.subject)).commands.append(command)
    return list(subjects.values())


def _command(data: Mapping[str, Any]) -> Command:
    found = dict(data)
    found["words"] = tuple(found["words"])
    found["role"] = Role[found["role"].upper()] if found.get("role") else None
    found["parameters"] = tuple(_parameter(each) for each in found["parameters"])
    found["options"] = tuple(Option(**_with_type(each)) for each in found.get("options", ()))
    found["examples"] = tuple(found.get("examples", ()))
    found["confirmation"] = _done_elsewhere if found.get("confirmation") else None
    return Command(**found, handler=_done_elsewhere)


def _parameter(data: Mapping[str, Any]) -> Parameter:
    found = _with_type(data)
    if "needs" in found:
        found["needs"] = Needs(**found["needs"])
    return Parameter(**found)


def _with_type(data: Mapping[str, Any]) -> dict[str, Any]:
    if "type" not in data:
        return dict(data)
    type = dict(data["type"])
    type["kind"] = ValueKind(type["kind"])
    type["choices"] = tuple(
        Choice(each["word"], each.get("code"), tuple(each.get("also", ()))) for each in type.get("choices", ())
    )
    type["objects"] = tuple(type.get("objects", ()))
    return {**data, "type": ValueType(**type)}


def _done_elsewhere(*_arguments: Any, **_given: Any) -> NoReturn:
    raise AssertionError("what does a command is not a part of its data")
