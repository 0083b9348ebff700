"""Help is made from the table: every command and every option is explained."""

from __future__ import annotations

import pytest

from offsite.interfaces.cli import help
from offsite.interfaces.cli.options import OPTIONS
from offsite.management.command_table.command import Command
from offsite.management.commands import TABLE


def test_the_overview_lists_every_command_and_general_option() -> None:
    text = help.overview(TABLE)
    for command in TABLE:
        assert f"  {command.text} " in text
    for option in OPTIONS:
        assert (option.syntax in text) is not bool(option.verbs), option.name


@pytest.mark.parametrize("command", list(TABLE), ids=lambda command: command.text)
def test_help_of_a_command_has_its_syntax_parameters_role_and_examples(command: Command) -> None:
    text = help.of_command(command)
    assert text.startswith(f"offsite {command.syntax}\n")
    for parameter in command.parameters:
        assert parameter.help in text
    for example in command.examples:
        assert f"offsite {example}" in text
    assert f"role {command.role.word}" in text


def test_help_has_the_options_that_belong_to_a_command() -> None:
    assert "--wait" in help.of_command(next(each for each in TABLE if each.text == "replicate"))
    assert "--directory" in help.of_command(next(each for each in TABLE if each.text == "create initiator-certificate"))
    serve = next(verb for verb in help.VERBS if verb.name == "serve")
    for option in ("--name", "--listen", "--api-port", "--nbd-port", "--peer-port", "--pool-size"):
        assert option in help.of_verb(serve)


def test_a_secret_is_said_to_come_from_elsewhere() -> None:
    text = help.of_command(next(each for each in TABLE if each.text == "create peer-connection"))
    assert "$OFFSITE_REMOTE_PASSWORD" in text
