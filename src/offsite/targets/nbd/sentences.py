"""Sentences for people, in errors of the NBD protocol."""

from __future__ import annotations

from offsite.targets.nbd.constants import STRING_BYTES_MAX


def encode(sentence: str) -> bytes:
    """UTF-8 of at most STRING_BYTES_MAX, cut between characters."""
    encoded = sentence.encode()
    if len(encoded) <= STRING_BYTES_MAX:
        return encoded
    return encoded[:STRING_BYTES_MAX].decode(errors="ignore").encode()
