"""How properties of objects are declared: one function for each kind, so that a value fits its property."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypedDict, TypeVar, Unpack

from offsite.management.command_table.object_types import Kind, Number, Property

D = TypeVar("D")


class Options(TypedDict, total=False):
    """What any property may have. See Property."""

    seldom: bool
    key: bool
    display_name: str


def text(
    name: str,
    value: Callable[[D], str],
    heading: str = "",
    *,
    twin: Callable[[D], Number] | None = None,
    unit: str = "",
    of_type: str = "",
    **options: Unpack[Options],
) -> Property[D]:
    """`twin` is the number in it, in `unit`; `of_type` the basetype of the object that it names."""
    return Property(name, heading, value=value, twin=twin, unit=unit, of_type=of_type, **options)


def enumeration(
    name: str, codes: Mapping[str, int], value: Callable[[D], str], heading: str = "", **options: Unpack[Options]
) -> Property[D]:
    """One word of `codes`, or nothing."""
    return Property(name, heading, value=value, codes=codes, **options)


def number(
    name: str, value: Callable[[D], Number], heading: str = "", *, unit: str = "", **options: Unpack[Options]
) -> Property[D]:
    return Property(name, heading, Kind.NUMBER, value=value, unit=unit, **options)


def size(name: str, value: Callable[[D], int | None], heading: str = "", **options: Unpack[Options]) -> Property[D]:
    return Property(name, heading, Kind.SIZE, value=value, unit="bytes", **options)


def time(name: str, value: Callable[[D], float | None], heading: str = "", **options: Unpack[Options]) -> Property[D]:
    return Property(name, heading, Kind.TIME, value=value, unit="seconds since 1970-01-01 UTC", **options)


def duration(
    name: str, value: Callable[[D], float | None], heading: str = "", **options: Unpack[Options]
) -> Property[D]:
    return Property(name, heading, Kind.DURATION, value=value, unit="seconds", **options)


def percent(
    name: str, value: Callable[[D], float | None], heading: str = "", **options: Unpack[Options]
) -> Property[D]:
    return Property(name, heading, Kind.PERCENT, value=value, unit="percent", **options)


def rate(name: str, value: Callable[[D], float | None], heading: str = "", **options: Unpack[Options]) -> Property[D]:
    return Property(name, heading, Kind.RATE, value=value, unit="bytes per second", **options)


def yes_no(
    name: str,
    value: Callable[[D], bool | None],
    heading: str = "",
    *,
    words: tuple[str, str] = ("No", "Yes"),
    **options: Unpack[Options],
) -> Property[D]:
    """`words` are ME4's for no and yes."""
    return Property(name, heading, Kind.YES_NO, value=value, words=words, **options)
