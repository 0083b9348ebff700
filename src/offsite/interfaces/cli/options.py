"""What stands on a command line besides the words of a command: options. No I/O.

Options begin with `--`, stand anywhere, and take their value as the next argument or behind `=`. After a `--` of
its own, everything is a word.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from offsite.errors import BadParameter
from offsite.management.command_table.command import singular


@dataclass(frozen=True, slots=True)
class Option:
    """An option; without a placeholder it takes no value. `verbs` are those that it belongs to, none means all."""

    name: str
    help: str
    placeholder: str = ""
    verbs: tuple[str, ...] = ()

    @property
    def syntax(self) -> str:
        return f"--{self.name} {self.placeholder}".rstrip()


OPTIONS = (
    Option("state", "The system whose state directory this is; by default, $OFFSITE_STATE.", "DIR"),
    Option("system", "A system elsewhere: https://USER@HOST[:PORT]; by default, $OFFSITE_SYSTEM.", "URL"),
    Option("certificate", "Its certificate; trusts this one instead of the remembered one.", "FILE"),
    Option("fingerprint", "The SHA-256 of its certificate; trusts and remembers it without a question.", "SHA256"),
    Option("json", "The answer as JSON, for programs."),
    Option("yes", "Answers every question with yes."),
    Option("help", "Explains the command in place of doing it."),
    Option("version", "The version of this program."),
    Option("name", "The name of the system; by default, the machine's.", "NAME", ("serve",)),
    Option("listen", "The address to listen on; by default, 127.0.0.1.", "ADDRESS", ("serve",)),
    Option("api-port", "The port of the API; by default, 8443.", "PORT", ("serve",)),
    Option("nbd-port", "The port of NBD; by default, 10809.", "PORT", ("serve",)),
    Option("peer-port", "The port for other systems; by default, 7443.", "PORT", ("serve",)),
    Option("pool-size", "The size of pool A, at the first start; by default, the free space.", "SIZE", ("serve",)),
    Option(
        "new-keys",
        "Makes keys and certificates that were lost anew; peers have to be logged in to again.",
        verbs=("serve",),
    ),
    Option("pool", "The pool of the new volume; by default, A.", "POOL", ("import",)),
    Option(
        "format",
        "The format of FILE, as qemu-img calls it; by default, by the end of its name, and raw.",
        "FORMAT",
        ("import", "export"),
    ),
    Option("overwrite", "Replaces a FILE that is there.", verbs=("export",)),
    Option("wait", "Shows the run until it has ended.", verbs=("replicate",)),
    Option(
        "directory",
        "Where the files go; by default, a directory of the initiator's name.",
        "DIR",
        ("create initiator-certificate",),
    ),
)
_SHORT = {"-h": "--help", "-y": "--yes"}


class OptionError(BadParameter):
    """An option that is unknown, misplaced, or lacks its value."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    words: tuple[str, ...]
    options: dict[str, str]  # "" for those without a value

    @property
    def verb(self) -> str:
        return self.words[0].lower() if self.words else ""

    def begins_with(self, command: str) -> bool:
        """Whether it is this command; nouns may be singular or plural."""
        words = command.split()
        return [singular(word) for word in self.words[: len(words)]] == [singular(word) for word in words]


def parse_options(arguments: Sequence[str]) -> CommandLine:
    """Raises OptionError."""
    known = {option.name: option for option in OPTIONS}
    words: list[str] = []
    options: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        argument = _SHORT.get(argument, argument)
        if argument == "--":
            words.extend(rest)
        elif not argument.startswith("--"):
            words.append(argument)
        else:
            name, equals, value = argument[2:].partition("=")
            option = known.get(name)
            if option is None:
                raise OptionError(f"--{name[:64]} is not an option{_nearest(name, list(known))}")
            if name in options:
                raise OptionError(f"--{name} is given twice")
            if equals and not option.placeholder:
                raise OptionError(f"--{name} takes no value")
            options[name] = value if equals or not option.placeholder else _next(rest, option)
    line = CommandLine(tuple(words), options)
    _check_places(line, known)
    return line


def _next(rest: Iterator[str], option: Option) -> str:
    value = next(rest, None)
    if value is None:
        raise OptionError(f"--{option.name} has no value after it; syntax: {option.syntax}")
    return value


def _check_places(line: CommandLine, known: dict[str, Option]) -> None:
    for name in line.options:
        verbs = known[name].verbs
        if verbs and not any(line.begins_with(verb) for verb in verbs):
            raise OptionError(f"--{name} belongs to {', '.join(verbs)}, not to {line.verb or 'no command'}")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean --{close[0]}?" if close else "; `offsite --help` lists them"


def only_words(line: CommandLine, syntax: str, count: int) -> tuple[str, ...]:
    """The words after a verb. Raises OptionError unless there are `count`."""
    if len(line.words) != count + 1:
        raise OptionError(f"{line.verb} takes {count} words after it; syntax: offsite {syntax}")
    return line.words[1:]


def path(text: str) -> Path:
    return Path(text).expanduser()
