"""The types of objects that commands answer with: each property is declared once, with all that any face has to know.

A row is made from an object of the domain by the declarations themselves: `VOLUME.row(view)`. Tables for people, JSON
for programs and ME4's XML come out of the same row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, TypeVar

Value = str | int | float | bool | None
Number = int | float | None

D = TypeVar("D")
"""The class of the objects in the domain that rows are made from."""


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


MEASURED = frozenset({Kind.SIZE, Kind.TIME, Kind.DURATION, Kind.PERCENT, Kind.RATE})
"""Written with a unit for people; so programs get the number itself as well."""


@dataclass(frozen=True, slots=True)
class Property(Generic[D]):
    """A property of a type of object. Without a heading it is for programs, and left out of tables; one that is
    `seldom` there has a column only when an object of the table has something in it.

    Programs get the number `X-numeric` beside the text of a property X: of a measured one its value, of one that has
    `codes` the code of its word, and of one with a `twin` what that returns. One that an answer from another system
    tells of has no `value`: its rows are there already.
    """

    name: str
    heading: str = ""
    kind: Kind = Kind.TEXT
    seldom: bool = False
    value: Callable[[D], Value] | None = field(default=None, compare=False, repr=False)
    twin: Callable[[D], Number] | None = field(default=None, compare=False, repr=False)
    codes: Mapping[str, int] | None = field(default=None, compare=False)  # the words that it may have
    unit: str = field(default="", compare=False)
    display_name: str = field(default="", compare=False)  # ME4's, where it is not the name in other letters
    key: bool = field(default=False, compare=False)  # names the object, and no other of its type
    of_type: str = field(default="", compare=False)  # basetype of the object that it names
    words: tuple[str, str] = field(default=("No", "Yes"), compare=False)  # ME4's for a yes-no

    @property
    def me4_display_name(self) -> str:
        return self.display_name or self.name.replace("-", " ").title()

    @property
    def has_twin(self) -> bool:
        return self.kind in MEASURED or self.codes is not None or self.twin is not None

    def separate_twin(self) -> Property[D] | None:
        """The twin as a property of its own, unless it is the very value."""
        number: Callable[[D], Number] | None = self.twin
        if self.codes is not None:
            codes = self.codes
            number = lambda found: codes.get(str(self.of(found)))  # noqa: E731
        return None if number is None else Property(f"{self.name}-numeric", kind=Kind.NUMBER, value=number)

    def of(self, found: D) -> Value:
        assert self.value is not None, f"{self.name} is of an answer from elsewhere"
        return self.value(found)


@dataclass(frozen=True)
class ObjectType(Generic[D]):
    """A type of object: its basetype and name, and its properties in the order in which they are shown. Both are ME4's,
    but for a basetype that is told apart as `me4_basetype`.

    A `record` is shown as one line for each property, everything else as a row of a table. Objects that are
    `joined` are shown in the rows of the objects that they are part of; other parts are left out of tables.
    """

    basetype: str
    name: str
    properties: tuple[Property[D], ...]
    record: bool = False
    joined: bool = False
    me4_basetype: str = field(default="", compare=False)

    @cached_property
    def all_properties(self) -> tuple[Property[D], ...]:
        """With the twins that are values of their own, each after what it is the twin of."""
        pairs = ((each, each.separate_twin()) for each in self.properties)
        return tuple(each for pair in pairs for each in pair if each is not None)

    def row(self, found: D, parts: Sequence[Row] = ()) -> Row:
        """What is told about `found`, and about the objects that are part of it."""
        return Row(self, tuple(each.of(found) for each in self.all_properties), tuple(parts))


@dataclass(frozen=True, slots=True)
class Row:
    """One object: a value for each of all properties of its type, and the objects that are part of it."""

    type: ObjectType[Any]
    values: tuple[Value, ...]
    parts: tuple[Row, ...] = ()

    def get(self, property_name: str) -> Value:
        """As with brackets; none where the type has no such property, as an answer from elsewhere may."""
        return next((self[each.name] for each in self.type.all_properties if each.name == property_name), None)

    def __getitem__(self, property_name: str) -> Value:
        return self.values[[each.name for each in self.type.all_properties].index(property_name)]
