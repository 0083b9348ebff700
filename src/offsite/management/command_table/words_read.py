"""What is wrong with the words after those of a command, and which of them is to blame. No I/O.

A word too many is seldom the wrong one: in "show volumes pattern v" it is "pattern", which the parser had to take for
the name of a volume.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from offsite.escaping import shown
from offsite.management.command_table.command import Command, Parameter, singular

_LIKE_A_KEYWORD = re.compile(r"[a-z]+(-[a-z]+)*")


@dataclass(frozen=True, slots=True)
class WordsRead:
    """`given` are the words as they were typed, `loose` the positions of those that no keyword takes: the first of
    them became the values of `places`."""

    command: Command
    by_word: Mapping[str, Parameter]
    words: Sequence[str]
    given: Mapping[Parameter, str | None]
    loose: Sequence[int]
    places: Sequence[Parameter]

    def refusal(self) -> str:
        """A sentence; empty where nothing is wrong so far."""
        if len(self.loose) > len(self.places):
            found = self._keyword_out_of_place() or self._without_value(any_keyword=True) or self._wrong_choice()
            return found or self._unknown_parameter() or self._unexpected()
        return self._without_value(any_keyword=False)

    def _keyword_out_of_place(self) -> str:
        """One that came a second time, or last."""
        for at in self.loose:
            parameter = self.by_word.get(singular(self.words[at]))
            if parameter is not None:
                wrong = "is given twice" if parameter in self.given else "has no value after it"
                return f"{self.command.text}: {parameter.name} {wrong}"
        return ""

    def _without_value(self, *, any_keyword: bool) -> str:
        """A keyword after which the next one stands, which was taken for its value. That may be meant so, unless the
        words do not fit, or a parameter that is required is missing."""
        for parameter, word in self.given.items():
            taken = self.by_word.get(singular(word or ""))
            if taken is None or taken in self.given or parameter.is_secret or parameter in self.places:
                continue
            if any_keyword or (taken.required and taken.needs is None):
                return (
                    f"{self.command.text}: {parameter.name} has no value; the word after it, {word}, is a keyword "
                    "(in double quotes it would be a value)"
                )
        return ""

    def _wrong_choice(self) -> str:
        """Behind a keyword that may stand without a value."""
        before = self.words[self.loose[0] - 1] if self.loose[0] else ""
        parameter = self.by_word.get(singular(before))
        if parameter is None or parameter.type is None or self.given.get(parameter, "") is not None:
            return ""
        wrong = shown(unquoted(self.words[self.loose[0]]))
        return f"{self.command.text}: {parameter.name}: {wrong} is not one of {', '.join(parameter.type.words)}"

    def _unknown_parameter(self) -> str:
        for at in self._candidates():
            word = self.words[at]
            near = nearest(word.lower(), [each.name for each in self.by_word.values()])
            return f"unknown parameter {shown(unquoted(word))} of {self.command.text}{near}"
        return ""

    def _candidates(self) -> Iterator[int]:
        """Loose words that may be meant as keywords, the likeliest first: like one that exists, then such as have a
        loose word after them that would be the value. The name that a command requires is none of them."""
        if not self.command.positionals:
            yield self.loose[0]
        if all(each.positional for each in self.command.parameters):
            return
        names = [each.name for each in self.by_word.values()]
        yield from (
            at for at in self.loose if not self.words[at].startswith('"') and _is_like_one(self.words[at], names)
        )
        if len(self.loose) > 2 or not any(each.required for each in self.command.positionals):
            followed = (at for at in self.loose if at + 1 in self.loose)
            yield from (at for at in followed if _LIKE_A_KEYWORD.fullmatch(self.words[at]))

    def _unexpected(self) -> str:
        extra = self.loose[len(self.places)]
        found = f"{self.command.text}: unexpected {shown(unquoted(self.words[extra]))}"
        if not self.places:
            return found
        commas = any(each.type is not None and each.type.list_max for each in self.places)
        last = shown(unquoted(self.words[self.loose[len(self.places) - 1]]))
        return f"{found} after {last}{'; several need commas between them' if commas else ''}"


def _is_like_one(word: str, known: Sequence[str]) -> bool:
    """A misspelt one, not just a word with some of its letters."""
    return bool(difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.75))


def nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unquoted(word: str) -> str:
    return word[1:-1] if len(word) >= 2 and word[0] == word[-1] == '"' else word
