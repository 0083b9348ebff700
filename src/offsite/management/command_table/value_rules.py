"""What a type allows, in the words that refusals, help and the reference page share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from offsite.management.command_table.values import LIST_LENGTH_MAX, TEXT_BYTES_MAX, ValueKind, ValueType
from offsite.units import format_size


def bounds(type: ValueType) -> str:
    """Of a number: from 1 to 3600 seconds, from 1% to 100%."""
    if type.kind is ValueKind.PERCENT:
        return f"from {type.minimum}% to {type.maximum}%"
    unit = f" {type.unit}" if type.unit else ""
    return f"from {type.minimum} to {type.maximum}{unit}"


def rules(type: ValueType) -> Iterator[str]:
    """What is not seen from the placeholder, a sentence for each rule."""
    if type.kind in (ValueKind.INTEGER, ValueKind.PERCENT):
        yield _sentence(bounds(type))
    if type.kind in (ValueKind.TEXT, ValueKind.NAME) and type.maximum != TEXT_BYTES_MAX:
        yield f"At most {type.maximum} bytes."
    if type.form:
        yield f"{type.form}."
    if type.kind is ValueKind.SIZE and not type.form:
        yield "For example 10GiB or 500GB; without a unit, 512-byte blocks."
    if type.list_max:
        most = f", at most {type.list_max}" if type.list_max != LIST_LENGTH_MAX else ""
        yield f"Several are separated by commas{most}."
    for each in type.choices:
        if each.also:
            yield f"{' or '.join(each.also)} means {each.word}."


def written(type: ValueType, value: Any) -> str:
    """A value as it would be typed."""
    if type.kind is ValueKind.BOOLEAN:
        return type.words[0] if value else type.words[1]
    if type.kind is ValueKind.SIZE:
        return format_size(value).replace(" ", "")
    if type.kind is ValueKind.PERCENT:
        return f"{value:g}%"
    return str(value)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
