"""A line of bash that is being typed: its words, and how a candidate is inserted so that it is one word. No I/O.

bash itself gives quotes and backslashes as they were typed, and breaks words at some characters; nothing of the line is
evaluated, as it may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BREAKS = " \t\n\"'@><=;|&(:"  # as bash has them in COMP_WORDBREAKS, unless its user chose others
_NEVER_IN = {"'": "'", '"': "!"}  # what cannot be written in each quote: a terminal's bash expands ! from its history
_PLAIN = re.compile(r"[^\w%+,./@=:-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """The words before the cursor, without quotes; the quote that is open; how much of the last word bash keeps when
    it inserts a candidate."""

    words: tuple[str, ...]
    quote: str = ""
    kept: int = 0

    def inserted(self, candidates: Iterable[str]) -> Iterator[str]:
        """What bash puts in place of what was typed of the last word."""
        for each in candidates:
            if not set(_NEVER_IN.get(self.quote, "")) & set(each):
                yield _quoted(each[self.kept :], self.quote)


def split(line: str, breaks: str = BREAKS) -> Place:
    """Of `breaks`, those that are neither in quotes nor behind a backslash begin what bash replaces; so does the quote
    that is open."""
    words: list[str] = []
    word: str | None = None
    quote, position, kept = "", 0, 0
    kept_before_quote = 0
    while position < len(line):
        character = line[position]
        position += 1
        if quote:
            if character == quote:
                quote, kept = "", kept_before_quote
                continue
            if character == "\\" and quote == '"' and line[position : position + 1] in ('"', "\\", "$", "`"):
                character = line[position]
                position += 1
        elif character.isspace():
            words += [word] if word is not None else []
            word, kept = None, 0
            continue
        elif character in ("'", '"'):
            quote, word = character, word or ""
            kept_before_quote, kept = kept, len(word)
            continue
        elif character == "\\":
            character = line[position : position + 1]
            position += 1
        elif character in breaks:
            kept = len(word or "") + (character != "@")  # of all breaks, bash replaces only this one itself
        word = (word or "") + character
    return Place((*words, word or ""), quote, kept)


def _quoted(text: str, quote: str) -> str:
    if quote == "'":
        return text
    if quote == '"':
        return re.sub(r'(["\\$`])', r"\\\1", text)
    return _PLAIN.sub(lambda match: f"\\{match[0]}" if match[0].isascii() else match[0], text)
