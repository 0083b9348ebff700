"""How a command is declared, once, for every face: words, parameters, role, help, and what it does.

The ME4 API, the shells, the command line and the reference page are all made from these declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from keyword import iskeyword
from typing import TypeVar

from offsite.management.command_table.reply import Question, Reply
from offsite.management.command_table.values import ValueType


class Role(IntEnum):
    """What a user may do; a higher role may do all that a lower one may."""

    MONITOR = 1
    MANAGE = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a command.

    A keyword stands before its value, in any order; a positional one has no keyword before it, and stands
    first or last; a flag is a keyword without a value. A positional one that is `named` may have its keyword
    as well, as in `create volume … name Sales`. A secret that is required but not given is asked for;
    `environment` names the variable that may hold it.
    """

    name: str
    help: str
    type: ValueType | None = None  # None: a flag
    required: bool = False
    positional: bool = False
    named: bool = False
    environment: str = ""
    new: bool = False  # a secret that is chosen just now
    along_with: str = ""  # a secret that is only asked for when this other parameter is given

    @property
    def is_flag(self) -> bool:
        return self.type is None

    @property
    def is_secret(self) -> bool:
        return self.type is not None and self.type.secret

    @property
    def argument(self) -> str:
        """The name of the handler's argument that takes it; one that is a word of Python ends in `_`."""
        name = self.name.replace("-", "_")
        return f"{name}_" if iskeyword(name) else name


def keyword(name: str, type: ValueType, help: str, *, required: bool = False) -> Parameter:
    return Parameter(name, help, type, required=required)


def positional(name: str, type: ValueType, help: str, *, required: bool = True, named: bool = False) -> Parameter:
    return Parameter(name, help, type, required=required, positional=True, named=named)


def flag(name: str, help: str) -> Parameter:
    return Parameter(name, help)


def secret(
    name: str, type: ValueType, help: str, *, environment: str, new: bool = False, along_with: str = ""
) -> Parameter:
    return Parameter(name, help, type, required=not along_with, environment=environment, new=new, along_with=along_with)


Handler = Callable[..., Reply]
"""Takes the context, then each given parameter by its `argument`. A flag is True when given."""

Confirmation = Callable[..., str | Question | None]
"""Takes what the handler takes and returns the question, or None where there is nothing to ask; or raises what the
handler would raise. Called only where somebody can answer, or has answered with no."""

H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True)
class Command:
    words: tuple[str, ...]
    help: str
    role: Role
    subject: str
    parameters: tuple[Parameter, ...]
    handler: Handler
    confirmation: Confirmation | None = None  # of what cannot be undone
    long: bool = False  # waits for another system or moves much data: does not hold up other commands
    examples: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def positional(self) -> Parameter | None:
        return next((each for each in self.parameters if each.positional), None)

    @property
    def syntax(self) -> str:
        """The command as ME4's reference writes it: [optional], <value>, this|that."""
        parts = [*self.words]
        ordered = sorted(self.parameters, key=lambda each: each.positional)  # a stable sort: positional last
        return " ".join(parts + [_syntax(each) for each in ordered])


def _syntax(parameter: Parameter) -> str:
    if parameter.type is None:
        return f"[{parameter.name}]"
    value = parameter.type.placeholder
    text = value if parameter.positional else f"{parameter.name} {value}"
    # A secret is better left out: it is asked for, where nobody else can see it.
    return text if parameter.required and not parameter.is_secret else f"[{text}]"


@dataclass
class Subject:
    """The commands of one subject, in the order in which they are declared."""

    title: str
    commands: list[Command] = field(default_factory=list)

    def command(
        self,
        words: str,
        help: str,
        *parameters: Parameter,
        role: Role = Role.MANAGE,
        confirmation: Confirmation | None = None,
        long: bool = False,
        examples: tuple[str, ...] = (),
    ) -> Callable[[H], H]:
        """Declares the decorated function to be what the command `words` does."""

        def declare(handler: H) -> H:
            self.commands.append(
                Command(
                    words=tuple(words.split()),
                    help=help,
                    role=role,
                    subject=self.title,
                    parameters=parameters,
                    handler=handler,
                    confirmation=confirmation,
                    long=long,
                    examples=examples,
                )
            )
            return handler

        return declare


class Table:
    """All commands, found by their words."""

    def __init__(self, subjects: Iterable[Subject]) -> None:
        self._commands = {
            tuple(map(singular, command.words)): command for subject in subjects for command in subject.commands
        }

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def get(self, words: tuple[str, ...]) -> Command | None:
        """The command of exactly these words; nouns may be singular or plural, letters of either case."""
        return self._commands.get(tuple(map(singular, words)))


def singular(word: str) -> str:
    """One form for `volume` and `Volumes`, so that either may be written."""
    lower = word.lower()
    return lower[:-1] if lower.endswith("s") and not lower.endswith("ss") else lower
