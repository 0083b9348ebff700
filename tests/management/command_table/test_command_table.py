"""The table of commands as a whole: what is declared fits what does it."""

from __future__ import annotations

import inspect

import pytest

from offsite.management.command_table.command import Command, Parameter, Role, singular
from offsite.management.command_table.value_parser import parse
from offsite.management.command_table.value_rules import written
from offsite.management.commands import TABLE
from offsite.replication.naming.snapshot_names import BASENAME_BYTES_MAX

COMMANDS = list(TABLE)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text)
def test_the_handler_takes_what_the_command_declares(command: Command) -> None:
    """A parameter that a handler lacks, or one it needs that may be left out, would be found by users first."""
    for function in filter(None, (command.handler, command.confirmation)):
        taken = dict(inspect.signature(function).parameters)
        taken.pop(next(iter(taken)))  # the context
        rest = [name for name, each in taken.items() if each.kind is inspect.Parameter.VAR_KEYWORD]
        for name in rest:  # settings, taken together
            taken.pop(name)
        declared = {parameter.argument: parameter for parameter in command.parameters}
        assert set(taken) <= set(declared)
        assert rest or set(taken) == set(declared)
        for name, parameter in declared.items():
            if name not in taken:
                continue  # together with others; a confirmation looks at some of them
            has_default = taken[name].default is not inspect.Parameter.empty
            always_comes = parameter.needs is None and (parameter.required or parameter.default is not None)
            assert has_default is not always_comes, parameter.name


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text)
def test_a_command_explains_itself(command: Command) -> None:
    assert command.help.endswith(".")
    assert all(parameter.help.endswith(".") for parameter in command.parameters)
    assert sum(parameter.positional for parameter in command.parameters) <= 1
    assert command.role is (Role.MONITOR if command.words[0] == "show" else Role.MANAGE)
    for example in command.examples:
        assert example.startswith(command.text)


def test_no_two_commands_or_parameters_are_the_same_in_the_singular() -> None:
    words = [tuple(map(singular, command.words)) for command in COMMANDS]
    assert len(set(words)) == len(words) > 35
    for command in COMMANDS:
        names = [singular(parameter.name) for parameter in command.parameters]
        assert len(set(names)) == len(names), command.text


def test_a_secret_can_come_from_an_environment_variable() -> None:
    secrets = [each for command in COMMANDS for each in command.parameters if each.is_secret]
    assert {each.environment for each in secrets} == {
        "OFFSITE_REMOTE_PASSWORD",
        "OFFSITE_NEW_PASSWORD",
        "OFFSITE_NOTICE_URL",
    }


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text)
def test_what_a_parameter_goes_with_is_declared_before_it(command: Command) -> None:
    """Its default is filled in once the other parameter is known; a value must be one that the other can have."""
    before: dict[str, Parameter] = {}
    for parameter in command.parameters:
        if parameter.needs is not None:
            other = before[parameter.needs.parameter]
            assert not parameter.needs.value or (other.type and parameter.needs.value in other.type.words)
        before[parameter.name] = parameter


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text)
def test_a_default_is_a_value_that_could_be_typed(command: Command) -> None:
    for parameter in command.parameters:
        if parameter.type is not None and parameter.default is not None:
            assert parse(parameter.type, written(parameter.type, parameter.default)) == parameter.default


def test_a_snapshot_basename_has_the_bytes_that_the_names_of_snapshots_leave() -> None:
    """It was declared with 64 bytes, and refused only later with more than 26."""
    for text in ("create replication-set", "set replication-set"):
        command = next(each for each in COMMANDS if each.text == text)
        (basename,) = (each for each in command.parameters if each.name == "snapshot-basename")
        assert basename.type is not None
        assert basename.type.maximum == BASENAME_BYTES_MAX == 26
