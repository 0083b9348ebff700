"""Rows of types that have no objects: as they come from another system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from offsite.management.command_table.object_types import ObjectType, Row, Value


def row(type: ObjectType[Any], values: Mapping[str, Value], parts: Sequence[Row] = ()) -> Row:
    """A row of `type`. `values` has a value for each of its properties, by name, and no other."""
    names = [each.name for each in type.all_properties]
    assert set(values) == set(names)
    return Row(type, tuple(values[name] for name in names), tuple(parts))
