"""From text to a value, by its type alone. No I/O.

Text comes from outside: what is refused is refused with the value, the rule that it breaks, and what would be right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from offsite.errors import BadParameter
from offsite.escaping import shown
from offsite.management.command_table.value_rules import bounds
from offsite.management.command_table.values import ValueKind, ValueType
from offsite.names import check_name
from offsite.units import parse_size

_DIGITS_MAX = 18


def parse(type: ValueType, text: str) -> Any:
    """The value that `text` stands for. Raises BadParameter."""
    if type.list_max:
        return tuple(_one(type, each) for each in _split(type, text))
    return _one(type, text)


def _one(type: ValueType, text: str) -> Any:
    if type.parser is not None:
        return type.parser(text)
    return _PARSERS.get(type.kind, _text)(type, text)


def _split(type: ValueType, text: str) -> list[str]:
    noun, found = type.noun, text.split(",")
    if not all(found):
        raise BadParameter(f"{noun}s {shown(text)} has an empty part; write A or A,B without spaces")
    if len(found) > type.list_max:
        raise BadParameter(f"{len(found)} {noun}s are given; at most {type.list_max} are allowed in one command")
    for each in found:
        if found.count(each) > 1:
            raise BadParameter(f"{noun} {shown(each)} is listed twice in {shown(text)}; once is enough")
    return found


def _text(type: ValueType, text: str) -> str:
    length = len(text.encode(errors="surrogatepass"))
    if not type.minimum <= length <= type.maximum:
        raise BadParameter(
            f"{type.noun} {shown(text)} has {length} bytes; {type.minimum} to {type.maximum} are allowed"
        )
    if not text.isprintable():
        raise BadParameter(f"{type.noun} {shown(text)} has characters that cannot be printed")
    bad = sorted(set(text) & set(type.forbidden))
    if bad:
        raise BadParameter(
            f"{type.noun} {shown(text)} has {' '.join(map(repr, bad))}; none of {' '.join(type.forbidden)} is allowed"
        )
    return text


def _name(type: ValueType, text: str) -> str:
    return check_name(text, f"{type.noun} name")


def _as_it_is(_type: ValueType, text: str) -> str:
    return text


def _choice(type: ValueType, text: str) -> str:
    word = _word(type, text)
    if word is None:
        raise BadParameter(f"{shown(text)} is not one of {', '.join(type.words)}")
    return word


def _boolean(type: ValueType, text: str) -> bool:
    return _choice(type, text) == type.words[0]


def _integer(type: ValueType, text: str) -> int:
    if not _is_within(type, text):
        raise BadParameter(f"{shown(text)} is not a whole number {bounds(type)}")
    return int(text)


def _percent(type: ValueType, text: str) -> float:
    digits = text.removesuffix("%")
    if not _is_within(type, digits):
        raise BadParameter(f"{shown(text)} is not a percentage {bounds(type)}")
    return float(digits)


def _is_within(type: ValueType, digits: str) -> bool:
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX
    return is_number and type.minimum <= int(digits) <= type.maximum


def _size(type: ValueType, text: str) -> int | None:
    """None for the word that may stand in place of a size."""
    return None if _word(type, text) is not None else parse_size(_text(type, text))


def _word(type: ValueType, text: str) -> str | None:
    lower = text.lower()
    found = (each.word for each in type.choices if lower in [one.lower() for one in each.spellings])
    return next(found, None)


_PARSERS: Mapping[ValueKind, Callable[[ValueType, str], Any]] = {
    ValueKind.NAME: _name,
    ValueKind.SECRET: _as_it_is,
    ValueKind.PATH: _as_it_is,
    ValueKind.CHOICE: _choice,
    ValueKind.BOOLEAN: _boolean,
    ValueKind.INTEGER: _integer,
    ValueKind.PERCENT: _percent,
    ValueKind.SIZE: _size,
}
