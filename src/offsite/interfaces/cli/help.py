"""Help, made from the declarations of the commands, at the width of the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from offsite.interfaces.cli.options import OPTIONS, Option
from offsite.management.command_table.command import Command, Parameter, Table
from offsite.management.command_table.value_rules import rules, written

LEFT_MAX = 34


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


def overview(table: Table, width: int) -> str:
    """All commands, by subject."""
    lines = [
        *_wrapped("offsite [--state DIR | --system https://USER@HOST] COMMAND…", width, 0, 4),
        "",
        *_wrapped(
            "A command has words, then parameters in any order. `offsite COMMAND --help` explains one.", width, 0
        ),
        "",
        "On this machine",
        *_columns([(verb.syntax, verb.help) for verb in VERBS], width),
    ]
    subjects: dict[str, list[Command]] = {}
    for command in table:
        subjects.setdefault(command.subject, []).append(command)
    for subject, commands in subjects.items():
        lines += ["", subject, *_columns([(command.text, _first(command.help)) for command in commands], width)]
    everywhere = [(option.syntax, option.help) for option in OPTIONS if not option.verbs]
    lines += ["", "Options", *_columns(everywhere, width), ""]
    lines += _wrapped(
        "Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 replicate: the request was dropped.", width, 0
    )
    return "\n".join(lines)


def of_command(command: Command, width: int) -> str:
    lines = [*_wrapped(f"offsite {command.syntax}", width, 0, 4), "", *_wrapped(command.help, width, 0)]
    if command.parameters:
        lines += ["", "Parameters", *_columns([described(each) for each in command.parameters], width)]
    lines += _options(command.text, width)
    if command.examples:
        lines += ["", "For example", *(f"  offsite {each}" for each in command.examples)]  # whole, to be copied
    lines += ["", f"Needs the role {command.role.word}."]
    return "\n".join(lines)


def of_verb(verb: Verb, width: int) -> str:
    return "\n".join([f"offsite {verb.syntax}", "", *_wrapped(verb.help, width, 0), *_options(verb.name, width)])


def _options(command: str, width: int) -> list[str]:
    own: list[Option] = [option for option in OPTIONS if command in option.verbs]
    return ["", "Options", *_columns([(option.syntax, option.help) for option in own], width)] if own else []


def described(parameter: Parameter) -> tuple[str, str]:
    """How it is typed, and what it means."""
    sentences = [parameter.help]
    if parameter.is_secret:
        sentences.append(f"Asked for, or taken from ${parameter.environment}.")
    elif parameter.type is not None:
        sentences += rules(parameter.type)
        if parameter.default is not None:
            sentences.append(f"Default: {written(parameter.type, parameter.default)}.")
    if parameter.needs is not None:
        sentences.append(f"{'Required' if parameter.required else 'Only'} with {parameter.needs}.")
    elif parameter.required and not parameter.is_secret:
        sentences.append("Required.")
    return f"[{parameter.name}]" if parameter.is_secret else parameter.syntax, " ".join(sentences)


def _columns(pairs: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Two columns. What is too long for the left one has lines of its own."""
    most = min(LEFT_MAX, width // 2 - 4)
    left_width = max((len(left) for left, _ in pairs if len(left) <= most), default=4)
    lines = []
    for left, right in pairs:
        explained = _wrapped(right, width, left_width + 4)
        if len(left) <= left_width:
            lines += [f"  {left:<{left_width}}  {explained[0].lstrip()}", *explained[1:]]
        else:
            lines += [*_wrapped(left, width, 2, 4), *explained]
    return lines


def _wrapped(text: str, width: int, indent: int, further: int = 0) -> list[str]:
    """`text` in lines of at most `width`, broken between words only. `further` is how much more than the first line the
    others are indented."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + further),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _first(text: str) -> str:
    """The first sentence."""
    return text.split(". ")[0].removesuffix(".") + "."
