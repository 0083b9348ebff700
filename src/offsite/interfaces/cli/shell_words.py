"""A line of bash that is being typed: its words, and how a candidate is inserted so that it is one word. No I/O.

bash itself gives quotes and backslashes as they were typed, and breaks words at some characters; nothing of the line is
evaluated, as it may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_BREAKS = "@=:"  # bash replaces only what is behind the last of these (COMP_WORDBREAKS)
_PLAIN = re.compile(r"[^\w%+,./@=:-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """The words before the cursor, without quotes, and the quote that is open."""

    words: tuple[str, ...]
    quote: str = ""

    def inserted(self, candidates: Iterable[str]) -> Iterator[str]:
        """What bash puts in place of what was typed of the last word."""
        last = self.words[-1] if self.words else ""
        kept = 0 if self.quote else max((last.rfind(each) + 1 for each in _BREAKS), default=0)
        for each in candidates:
            if not (self.quote == "'" and "'" in each):
                yield _quoted(each[kept:], self.quote)


def split(line: str) -> Place:
    words: list[str] = []
    word: str | None = None
    quote, position = "", 0
    while position < len(line):
        character = line[position]
        position += 1
        if quote:
            if character == quote:
                quote = ""
                continue
            if character == "\\" and quote == '"' and line[position : position + 1] in ('"', "\\", "$", "`"):
                character = line[position]
                position += 1
        elif character.isspace():
            words += [word] if word is not None else []
            word = None
            continue
        elif character in ("'", '"'):
            quote, word = character, word or ""
            continue
        elif character == "\\":
            character = line[position : position + 1]
            position += 1
        word = (word or "") + character
    return Place((*words, word or ""), quote)


def _quoted(text: str, quote: str) -> str:
    if quote == "'":
        return text
    if quote == '"':
        return re.sub(r'(["\\$`])', r"\\\1", text)
    return _PLAIN.sub(lambda match: f"\\{match[0]}" if match[0].isascii() else match[0], text)
