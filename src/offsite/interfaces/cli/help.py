"""Help, made from the declarations of the commands, at the width of the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from offsite.interfaces.cli.options import OPTIONS
from offsite.management.command_table.command import Command, Option, Parameter, Table
from offsite.management.command_table.value_rules import rules, written

LEFT_MAX = 34


def overview(table: Table, width: int) -> str:
    """All commands, by subject."""
    lines = [
        *_wrapped("offsite [--state DIR | --system https://USER@HOST] COMMAND…", width, 0, 4),
        "",
        *_wrapped(
            "The parameters of a command can be given in any order. `offsite COMMAND --help` explains the command.",
            width,
            0,
        ),
    ]
    subjects: dict[str, list[Command]] = {}
    for command in table:
        subjects.setdefault(command.subject, []).append(command)
    for subject, commands in subjects.items():
        lines += ["", subject, *_columns([(command.text, _first(command.help)) for command in commands], width)]
    everywhere = [described_option(each) for each in OPTIONS]
    lines += ["", "Options", *_columns(everywhere, width), ""]
    lines += _wrapped(
        "Exit status: 0 success, 1 refused or failed, 2 wrong usage, 3 request dropped (replicate).", width, 0
    )
    return "\n".join(lines)


def of_command(command: Command, width: int) -> str:
    lines = [*_wrapped(f"offsite {command.syntax}", width, 0, 4), "", *_wrapped(command.help, width, 0)]
    if command.parameters:
        lines += ["", "Parameters", *_columns([described(each) for each in command.parameters], width)]
    if command.options:
        lines += ["", "Options", *_columns([described_option(each) for each in command.options], width)]
    if command.examples:
        lines += ["", "For example", *(f"  offsite {each}" for each in command.examples)]  # whole, to be copied
    if command.role is not None:
        lines += ["", f"Requires the role {command.role.word}."]
    return "\n".join(lines)


def described(parameter: Parameter) -> tuple[str, str]:
    """How it is typed, and what it means."""
    sentences = [parameter.help]
    if parameter.is_secret:
        sentences.append(f"Prompted for, or taken from ${parameter.environment}.")
    elif parameter.type is not None:
        sentences += rules(parameter.type)
        if parameter.default is not None:
            sentences.append(f"Default: {written(parameter.type, parameter.default)}.")
    if parameter.needs is not None:
        sentences.append(f"{'Required' if parameter.required else 'Only'} with {parameter.needs}.")
    elif parameter.required and not parameter.is_secret:
        sentences.append("Required.")
    return f"[{parameter.name}]" if parameter.is_secret else parameter.syntax, " ".join(sentences)


def described_option(option: Option) -> tuple[str, str]:
    sentences = [option.help]
    if option.type is not None:
        if option.type.choices:
            sentences.append(f"One of {', '.join(option.type.words)}.")
        sentences += rules(option.type)
        if option.default is not None:
            sentences.append(f"Default: {written(option.type, option.default)}.")
    return option.syntax, " ".join(sentences)


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
