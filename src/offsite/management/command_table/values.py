"""The types that parameters of commands have, as data: the kind of a value, its limits, its words.

The parser, refusals, help, the reference page and completion are all made from these. `value_parser` takes text by
them, `value_rules` tells them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from offsite.names import NAME_BYTES_MAX

TEXT_BYTES_MAX = 1024
LIST_LENGTH_MAX = 1024


class ValueKind(StrEnum):
    """What a value is. The kinds from TIME on have a way of writing of their own, which `ValueType.parser` reads."""

    TEXT = "text"
    PATH = "path"  # of this machine
    NAME = "name"  # of a new object
    REFERENCE = "reference"  # an object that is there
    SECRET = "secret"
    CHOICE = "choice"
    BOOLEAN = "boolean"  # two choices, the first of which is true
    INTEGER = "integer"
    PERCENT = "percent"
    SIZE = "size"  # bytes
    TIME = "time"
    EVENT = "event"
    RATE = "rate"  # bytes a second
    CALENDAR = "calendar"
    SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True)
class Choice:
    """A word that a value may be; ME4's number for it, where it has one; other spellings."""

    word: str
    code: int | None = None
    also: tuple[str, ...] = ()

    @property
    def spellings(self) -> tuple[str, ...]:
        return (self.word, *self.also)


@dataclass(frozen=True, slots=True)
class ValueType:
    """`minimum` and `maximum` are of a number, or of the bytes of a text. `choices` are all values of a CHOICE or a
    BOOLEAN, and for other kinds words that may stand in place of a value. `objects` are the kinds of objects that a
    REFERENCE may be to. With a `list_max` there may be so many, with commas between them. `form` tells how a value is
    written, where the kind does not."""

    kind: ValueKind
    noun: str = ""
    minimum: int = 1
    maximum: int = TEXT_BYTES_MAX
    unit: str = ""
    choices: tuple[Choice, ...] = ()
    objects: tuple[str, ...] = ()
    list_max: int = 0
    forbidden: str = ""  # characters that no text of this type has, beside those that cannot be printed
    form: str = ""
    parser: Callable[[str], Any] | None = None

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(each.word for each in self.choices)

    @property
    def placeholder(self) -> str:
        """What stands for the value in a syntax."""
        if self.kind in (ValueKind.CHOICE, ValueKind.BOOLEAN):
            return "|".join(self.words)
        value = "#" if self.kind is ValueKind.INTEGER else f"<{self.noun}{'s' if self.list_max else ''}>"
        return "|".join((value, *self.words))


def name(noun: str) -> ValueType:
    """The name of a new object: `offsite.names` has the rules."""
    return ValueType(ValueKind.NAME, noun, maximum=NAME_BYTES_MAX)


def names(noun: str, list_max: int = LIST_LENGTH_MAX) -> ValueType:
    return replace(name(noun), list_max=list_max)


def reference(noun: str, *or_noun: str, or_all: bool = False) -> ValueType:
    """An object that is there, by whatever identifies it. `or_noun` are other kinds of objects that it may be."""
    every = (Choice("all"),) if or_all else ()
    return ValueType(ValueKind.REFERENCE, noun, objects=(noun, *or_noun), choices=every)


def references(noun: str, *or_noun: str, list_max: int = LIST_LENGTH_MAX, or_all: bool = False) -> ValueType:
    """Objects that are there, none twice."""
    return replace(reference(noun, *or_noun, or_all=or_all), list_max=list_max)


def text(noun: str, maximum: int = TEXT_BYTES_MAX, *, forbidden: str = "") -> ValueType:
    return ValueType(ValueKind.TEXT, noun, maximum=maximum, forbidden=forbidden)


def secret(noun: str) -> ValueType:
    """A password. Its own rules are checked where it is used, so that no sentence repeats it."""
    return ValueType(ValueKind.SECRET, noun)


def path(noun: str) -> ValueType:
    """A file or directory of the machine on which the command is typed."""
    return ValueType(ValueKind.PATH, noun)


def choice(*choices: str | Choice, noun: str = "") -> ValueType:
    return ValueType(
        ValueKind.CHOICE, noun, choices=tuple(Choice(each) if isinstance(each, str) else each for each in choices)
    )


def boolean(true: str | Choice = "yes", false: str | Choice = "no") -> ValueType:
    return replace(choice(true, false), kind=ValueKind.BOOLEAN)


def integer(minimum: int, maximum: int, unit: str = "", *, noun: str = "number") -> ValueType:
    return ValueType(ValueKind.INTEGER, noun, minimum, maximum, unit)


def percent() -> ValueType:
    return ValueType(ValueKind.PERCENT, "percent", 1, 100, "%")


def size() -> ValueType:
    """Bytes. What a size may be is up to the pool that it is for."""
    return ValueType(ValueKind.SIZE, "size", 1, 64)


def size_or_max() -> ValueType:
    """Bytes, or None for `max`."""
    return replace(size(), choices=(Choice("max"),))


def special(
    kind: ValueKind,
    noun: str,
    form: str = "",
    parser: Callable[[str], Any] | None = None,
    *,
    maximum: int = TEXT_BYTES_MAX,
    or_word: str = "",
) -> ValueType:
    """A value with a way of writing of its own, which `parser` reads; or the handler, where it takes more than text."""
    words = (Choice(or_word),) if or_word else ()
    return ValueType(kind, noun, maximum=maximum, choices=words, form=form, parser=parser)
