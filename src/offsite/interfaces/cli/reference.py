"""docs/commands.md: every command, from the same declarations as `offsite help`. Made by `make docs`, never by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable

from offsite.errors import OffsiteError
from offsite.interfaces.cli.help import VERBS, described
from offsite.interfaces.cli.options import OPTIONS
from offsite.management.command_table.answers import OF_ANY_COMMAND, errors_of
from offsite.management.command_table.command import Command, Table

_HEAD = """# Commands

Every command, by subject. `make docs` makes this page from the declarations that `offsite COMMAND --help` is made
from. A value stands in <>, what may be left out in []; a command's parameters may stand in any order. Words follow
ME4's where it has the command.

Any command may refuse with %s.
"""


def page(table: Table) -> str:
    """The page, in Markdown."""
    parts = [_HEAD % ", ".join(map(_code, OF_ANY_COMMAND)), "## On this machine\n"]
    parts += [_section(verb.name, verb.syntax, verb.help, _options(verb.name)) for verb in VERBS]
    subjects: dict[str, list[Command]] = {}
    for command in table:
        subjects.setdefault(command.subject, []).append(command)
    for subject, commands in subjects.items():
        parts += [f"## {subject}\n", *map(_command, commands)]
    return "\n".join(parts)


def _command(command: Command) -> str:
    rows = [*map(described, command.parameters), *_options(command.text)]
    text = _section(command.text, command.syntax, f"{command.help} Needs the role {command.role.word}.", rows)
    text = f"{text}\n{_answers(command)}\n"
    examples = "".join(f"offsite {each}\n" for each in command.examples)
    return f"{text}\n```\n{examples}```\n" if examples else text


def _answers(command: Command) -> str:
    """What comes back, for programs: basetypes of objects, and codes of errors."""
    objects = ", ".join(dict.fromkeys(f"`{each.basetype}`" for each in command.returns)) or "no objects"
    codes = [_code(each) for each in errors_of(command)]
    errors = f" Errors of its own: {', '.join(codes)}." if codes else ""
    slow = " It may take long: it waits for another system, or moves much data." if command.slow else ""
    return f"Answers with {objects}.{errors}{slow}"


def _code(error: type[OffsiteError]) -> str:
    return f"{error.code} ({_words(error.__name__)})"


def _words(name: str) -> str:
    """VolumeNotFound as it is said."""
    return re.sub(r"(?<=.)([A-Z])", r" \1", name).lower()


def _section(title: str, syntax: str, help: str, rows: Iterable[tuple[str, str]]) -> str:
    table = "".join(f"| {_cell(f'`{name}`')} | {_cell(text)} |\n" for name, text in rows)
    text = f"### {title}\n\n`offsite {syntax}`\n\n{help}\n"
    return f"{text}\n| | |\n|---|---|\n{table}" if table else text


def _options(command: str) -> list[tuple[str, str]]:
    return [(option.syntax, option.help) for option in OPTIONS if command in option.verbs]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    from offsite.management.commands import TABLE

    print(page(TABLE), end="")
