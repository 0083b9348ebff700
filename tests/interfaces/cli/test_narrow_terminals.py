"""Every kind of object on terminals of every width: nothing of it is cut, and no column is left out."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest

from offsite.interfaces.cli.tables import print_reply
from offsite.management import commands
from offsite.management.command_table.object_types import Kind, ObjectType, Row, Value
from offsite.management.command_table.reply import Reply
from tests.interfaces.live_system import LiveSystem
from tests.interfaces.rows import row
from tests.interfaces.terminal import at_a_terminal

WIDTHS = [60, 80, 100, 140]
SENTENCE = "the pool over there is full, and the run goes on by itself once space was made there " * 2


def object_types() -> dict[str, ObjectType[Any]]:
    """All that commands can answer, as they are declared."""
    found: dict[str, ObjectType[Any]] = {}
    for module in pkgutil.iter_modules(commands.__path__):
        for value in vars(importlib.import_module(f"{commands.__name__}.{module.name}")).values():
            if isinstance(value, ObjectType):
                found[value.basetype] = value
    return found


def full_row(type: ObjectType[Any], number: int) -> Row:
    """An object with a name of 32 bytes, and something in each other property."""
    values: dict[str, Value] = {}
    for at, each in enumerate(type.all_properties):
        if each.kind is not Kind.TEXT:
            values[each.name] = 1_700_000_000.0
        elif any(word in each.name for word in ("error", "message", "action", "description")):
            values[each.name] = f"{each.name}: {SENTENCE}"
        else:
            values[each.name] = f"{number}-{at:02}-{'n' * 27}"
    return row(type, values)


def shown(type: ObjectType[Any]) -> Iterator[str]:
    """What has to be on the screen: headings, and values of properties that have one."""
    for number in (0, 1):
        for each, value in zip(type.all_properties, full_row(type, number).values, strict=True):
            if each.heading:
                yield each.heading
                yield str(value) if each.kind is Kind.TEXT else ""


def plain(screen: str) -> str:
    """Without what makes text bold."""
    return re.sub(r"\x1b\[[0-9;]*m", "", screen)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("basetype", sorted(object_types()))
def test_nothing_of_an_object_is_cut(basetype: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    type = object_types()[basetype]
    output = Terminal()
    print_reply(Reply("Done.", (full_row(type, 0), full_row(type, 1))), output)
    screen = plain(output.getvalue())
    assert "…" not in screen
    for text in shown(type):
        if SENTENCE in text:  # wrapped between its words, beside other columns
            assert all(word in screen for word in text.split())
        else:
            assert text in screen
    if "──" in screen:  # a table, not records: it fits
        assert max(len(line) for line in screen.splitlines()) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_pools_are_shown_whole_at_a_real_terminal(live: LiveSystem, width: int) -> None:
    """At 80 columns `show pools` lost the pool's name. The width here is that of a pseudo-terminal."""
    name = f"terminal-{width:03}-{'p' * 19}"
    live.do("create", "pool", "size", "16MiB", name)
    headings = re.split(r"\s{2,}", live.do("show", "pools").splitlines()[0].strip())
    status, screen = at_a_terminal(["--state", str(live.state), "show", "pools"], [], columns=width)
    live.do("delete", "pools", name, "--yes")
    assert status == 0
    screen = plain(screen)
    assert len(headings) > 5
    assert [each for each in (name, *headings) if each not in screen] == []
    assert max(len(line) for line in screen.splitlines()) <= width
