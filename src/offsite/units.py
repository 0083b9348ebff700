"""Sizes as people write them and as they read them, and instants as sentences have them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from offsite.errors import BadParameter

BLOCK_BYTES = 512
KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

_FACTORS = {
    "": BLOCK_BYTES, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB,
}  # fmt: skip
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)\s*([a-zA-Z]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of a size as ME4 takes it: 10GB, 10GiB; a number without unit counts blocks of 512 bytes."""
    match = _SIZE.fullmatch(text.strip())
    factor = _FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise BadParameter(
            f"invalid size {text!r}; use a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, as 10GiB, or a number "
            "of 512-byte blocks"
        )
    whole, _, fraction = match[1].partition(".")
    return int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)


def format_size(size_bytes: int) -> str:
    """A size for people, base 2, at most one decimal: 0 B, 512 B, 1.5 GiB."""
    for factor, unit in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes >= factor - factor // KIB // 20:  # what rounds to 1024 of a unit is 1 of the next
            return f"{size_bytes / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size_bytes} B"


def format_instant(instant: float) -> str:
    """For sentences that two systems may read, in whatever time zone each is."""
    return f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%d %H:%M:%S} UTC"
