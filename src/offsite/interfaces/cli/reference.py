"""docs/commands.md: every command, from the same declarations as `offsite help`. Made by `make docs`, never by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable

from offsite.errors import OffsiteError
from offsite.interfaces.cli import verbs
from offsite.interfaces.cli.help import described, described_option
from offsite.management.command_table.answers import OF_ANY_COMMAND, errors_of
from offsite.management.command_table.command import Command, Table

_HEAD = """# Commands

All commands, by subject. `make docs` generates this page from the declarations of the commands, as
`offsite COMMAND --help` is. Values are in <>, optional parts in []. The parameters of a command can be given in any
order. Commands that ME4 has are named as there.

Any command can fail with %s.
"""


def page(table: Table) -> str:
    """The page, in Markdown."""
    parts = [_HEAD % ", ".join(map(_code, OF_ANY_COMMAND))]
    subjects: dict[str, list[Command]] = {}
    for command in (*verbs.COMMANDS.commands, *table):
        subjects.setdefault(command.subject, []).append(command)
    for subject, commands in subjects.items():
        parts += [f"## {subject}\n", *map(_command, commands)]
    return "\n".join(parts)


def _command(command: Command) -> str:
    rows = [*map(described, command.parameters), *map(described_option, command.options)]
    if command.role is None or command in verbs.COMMANDS.commands:
        return _section(command, command.help, rows)
    text = _section(command, f"{command.help} Requires the role {command.role.word}.", rows)
    examples = "".join(f"offsite {each}\n" for each in command.examples)
    return f"{text}\n{_answers(command)}\n" + (f"\n```\n{examples}```\n" if examples else "")


def _answers(command: Command) -> str:
    """What comes back, for programs: basetypes of objects, and codes of errors."""
    objects = ", ".join(dict.fromkeys(f"`{each.basetype}`" for each in command.returns)) or "no objects"
    codes = [_code(each) for each in errors_of(command)]
    errors = f" Specific errors: {', '.join(codes)}." if codes else ""
    slow = " Can take long: it waits for another system or moves much data." if command.slow else ""
    return f"Returns {objects}.{errors}{slow}"


def _code(error: type[OffsiteError]) -> str:
    return f"{error.code} ({_words(error.__name__)})"


def _words(name: str) -> str:
    """VolumeNotFound as it is said."""
    return re.sub(r"(?<=.)([A-Z])", r" \1", name).lower()


def _section(command: Command, help: str, rows: Iterable[tuple[str, str]]) -> str:
    table = "".join(f"| {_cell(f'`{name}`')} | {_cell(text)} |\n" for name, text in rows)
    text = f"### {command.text}\n\n`offsite {command.syntax}`\n\n{help}\n"
    return f"{text}\n| | |\n|---|---|\n{table}" if table else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    from offsite.management.commands import TABLE

    print(page(TABLE), end="")
