"""What is shown does nothing but be read."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from offsite.errors import BadParameter
from offsite.escaping import escaped, escaped_lines
from offsite.names import check_name

FORBIDDEN = [
    each
    for each in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, C1, bidi and other formats, separators
]


def test_every_character_that_acts_on_a_terminal_or_turns_the_writing_is_escaped() -> None:
    assert {"\x1b", "\x9b", "\n", "\r", "\u202e", "\u2066", "\u200f", "\u2028"} <= set(FORBIDDEN)
    shown = escaped("".join(FORBIDDEN))
    assert shown.isprintable()
    assert not set(FORBIDDEN) & set(shown)
    assert escaped("a\x1b[2J\u202eb\nc") == "a\\x1b[2J\\u202eb\\nc"


def test_what_can_be_printed_stays_as_it_is() -> None:
    for text in ("", "Sales mon, 12 %", "Köln 東京 €", "a\\b"):
        assert escaped(text) is text
    assert escaped_lines("one\ntwo\x1b") == "one\ntwo\\x1b"


def test_no_name_has_any_of_them() -> None:
    for each in FORBIDDEN:
        with pytest.raises(BadParameter):
            check_name(f"a{each}b", "volume name")
