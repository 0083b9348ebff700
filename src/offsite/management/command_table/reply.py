"""What a command answers: a neutral structure that every face shows in its own way.

An object is of a type that is declared once: its names on the ME4 interface, and its properties with what
their values mean. So a table for people, JSON for programs, and ME4's XML come out of the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

Value = str | int | float | bool | None


class Kind(StrEnum):
    """What a value means, and with it how it is shown."""

    TEXT = "text"
    NUMBER = "number"
    SIZE = "size"  # bytes
    TIME = "time"  # seconds since the epoch, UTC
    DURATION = "duration"  # seconds
    PERCENT = "percent"  # 0 to 100
    RATE = "rate"  # bytes per second
    YES_NO = "yes-no"


@dataclass(frozen=True, slots=True)
class Property:
    """A property of a type of object. Without a heading it is for programs, and left out of tables; one that is
    `seldom` there has a column only when an object of the table has something in it."""

    name: str
    heading: str = ""
    kind: Kind = Kind.TEXT
    seldom: bool = False


@dataclass(frozen=True, slots=True)
class ObjectType:
    """A type of object: ME4's basetype and name, and its properties in the order in which they are shown.

    A `record` is shown as one line for each property, everything else as a row of a table. Objects that are
    `joined` are shown in the rows of the objects that they are part of; other parts are left out of tables.
    """

    basetype: str
    name: str
    properties: tuple[Property, ...]
    record: bool = False
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One object: a value for each property of its type, and the objects that are part of it."""

    type: ObjectType
    values: tuple[Value, ...]
    parts: tuple[Row, ...] = ()

    def get(self, property_name: str) -> Value:
        """As with brackets; none where the type has no such property, as an answer from elsewhere may."""
        return next((self[each.name] for each in self.type.properties if each.name == property_name), None)

    def __getitem__(self, property_name: str) -> Value:
        return self.values[[each.name for each in self.type.properties].index(property_name)]


@dataclass(frozen=True, slots=True)
class Reply:
    """A command that was done: a sentence for people, and the objects that it is about."""

    message: str = ""
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be answered before a command is done. Nothing was changed yet.

    With a `secret`, the answer is the value of that parameter, which has no place among arguments that others
    can see; `new` says that it is being chosen just now, so that it is asked twice. Which variable of the
    environment may hold it is for the face to know, and never for the system that asks: it could name any.
    Without a secret, the answer is yes or no; with yes, the words `adds` join those of the command, so that what is
    done is what was shown.
    """

    text: str
    secret: str = ""
    new: bool = False
    adds: tuple[str, ...] = ()


def row(type: ObjectType, values: Mapping[str, Value], parts: Sequence[Row] = ()) -> Row:
    """A row of `type`. `values` has a value for each of its properties, by name, and no other."""
    names = [each.name for each in type.properties]
    if set(values) != set(names):
        raise KeyError(f"{type.name}: {sorted(set(values) ^ set(names))}")
    return Row(type, tuple(values[name] for name in names), tuple(parts))
