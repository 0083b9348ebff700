"""What may stand next on a command line that is being typed. No I/O.

the words before the last ──► a value that is awaited, or keywords, the positional value, further words of commands
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from offsite.management.command_table.command import Command, Option, Parameter, Table, singular
from offsite.management.command_table.parser import UsageError, find, keywords
from offsite.management.command_table.values import ValueKind, ValueType


@dataclass(frozen=True, slots=True)
class Expected:
    """Words, names of objects of some kinds, names of files. In a list the names follow those before the comma."""

    words: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    in_list: bool = False
    files: bool = False


def expected(table: Table, general: Sequence[Option], typed: Sequence[str]) -> Expected:
    """`typed` are the words after the name of the program; the last one is the one being typed, perhaps empty."""
    *before, last = typed
    words, given, awaited = _without_options(table, general, before)
    if awaited is not None and awaited.type is not None:
        return _values(awaited.type)
    if words and words[0] == "help":
        return Expected(_words_of_commands(table, words[1:]))
    command, rest = _command(table, words)
    if last.startswith("-"):
        options = (*general, *(command.options if command is not None else ()))
        return Expected(tuple(f"--{each.name}" for each in options if each.name not in given))
    following = Expected(_words_of_commands(table, words))
    return following if command is None else _joined(following, _parameters(command, rest))


def matching(wanted: Expected, last: str, names: Iterable[str]) -> list[str]:
    """The candidates, sorted: words and `names` that go on as `last` begins."""
    listed, comma, begun = last.rpartition(",") if wanted.in_list else ("", "", last)
    taken = set(listed.split(",")) if comma else set()
    found = {each for each in wanted.words if each.lower().startswith(last.lower())}
    found |= {f"{listed}{comma}{each}" for each in names if each.startswith(begun) and each not in taken}
    return sorted(each for each in found if each.isprintable())


def _without_options(
    table: Table, general: Sequence[Option], before: Sequence[str]
) -> tuple[list[str], set[str], Option | None]:
    """The words; the names of options; the option whose value comes next."""
    known = {option.name: option for command in table for option in command.options}
    known |= {option.name: option for option in general}
    words: list[str] = []
    given: set[str] = set()
    awaited: Option | None = None
    for word in before:
        if awaited is not None:
            awaited = None
        elif word.startswith("--"):
            name, equals, _ = word[2:].partition("=")
            given.add(name)
            option = known.get(name)
            awaited = option if option is not None and option.type is not None and not equals else None
        else:
            words.append(word)
    return words, given, awaited


def _words_of_commands(table: Table, words: Sequence[str]) -> tuple[str, ...]:
    """What goes on with `words` to that of a command."""
    begun = [singular(each) for each in words]
    following = (
        command.words[len(begun)]
        for command in table
        if len(command.words) > len(begun) and [singular(each) for each in command.words[: len(begun)]] == begun
    )
    return tuple(dict.fromkeys(following))


def _command(table: Table, words: Sequence[str]) -> tuple[Command | None, Sequence[str]]:
    try:
        return find(table, words)
    except UsageError:
        return None, ()


def _parameters(command: Command, rest: Sequence[str]) -> Expected:
    given: dict[Parameter, str] = {}
    awaited: Parameter | None = None
    by_word = keywords(command)
    for word in rest:
        if awaited is not None and (not awaited.bare or _is_word_of(awaited, word)):
            given[awaited], awaited = word, None
            continue
        parameter, awaited = by_word.get(singular(word)), None
        if parameter is not None and parameter not in given:
            given[parameter] = ""
            awaited = None if parameter.is_flag else parameter
        else:
            place = next((each for each in command.positionals if each not in given), None)
            given |= {place: word} if place is not None else {}
    if awaited is not None and awaited.type is not None and not awaited.bare:
        return _values(awaited.type)
    own = _values(awaited.type) if awaited is not None and awaited.type is not None else Expected()
    return _joined(own, _what_is_left(command, given))


def _is_word_of(parameter: Parameter, word: str) -> bool:
    return parameter.type is not None and word.lower() in parameter.type.words


def _what_is_left(command: Command, given: dict[Parameter, str]) -> Expected:
    """Keywords that are not given yet and go with what is; secrets are asked for. The positional value."""
    texts = {each.name: text for each, text in given.items()}
    left = tuple(
        each.name
        for each in dict.fromkeys(keywords(command).values())
        if each not in given and not each.positional and not each.is_secret and _goes_with(each, texts)
    )
    place = next((each for each in command.positionals if each not in given), None)
    values = _values(place.type) if place is not None and place.type is not None else Expected()
    return _joined(Expected(left), values)


def _goes_with(parameter: Parameter, texts: dict[str, str]) -> bool:
    needs = parameter.needs
    return needs is None or (needs.parameter in texts and needs.value.lower() in ("", texts[needs.parameter].lower()))


def _values(type: ValueType) -> Expected:
    return Expected(type.words, type.objects, in_list=type.list_max > 0, files=type.kind is ValueKind.PATH)


def _joined(one: Expected, other: Expected) -> Expected:
    return Expected(
        (*one.words, *other.words),
        (*one.objects, *other.objects),
        one.in_list or other.in_list,
        one.files or other.files,
    )
