"""The rules for names, which every way in relies on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import BadParameter
from offsite.names import FORBIDDEN, NAME_BYTES_MAX, check_name


@pytest.mark.parametrize("name", ["a", "Sales 2026", "x" * 32, "ä" * 16, "a.b", "日本"])
def test_a_name_within_the_rules_is_taken_as_it_is(name: str) -> None:
    assert check_name(name, "volume name") == name


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "1 to 32"),
        ("x" * 33, "33 bytes"),
        ("ä" * 17, "34 bytes"),
        ('a"b', "are not allowed"),
        ("a,b", "are not allowed"),
        ("a<b", "are not allowed"),
        ("a\\b", "are not allowed"),
        ("a\nb", "are not allowed"),
        (" a", "space"),
        ("a ", "space"),
    ],
)
def test_a_name_outside_the_rules_is_refused_with_value_and_rule(name: str, rule: str) -> None:
    with pytest.raises(BadParameter) as refusal:
        check_name(name, "volume name")
    assert repr(name) in str(refusal.value)
    assert rule in str(refusal.value)


@given(st.text())
def test_what_is_accepted_fits_the_rules(name: str) -> None:
    try:
        check_name(name, "name")
    except BadParameter:
        return
    assert 1 <= len(name.encode()) <= NAME_BYTES_MAX
    assert not set(name) & set(FORBIDDEN)
