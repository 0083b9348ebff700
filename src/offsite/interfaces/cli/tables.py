"""Answers as aligned tables, for people and for pipes.

Nothing is ever cut. A table that is too wide for the terminal wraps its long sentences; one that is too wide even so
becomes a record for each object: a line for each property.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from offsite.escaping import escaped, escaped_lines
from offsite.interfaces.encoding.values_shown import cells
from offsite.management.command_table.object_types import Kind, ObjectType, Property, Row
from offsite.management.command_table.reply import Reply

_RIGHT = {Kind.NUMBER, Kind.SIZE, Kind.DURATION, Kind.PERCENT, Kind.RATE}
_PIPE_COLUMNS = 100_000  # a pipe has no width: nothing is wrapped
_UNBROKEN_COLUMNS = 40  # names and other short values stay in one line
_BETWEEN_COLUMNS = 3


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
        columns = [each for part in _types(type, rows) for each in part.properties if _has_column(each, part, rows)]
        lines = [line for row in rows for line in _lines(row, columns)]
        widths = None if type.record else _widths(columns, lines, console.width)
        if widths is None:
            _print_records(console, columns, lines)
        else:
            console.print(_table(columns, lines, widths))
    if reply.message:
        console.print(Text(escaped_lines(reply.message)), soft_wrap=True)


def _heading(property: Property[Any]) -> str:
    """It comes from the system that is asked, which may be a hostile one."""
    return escaped(property.heading)


def _widths(columns: Sequence[Property[Any]], lines: Sequence[Sequence[str]], most: int) -> list[int] | None:
    """How wide each column is, so that all of them fit into `most` with nothing cut. None: they cannot."""
    cells = [[_heading(column), *(line[at] for line in lines)] for at, column in enumerate(columns)]
    widths = [max(cell_len(each) for each in column) for column in cells]
    least = [
        max(_least(each) for each in column) if property.kind is Kind.TEXT else width
        for property, column, width in zip(columns, cells, widths, strict=True)
    ]
    too_wide = sum(widths) + _BETWEEN_COLUMNS * (len(widths) - 1) - most
    while too_wide > 0:
        widest = max(range(len(widths)), key=lambda at: widths[at] - least[at])
        spare = widths[widest] - least[widest]
        if spare == 0:
            return None
        taken = min(too_wide, spare)
        widths[widest] -= taken
        too_wide -= taken
    return widths


def _least(cell: str) -> int:
    """How narrow a column may be for this cell, if it may go over several lines between its words."""
    if cell_len(cell) <= _UNBROKEN_COLUMNS:
        return cell_len(cell)
    return max(_UNBROKEN_COLUMNS, *(cell_len(word) for word in cell.split()))


def _table(columns: Sequence[Property[Any]], lines: Sequence[Sequence[str]], widths: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            _heading(column), justify="right" if column.kind in _RIGHT else "left", overflow="fold", width=width
        )
    for line in lines:
        table.add_row(*(Text(each) for each in line))
    return table


def _print_records(console: Console, columns: Sequence[Property[Any]], lines: Sequence[Sequence[str]]) -> None:
    """The terminal itself wraps a line that is too long, so that what is copied from it is whole."""
    label = max((cell_len(_heading(each)) for each in columns), default=0) + len(":  ")
    for number, line in enumerate(lines):
        if number:
            console.print()
        for column, value in zip(columns, line, strict=True):
            label_text = f"{_heading(column)}:"
            padding = " " * (label - cell_len(label_text)) if value else ""
            console.print(Text.assemble((label_text, "bold"), padding, value), soft_wrap=True)


def _types(type: ObjectType[Any], rows: Sequence[Row]) -> list[ObjectType[Any]]:
    """The type of the rows, and of the parts that are joined to them."""
    joined = dict.fromkeys(part.type for row in rows for part in row.parts if part.type.joined)
    return [type, *joined]


def _has_column(property: Property[Any], type: ObjectType[Any], rows: Sequence[Row]) -> bool:
    if not property.heading or not property.seldom:
        return bool(property.heading)
    objects = [each for row in rows for each in (row, *row.parts) if each.type == type]
    return any(each[property.name] not in (None, "") for each in objects)


def _lines(row: Row, columns: Sequence[Property[Any]]) -> list[list[str]]:
    """A line for each joined part; one line when there is none."""
    own = _cells(row, columns)
    joined = [part for part in row.parts if part.type.joined]
    return [own + _cells(part, columns) for part in joined] or [own]


def _cells(row: Row, columns: Sequence[Property[Any]]) -> list[str]:
    return [each.text for each in cells(row) if each.property in columns]
