"""Sizes, in the words of the array and in those of people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import BadParameter
from offsite.units import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1", 512),
        ("2048", 1 << 20),
        ("10B", 10),
        ("10GB", 10 * 10**9),
        ("10GiB", 10 << 30),
        ("10 gib", 10 << 30),
        ("1.5GiB", 3 << 29),
        ("128TiB", 128 << 40),
    ],
)
def test_sizes_are_read_as_the_array_reads_them(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "-1GB", "1PiB", "GiB", "1e9", "0x10", "1.GiB", "\u0661GB", "1" * 30])
def test_what_is_no_size_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(BadParameter) as refusal:
        parse_size(text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        *[(0, "0 B"), (512, "512 B"), (1536, "1.5 KiB"), (1 << 30, "1 GiB"), (5 << 40, "5 TiB")],
        *[((1 << 30) - 1, "1 GiB"), ((1 << 40) - 1, "1 TiB"), (1023 << 20, "1023 MiB"), ((1 << 10) - 1, "1023 B")],
    ],
)
def test_sizes_are_shown_short(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(st.integers(0, 1 << 50))
def test_bytes_survive_being_written_out(size_bytes: int) -> None:
    assert parse_size(f"{size_bytes}B") == size_bytes
