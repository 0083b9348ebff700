"""How values of each kind are written for people, and what programs get beside that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from offsite.escaping import escaped
from offsite.management.command_table.object_types import MEASURED, Kind, Property, Row, Value
from offsite.units import format_size


@dataclass(frozen=True, slots=True)
class Cell:
    """One property of one object: its value, that as people read it, and the number that goes with it."""

    property: Property[Any]
    value: Value
    text: str
    twin: Value = None  # none also where the property has no twin


def cells(row: Row) -> Iterator[Cell]:
    """What every face shows of a row, in the order of its properties."""
    values = iter(row.values)
    for each in row.type.properties:
        value = next(values)
        twin = value if each.kind in MEASURED else next(values) if each.has_twin else None
        yield Cell(each, value, format_value(each.kind, value), twin)


def format_value(kind: Kind, value: Value) -> str:
    """A value as people read it; nothing for one that is not known."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return _format_number(kind, value)
    return escaped(value)


def _format_number(kind: Kind, value: int | float) -> str:
    match kind:
        case Kind.SIZE:
            return format_size(int(value))
        case Kind.RATE:
            return f"{format_size(int(value))}/s"
        case Kind.PERCENT:
            return f"{value:.0f} %"
        case Kind.TIME:
            return datetime.fromtimestamp(value).strftime("%Y-%m-%d %H:%M:%S")
        case Kind.DURATION:
            return format_duration(value)
        case _:
            return str(value)


def format_duration(seconds: float) -> str:
    """Never negative: clocks are set while what is measured goes on."""
    seconds = max(seconds, 0.0)
    if round(seconds, 2) < 10:
        return f"{seconds:.2f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
