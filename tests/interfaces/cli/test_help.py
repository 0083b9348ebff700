"""Help is made from the table: every command and every option is explained."""

from __future__ import annotations

import pytest

from offsite.interfaces.cli import declared, help
from offsite.interfaces.cli.options import OPTIONS
from offsite.management.command_table.command import Command

WIDE = 10_000  # nothing is wrapped


def test_the_overview_lists_every_command_and_general_option() -> None:
    text = help.overview(declared.commands(), WIDE)
    for command in declared.commands():
        assert f"  {command.text} " in text
    for option in OPTIONS:
        assert f"  {option.syntax} " in text, option.name


@pytest.mark.parametrize("command", list(declared.commands()), ids=lambda command: command.text)
def test_help_of_a_command_has_its_syntax_parameters_role_and_examples(command: Command) -> None:
    text = help.of_command(command, WIDE)
    assert text.startswith(f"offsite {command.syntax}\n")
    for parameter in command.parameters:
        assert parameter.help in text
    for example in command.examples:
        assert f"offsite {example}" in text
    assert command.role is None or f"role {command.role.word}" in text
    for option in command.options:
        assert option.help in text


def test_help_has_the_options_that_belong_to_a_command() -> None:
    assert "--wait" in help.of_command(next(each for each in declared.commands() if each.text == "replicate"), WIDE)
    assert "--directory" in help.of_command(
        next(each for each in declared.commands() if each.text == "create initiator-certificate"), WIDE
    )
    serve = next(each for each in declared.commands() if each.text == "serve")
    for option in ("--name", "--listen", "--api-port", "--nbd-port", "--peer-port", "--pool-size"):
        assert option in help.of_command(serve, WIDE)


def test_a_secret_is_said_to_come_from_elsewhere() -> None:
    text = help.of_command(next(each for each in declared.commands() if each.text == "create peer-connection"), WIDE)
    assert "$OFFSITE_REMOTE_PASSWORD" in text


@pytest.mark.parametrize("width", [40, 80, 132])
@pytest.mark.parametrize("command", list(declared.commands()), ids=lambda command: command.text)
def test_help_fits_the_terminal_and_breaks_no_word(command: Command, width: int) -> None:
    """Wrapped lines hold the same words, and only a word that is too long by itself goes beyond the width."""
    text = help.of_command(command, width)
    assert text.split() == help.of_command(command, WIDE).split()
    _check_width(text, width)


@pytest.mark.parametrize("width", [40, 80])
def test_the_overview_fits_the_terminal(width: int) -> None:
    text = help.overview(declared.commands(), width)
    assert text.split() == help.overview(declared.commands(), WIDE).split()
    _check_width(text, width)


def _check_width(text: str, width: int) -> None:
    for line in text.splitlines():
        is_example = line.startswith("  offsite ")  # whole, to be copied
        assert len(line) <= width or len(line.split()) == 1 or is_example, line


def test_help_tells_bounds_default_and_what_a_parameter_goes_with() -> None:
    """Made from the declarations, in the same words everywhere."""
    text = help.of_command(next(each for each in declared.commands() if each.text == "create replication-set"), WIDE)
    assert "hook-timeout #" in text
    assert "From 1 to 600 seconds. Default: 60." in text
    assert "At most 26 bytes." in text
    task = help.of_command(next(each for each in declared.commands() if each.text == "create task"), WIDE)
    assert "Required with type TakeSnapshot." in task
    assert "[last-snapshot [on|off]]" in task
