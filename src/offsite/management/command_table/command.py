"""How a command is declared, once, for every face: words, parameters, role, help, and what it does.

The ME4 API, the shells, the command line and the reference page are all made from these declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from keyword import iskeyword
from typing import Any, TypeVar

from offsite.errors import OffsiteError
from offsite.management.command_table.object_types import ObjectType
from offsite.management.command_table.reply import Question, Reply
from offsite.management.command_table.values import ValueKind, ValueType


class Role(IntEnum):
    """What a user may do; a higher role may do all that a lower one may."""

    MONITOR = 1
    MANAGE = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Needs:
    """What a parameter goes together with: another one, or one value of it."""

    parameter: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.parameter} {self.value}".rstrip()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a command.

    A keyword stands before its value, in any order; a positional one has no keyword before it, and stands
    first or last; a flag is a keyword without a value. A positional one that is `named` may have its keyword
    as well, as in `create volume … name Sales`. One that may be `bare` is true without a value. A secret that is
    required but not given is asked for; `environment` names the variable that may hold it. A parameter that `needs`
    another may only be given with it, and with it is required or has its default.
    """

    name: str
    help: str
    type: ValueType | None = None  # None: a flag
    required: bool = False
    default: Any = None  # what the handler gets where nothing is given; None: nothing
    positional: bool = False
    named: bool = False
    bare: bool = False
    needs: Needs | None = None
    environment: str = ""
    new: bool = False  # a secret that is chosen just now

    @property
    def is_flag(self) -> bool:
        return self.type is None

    @property
    def is_secret(self) -> bool:
        return self.type is not None and self.type.kind is ValueKind.SECRET

    @property
    def placeholder(self) -> str:
        """How it is typed, without its name."""
        if self.type is None:
            return ""
        return f"[{self.type.placeholder}]" if self.bare else self.type.placeholder

    @property
    def syntax(self) -> str:
        """How it is typed."""
        return self.placeholder if self.positional else f"{self.name} {self.placeholder}".rstrip()

    @property
    def argument(self) -> str:
        """The name of the handler's argument that takes it; one that is a word of Python ends in `_`."""
        name = self.name.replace("-", "_")
        return f"{name}_" if iskeyword(name) else name


def keyword(
    name: str,
    type: ValueType,
    help: str,
    *,
    required: bool = False,
    default: Any = None,
    bare: bool = False,
    needs: Needs | None = None,
) -> Parameter:
    return Parameter(name, help, type, required=required, default=default, bare=bare, needs=needs)


def positional(name: str, type: ValueType, help: str, *, required: bool = True, named: bool = False) -> Parameter:
    return Parameter(name, help, type, required=required, positional=True, named=named)


def flag(name: str, help: str, *, needs: Needs | None = None) -> Parameter:
    return Parameter(name, help, default=False, needs=needs)


def secret(
    name: str, type: ValueType, help: str, *, environment: str, new: bool = False, needs: Needs | None = None
) -> Parameter:
    return Parameter(name, help, type, required=True, environment=environment, new=new, needs=needs)


@dataclass(frozen=True, slots=True)
class Option:
    """What the command line takes besides the words of a command, as `--name VALUE`; without a type, no value."""

    name: str
    help: str
    type: ValueType | None = None
    default: Any = None

    @property
    def syntax(self) -> str:
        return f"--{self.name} {self.type.noun.upper() if self.type else ''}".rstrip()


Handler = Callable[..., Reply]
"""Takes the context, then by its `argument` each parameter that is given or has a default. A flag is a truth."""

Confirmation = Callable[..., str | Question | None]
"""Takes what the handler takes and returns the question, or None where there is nothing to ask; or raises what the
handler would raise. Called only for what is accepted, and where somebody can answer, or has answered with no."""

Acceptance = Callable[..., None]
"""Takes the context, and by its `argument` each parameter that is known: before the handler is called, what that takes;
when somebody only asks whether the command would be accepted, one of the `targets`. Raises what the objects are refused
with as they are now. It changes nothing, asks no other system and waits for nobody."""

H = TypeVar("H", bound=Handler)


@dataclass(frozen=True, slots=True)
class Command:
    words: tuple[str, ...]
    help: str
    role: Role | None  # None: no system is asked
    subject: str
    parameters: tuple[Parameter, ...]
    handler: Handler
    options: tuple[Option, ...] = ()
    confirmation: Confirmation | None = None  # of what cannot be undone
    alone: bool = True  # it is done while no other such command is
    slow: bool = False  # it may wait for another system, or moves much data
    returns: tuple[ObjectType[Any], ...] = ()
    own_errors: tuple[type[OffsiteError], ...] = ()
    examples: tuple[str, ...] = ()
    acts_on: tuple[str, ...] = ()  # names of parameters; see `targets`
    acceptance: Acceptance | None = None

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def positionals(self) -> tuple[Parameter, ...]:
        return tuple(each for each in self.parameters if each.positional)

    @property
    def targets(self) -> tuple[Parameter, ...]:
        """The parameters that name what the command acts on: where it declares none, the positional ones that have to
        name an object. One that need not is a filter, as of most that show something."""
        if self.acts_on:
            return tuple(each for each in self.parameters if each.name in self.acts_on)
        return tuple(each for each in self.positionals if each.required and each.type and each.type.objects)

    @property
    def syntax(self) -> str:
        """The command as ME4's reference writes it: [optional], <value>, this|that."""
        parts = [*self.words]
        ordered = sorted(self.parameters, key=lambda each: each.positional)  # a stable sort: positional last
        return " ".join(parts + [_syntax(each) for each in ordered])


def _syntax(parameter: Parameter) -> str:
    # A secret is better left out: it is asked for, where nobody else can see it.
    is_needed = parameter.required and parameter.needs is None and not parameter.is_secret
    return parameter.syntax if is_needed else f"[{parameter.syntax}]"


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
        role: Role | None = Role.MANAGE,
        options: tuple[Option, ...] = (),
        confirmation: Confirmation | None = None,
        alone: bool = True,
        slow: bool = False,
        returns: tuple[ObjectType[Any], ...] = (),
        errors: tuple[type[OffsiteError], ...] = (),
        examples: tuple[str, ...] = (),
        acts_on: tuple[str, ...] = (),
        acceptance: Acceptance | None = None,
    ) -> Callable[[H], H]:
        """Declares the decorated function to be what the command `words` does. What a monitor may do changes nothing,
        and needs not be alone. `errors` are those that it may answer beyond what any command with its parameters
        may."""

        def declare(handler: H) -> H:
            self.commands.append(
                Command(
                    words=tuple(words.split()),
                    help=help,
                    role=role,
                    subject=self.title,
                    parameters=parameters,
                    handler=handler,
                    options=options,
                    confirmation=confirmation,
                    alone=alone and role is not Role.MONITOR,
                    slow=slow,
                    returns=returns,
                    own_errors=errors,
                    examples=examples,
                    acts_on=acts_on,
                    acceptance=acceptance,
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
