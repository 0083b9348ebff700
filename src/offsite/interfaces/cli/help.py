"""Help, made from the table of commands and the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offsite.interfaces.cli.options import OPTIONS, Option
from offsite.management.command_table.command import Command, Parameter, Table


@dataclass(frozen=True, slots=True)
class Verb:
    """A command that the command line does by itself."""

    name: str
    syntax: str
    help: str


VERBS = (
    Verb(
        "serve",
        "serve STATE_DIR",
        "Runs a system in the foreground. At its first start it makes the directory, pool A, and the user manage, "
        "whose password is $OFFSITE_MANAGE_PASSWORD, or is made up and shown, or without a terminal put in a file.",
    ),
    Verb("import", "import NAME FILE", "Makes a volume of an image file: raw, or what qemu-img reads. Sparse."),
    Verb("export", "export NAME FILE", "Writes a volume or snapshot, as it is at this instant, to a file. Sparse."),
    Verb("demo", "demo", "Shows two systems, and a volume that replicates itself from one to the other."),
    Verb("help", "help [COMMAND…]", "Explains a command; without one, lists them all."),
)  # fmt: skip


def overview(table: Table) -> str:
    """All commands, by subject."""
    lines = [
        "offsite [--state DIR | --system https://USER@HOST] COMMAND…",
        "",
        "A command has words, then parameters in any order. `offsite COMMAND --help` explains one.",
        "",
        "On this machine",
        *_columns([(verb.syntax, verb.help) for verb in VERBS]),
    ]
    subjects: dict[str, list[Command]] = {}
    for command in table:
        subjects.setdefault(command.subject, []).append(command)
    for subject, commands in subjects.items():
        lines += ["", subject, *_columns([(command.text, _first(command.help)) for command in commands])]
    everywhere = [(option.syntax, option.help) for option in OPTIONS if not option.verbs]
    lines += ["", "Options", *_columns(everywhere), ""]
    lines.append("Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 replicate: the request was dropped.")
    return "\n".join(lines)


def of_command(command: Command) -> str:
    lines = [f"offsite {command.syntax}", "", command.help]
    if command.parameters:
        lines += ["", "Parameters", *_columns([described(each) for each in command.parameters])]
    lines += _options(command.text)
    if command.examples:
        lines += ["", "For example", *(f"  offsite {each}" for each in command.examples)]
    lines += ["", f"Needs the role {command.role.word}."]
    return "\n".join(lines)


def of_verb(verb: Verb) -> str:
    return "\n".join([f"offsite {verb.syntax}", "", verb.help, *_options(verb.name)])


def _options(command: str) -> list[str]:
    own: list[Option] = [option for option in OPTIONS if command in option.verbs]
    return ["", "Options", *_columns([(option.syntax, option.help) for option in own])] if own else []


def described(parameter: Parameter) -> tuple[str, str]:
    """How it is typed, and what it means."""
    if parameter.type is None:
        return parameter.name, parameter.help
    value = parameter.type.placeholder
    name = value if parameter.positional else f"{parameter.name} {value}"
    if parameter.is_secret:
        return f"[{parameter.name}]", f"{parameter.help} Asked for, or taken from ${parameter.environment}."
    return name, parameter.help + (" Required." if parameter.required else "")


def _columns(pairs: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(left) for left, _ in pairs)
    if width > 34:
        return [line for left, right in pairs for line in (f"  {left}", f"      {right}")]
    return [f"  {left:<{width}}  {right}" for left, right in pairs]


def _first(text: str) -> str:
    """The first sentence."""
    return text.split(". ")[0].removesuffix(".") + "."
