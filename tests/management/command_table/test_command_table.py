"""The table of commands as a whole: what is declared fits what does it."""

from __future__ import annotations

import inspect

import pytest

from offsite.management.command_table.command import Command, Role, singular
from offsite.management.commands import TABLE

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
            if name not in taken and function is command.confirmation:
                continue  # it looks at some of them
            has_default = name not in taken or taken[name].default is not inspect.Parameter.empty
            assert has_default is not parameter.required, parameter.name


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
