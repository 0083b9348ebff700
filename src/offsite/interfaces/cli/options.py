"""What stands on a command line besides the words of a command: options. No I/O.

Options begin with `--`, stand anywhere, and take their value as the next argument or behind `=`. After a `--` of
its own, everything is a word. Those of a command are declared with it; the ones here belong to all.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from offsite.errors import BadParameter
from offsite.management.command_table import values
from offsite.management.command_table.command import Command, Option, singular
from offsite.management.command_table.value_parser import parse

OPTIONS = (
    Option("state", "State directory of a system on this machine. Default: $OFFSITE_STATE.", values.path("dir")),
    Option("system", "URL of a remote system: https://USER@HOST[:PORT]. Default: $OFFSITE_SYSTEM.", values.text("URL")),
    Option(
        "certificate",
        "Certificate of the system. Trusts this certificate instead of the remembered one.",
        values.path("file"),
    ),
    Option(
        "fingerprint",
        "SHA-256 fingerprint of its certificate. Trusts and remembers the certificate without a question.",
        values.text("SHA256"),
    ),
    Option("json", "Shows the answer as JSON, for programs."),
    Option("yes", "Answers every question with yes."),
    Option("help", "Explains the command instead of running it."),
    Option("version", "Shows the version of this program."),
)
_SHORT = {"-h": "--help", "-y": "--yes"}


class OptionError(BadParameter):
    """An option that is unknown, misplaced, or lacks its value."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    words: tuple[str, ...]
    options: dict[str, Any]  # "" for those without a value

    @property
    def verb(self) -> str:
        """In the form in which commands are looked up, whichever way it is written."""
        return singular(self.words[0]) if self.words else ""


def command_of(words: Sequence[str]) -> Command | None:
    """The command that these words begin with, as this program knows it."""
    from offsite.interfaces.cli import declared
    from offsite.management.command_table.parser import UsageError, find

    try:
        return find(declared.commands(), words)[0]
    except UsageError:
        return None


def parse_options(arguments: Sequence[str]) -> CommandLine:
    """Raises OptionError, and BadParameter for a value outside its rule."""
    words: list[str] = []
    options: dict[str, Any] = {}
    rest = iter(arguments)
    for argument in rest:
        argument = _SHORT.get(argument, argument)
        if argument == "--":
            words.extend(rest)
        elif not argument.startswith("--"):
            words.append(argument)
        else:
            name, equals, value = argument[2:].partition("=")
            option = _option(name)
            if name in options:
                raise OptionError(f"--{name} is given twice")
            if equals and option.type is None:
                raise OptionError(f"--{name} takes no value")
            options[name] = _value(option, value if equals or option.type is None else _next(rest, option))
    line = CommandLine(tuple(words), options)
    _check_places(line)
    return line


def _option(name: str) -> Option:
    """Those of commands are only looked up when they are needed: most lines have none, and are to be done at once."""
    general = next((each for each in OPTIONS if each.name == name), None)
    if general is not None:
        return general
    from offsite.interfaces.cli import declared

    of_commands = {option.name: option for command in declared.commands() for option in command.options}
    if name not in of_commands:
        known = [*(each.name for each in OPTIONS), *of_commands]
        raise OptionError(f"--{name[:64]} is an unknown option{_nearest(name, known)}")
    return of_commands[name]


def _next(rest: Iterator[str], option: Option) -> str:
    value = next(rest, None)
    if value is None:
        raise OptionError(f"--{option.name} has no value; syntax: {option.syntax}")
    return value


def _value(option: Option, text: str) -> Any:
    if option.type is None:
        return ""
    try:
        return parse(option.type, text)
    except BadParameter as error:
        raise BadParameter(f"--{option.name}: {error}") from error


def _check_places(line: CommandLine) -> None:
    for name in line.options.keys() - {each.name for each in OPTIONS}:
        from offsite.interfaces.cli import declared

        command = command_of(line.words)
        if command is None or name not in {each.name for each in command.options}:
            owners = [each.text for each in declared.commands() if name in {one.name for one in each.options}]
            raise OptionError(
                f"--{name} is an option of {', '.join(owners)}, not of {line.verb or 'a line without a command'}"
            )


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean --{close[0]}?" if close else "; `offsite --help` lists them"
