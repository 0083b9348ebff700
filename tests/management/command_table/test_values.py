"""Values of parameters: each refusal names the value and the rule."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import BadParameter
from offsite.escaping import shown
from offsite.management.command_table import values
from offsite.management.command_table.value_parser import parse
from offsite.management.command_table.value_rules import rules, written
from offsite.management.command_table.values import Choice
from offsite.units import parse_size

TYPES: dict[str, tuple[values.ValueType, dict[str, Any], dict[str, str]]] = {
    "choice": (
        values.choice(Choice("read-write", 3, also=("rw",)), "read-only"),
        {"read-write": "read-write", "RW": "read-write", "Read-Only": "read-only"},
        {"write": "'write' is not one of read-write, read-only"},
    ),
    "boolean": (
        values.boolean("enabled", "disabled"),
        {"enabled": True, "Disabled": False},
        {"yes": "'yes' is not one of enabled, disabled"},
    ),
    "integer": (
        values.integer(0, 1023),
        {"0": 0, "1023": 1023},
        {each: "is not a whole number from 0 to 1023" for each in ("1024", "-1", "1.0", "", "²", "9" * 30)},
    ),
    "percent": (
        values.percent(),
        {"75": 75.0, "75%": 75.0, "100%": 100.0},
        {each: "is not a percentage from 1% to 100%" for each in ("0", "101%", "1.5", "%", "")},
    ),
    "size or max": (
        values.size_or_max(),
        {"max": None, "MAX": None, "1GiB": 1 << 30, "8": 4096},
        {"-1GiB": "'-1GiB'", "1 EiB": "'1 EiB'", "": "1 to 64"},
    ),
    "names": (
        values.names("snapshot", 2),
        {"a": ("a",), "a,b b": ("a", "b b")},
        {"a,,b": "empty part", "a,a": "listed twice", "a,b,c": "at most 2", "<": "'<'", "x" * 33: "33 bytes"},
    ),
    "references": (
        values.references("volume"),
        {"a,b": ("a", "b")},
        {"": "empty part", "a\n": "cannot be printed", "a,": "empty part"},
    ),
    "text": (values.text("address", 5), {"abcde": "abcde"}, {"abcdef": "6 bytes; 1 to 5", "": "0 bytes"}),
    "text with forbidden characters": (
        values.text("prefix", 5, forbidden=",."),
        {"a b": "a b"},
        {"a.b": "prefix 'a.b' has '.'; none of , . is allowed"},
    ),
    "integer with a unit": (
        values.integer(1, 60, "seconds"),
        {"60": 60},
        {"61": "'61' is not a whole number from 1 to 60 seconds"},
    ),
    "special": (
        values.special(values.ValueKind.RATE, "rate", "Like 10MB", parse_size, or_word="none"),
        {"10MB": 10**7},
        {"fast": "'fast'"},
    ),
}
GOOD = [(type, text, value) for type, good, _ in TYPES.values() for text, value in good.items()]
BAD = [(type, text, sentence) for type, _, bad in TYPES.values() for text, sentence in bad.items()]


@pytest.mark.parametrize(("type", "text", "value"), GOOD)
def test_what_is_written_well_is_taken(type: values.ValueType, text: str, value: object) -> None:
    assert parse(type, text) == value


@pytest.mark.parametrize(("type", "text", "sentence"), BAD)
def test_what_is_not_is_refused_with_the_rule(type: values.ValueType, text: str, sentence: str) -> None:
    with pytest.raises(BadParameter) as refusal:
        parse(type, text)
    assert sentence in str(refusal.value)


@given(st.sampled_from([type for type, _, _ in TYPES.values()]), st.text(max_size=60))
def test_any_text_is_taken_or_refused(type: values.ValueType, text: str) -> None:
    try:
        parse(type, text)
    except BadParameter as error:
        assert len(str(error)) < 600


def test_a_sentence_never_repeats_a_value_at_length() -> None:
    assert len(shown("x" * 10_000)) < 110


@pytest.mark.parametrize(
    ("type", "placeholder", "told"),
    [
        (values.integer(1, 60, "seconds"), "#", "From 1 to 60 seconds."),
        (values.percent(), "<percent>", "From 1% to 100%."),
        (
            values.names("snapshot", 16),
            "<snapshots>",
            "At most 32 bytes. Several are separated by commas, at most 16.",
        ),
        (values.choice(Choice("disabled", also=("off",)), "both"), "disabled|both", "off means disabled."),
        (values.size_or_max(), "<size>|max", "For example 10GiB or 500GB; without a unit, 512-byte blocks."),
        (values.reference("task", or_all=True), "<task>|all", ""),
        (values.special(values.ValueKind.TIME, "time", "YYYY-MM-DD"), "<time>", "YYYY-MM-DD."),
    ],
)
def test_help_tells_what_the_type_says(type: values.ValueType, placeholder: str, told: str) -> None:
    """Placeholder and rules come from the type, so that no text repeats them and grows old."""
    assert (type.placeholder, " ".join(rules(type))) == (placeholder, told)


@pytest.mark.parametrize(
    ("type", "text"),
    [
        (values.boolean("on", "off"), "off"),
        (values.integer(1, 60), "60"),
        (values.percent(), "75%"),
        (values.size(), "16KiB"),
        (values.choice("read-write", "read-only"), "read-only"),
    ],
)
def test_a_value_is_shown_as_it_is_typed(type: values.ValueType, text: str) -> None:
    assert written(type, parse(type, text)) == text
