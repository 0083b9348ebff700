"""The types that parameters of commands have: how a value is written, and its limits.

Each parser takes text from outside and returns a value, or raises BadParameter that names the value, the
rule that it breaks, and what would be right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from offsite.errors import BadParameter
from offsite.escaping import shown
from offsite.names import check_name
from offsite.units import parse_size

TEXT_BYTES_MAX = 1024
LIST_LENGTH_MAX = 1024


@dataclass(frozen=True, slots=True)
class ValueType:
    """`placeholder` stands for the value in a syntax; `choices` are all values there are, when they are few."""

    placeholder: str
    parse: Callable[[str], Any]
    choices: tuple[str, ...] = ()
    secret: bool = False


def name(noun: str) -> ValueType:
    """The name of a new object: `offsite.names` has the rules."""
    return ValueType(f"<{noun}>", lambda text: check_name(text, f"{noun} name"))


def names(noun: str, length_max: int = LIST_LENGTH_MAX) -> ValueType:
    """Names of new objects, with commas between them."""
    split = references(noun, length_max)

    def parse(text: str) -> tuple[str, ...]:
        return tuple(check_name(each, f"{noun} name") for each in split.parse(text))

    return ValueType(f"<{noun}s>", parse)


def reference(noun: str) -> ValueType:
    """An object that is there, by whatever identifies it."""
    return ValueType(f"<{noun}>", lambda text: _text(text, noun, TEXT_BYTES_MAX))


def references(noun: str, length_max: int = LIST_LENGTH_MAX) -> ValueType:
    """Objects that are there, with commas between them, none twice."""

    def parse(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if not all(found):
            raise BadParameter(f"{noun}s {shown(text)} has an empty part; write A or A,B without spaces between")
        if len(found) > length_max:
            raise BadParameter(f"{len(found)} {noun}s are listed; at most {length_max} are allowed in one command")
        for each in found:
            if found.count(each) > 1:
                raise BadParameter(f"{noun} {shown(each)} is listed twice in {shown(text)}; once is enough")
        return tuple(_text(each, noun, TEXT_BYTES_MAX) for each in found)

    return ValueType(f"<{noun}s>", parse)


def text(noun: str, bytes_max: int = TEXT_BYTES_MAX) -> ValueType:
    return ValueType(f"<{noun}>", lambda value: _text(value, noun, bytes_max))


def secret(noun: str) -> ValueType:
    """A password. Its own rules are checked where it is used, so that no sentence repeats it."""
    return ValueType(f"<{noun}>", lambda value: value, secret=True)


def choice(*values: str, **also: str) -> ValueType:
    """One of `values`; `also` maps other spellings to them."""

    def parse(text: str) -> str:
        lower = text.lower()
        if lower in values:
            return lower
        if lower in also:
            return also[lower]
        raise BadParameter(f"{shown(text)} is none of {', '.join(values)}")

    return ValueType("|".join(values), parse, choices=(*values, *also))


def boolean(true: str = "yes", false: str = "no") -> ValueType:
    word = choice(true, false)
    return ValueType(word.placeholder, lambda text: word.parse(text) == true, choices=word.choices)


def integer(minimum: int, maximum: int) -> ValueType:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or len(text) > 18 or not minimum <= int(text) <= maximum:
            raise BadParameter(f"{shown(text)} is not a whole number from {minimum} to {maximum}")
        return int(text)

    return ValueType("#", parse)


def percent() -> ValueType:
    def parse(text: str) -> float:
        digits = text.removesuffix("%")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 3 or not 1 <= int(digits) <= 100:
            raise BadParameter(f"{shown(text)} is not a percentage from 1% to 100%")
        return float(digits)

    return ValueType("<percent>", parse)


def size() -> ValueType:
    """Bytes. What a size may be is up to the pool that it is for."""
    return ValueType("<size>", lambda value: parse_size(_text(value, "size", 64)))


def size_or_max() -> ValueType:
    """Bytes, or None for `max`."""
    sizes = size()
    return ValueType("<size>|max", lambda value: None if value.lower() == "max" else sizes.parse(value))


def _text(value: str, noun: str, bytes_max: int) -> str:
    length = len(value.encode(errors="surrogatepass"))
    if not 1 <= length <= bytes_max:
        raise BadParameter(f"{noun} {shown(value)} has {length} bytes; 1 to {bytes_max} are allowed")
    if not value.isprintable():
        raise BadParameter(f"{noun} {shown(value)} has characters that cannot be printed")
    return value
