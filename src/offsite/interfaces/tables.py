"""Answers as aligned tables, for people and for pipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from offsite.interfaces.values_shown import format_value, printable
from offsite.management.reply import Kind, ObjectType, Property, Reply, Row

_RIGHT = {Kind.NUMBER, Kind.SIZE, Kind.DURATION, Kind.PERCENT, Kind.RATE}
_PIPE_COLUMNS = 100_000  # a pipe has no width: nothing is folded or cut


def print_reply(reply: Reply, output: TextIO) -> None:
    """The objects of `reply`, then its sentence."""
    console = Console(
        file=output,
        width=None if output.isatty() else _PIPE_COLUMNS,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not output.isatty(),
    )
    for type in dict.fromkeys(row.type for row in reply.rows):
        rows = [row for row in reply.rows if row.type is type or row.type == type]
        console.print(_record(rows) if type.record else _table(type, rows))
    if reply.message:
        console.print(Text(printable(reply.message)), soft_wrap=True)


def _table(type: ObjectType, rows: Sequence[Row]) -> Table:
    columns = [each for part in _types(type, rows) for each in part.properties if _has_column(each, part, rows)]
    lines = [line for row in rows for line in _lines(row, columns)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.kind in _RIGHT else "left",
            overflow="fold",
            no_wrap=column.kind is not Kind.TEXT,
        )
    for line in lines:
        table.add_row(*(Text(each) for each in line))
    return table


def _types(type: ObjectType, rows: Sequence[Row]) -> list[ObjectType]:
    """The type of the rows, and of the parts that are joined to them."""
    joined = dict.fromkeys(part.type for row in rows for part in row.parts if part.type.joined)
    return [type, *joined]


def _has_column(property: Property, type: ObjectType, rows: Sequence[Row]) -> bool:
    if not property.heading or not property.seldom:
        return bool(property.heading)
    objects = [each for row in rows for each in (row, *row.parts) if each.type == type]
    return any(each[property.name] not in (None, "") for each in objects)


def _lines(row: Row, columns: Sequence[Property]) -> list[list[str]]:
    """A line for each joined part; one line when there is none."""
    own = _cells(row, columns)
    joined = [part for part in row.parts if part.type.joined]
    return [own + _cells(part, columns) for part in joined] or [own]


def _cells(row: Row, columns: Sequence[Property]) -> list[str]:
    pairs = zip(row.type.properties, row.values, strict=True)
    return [format_value(each.kind, value) for each, value in pairs if each in columns]


def _record(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        for each, value in zip(row.type.properties, row.values, strict=True):
            if each.heading:
                table.add_row(f"{each.heading}:", Text(format_value(each.kind, value)))
    return table
