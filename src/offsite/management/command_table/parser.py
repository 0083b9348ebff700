"""From words to a call: `verb object [keyword value]… positional`, as ME4 takes them. No I/O.

    words ──► longest known command ──► for each word left:
                                          a keyword not yet given ──► takes the next word as its value
                                          a flag not yet given    ──► is set
                                          anything else           ──► the positional value, once

Keywords come in any order, the positional value before, between or after them. A word in double quotes is
never a keyword, so that an object may be called `size`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offsite.errors import BadParameter
from offsite.escaping import shown
from offsite.management.command_table import value_parser, values
from offsite.management.command_table.command import Command, Needs, Parameter, Table, flag, keyword, singular
from offsite.management.command_table.words_read import WordsRead, nearest, unquoted
from offsite.return_codes import ReturnCode

LINE_CHARACTERS_MAX = 65536
_WORDS_OF_COMMAND_MAX = 2
_WORD = re.compile(r'\s*("[^"]*"|[^\s"]+)(?=\s|$)')

PROMPT = keyword("prompt", values.choice("yes", "no"), "Answers the question of the command in advance.")
NO_PROMPT = flag("noprompt", "Answers the question of the command with yes.")


class UsageError(BadParameter):
    """The words are not a command: one is unknown or too many, or a parameter is missing."""

    code = ReturnCode.USAGE_ERROR
    usage = True  # the command line, which reads some commands itself, tells it by this, as from a system's answer


@dataclass(frozen=True, slots=True)
class Call:
    """A command with its arguments, by the names that the handler has for them."""

    command: Command
    arguments: Mapping[str, Any]
    secrets: frozenset[str] = frozenset()  # names of the secrets that stood among the words
    prompt: str | None = None  # "yes" or "no" when the question was answered beforehand


def split(line: str) -> list[str]:
    """The words of a line; double quotes hold words together, and stay for `parse` to see."""
    if len(line) > LINE_CHARACTERS_MAX:
        raise UsageError(f"the line has {len(line)} characters; at most {LINE_CHARACTERS_MAX} are allowed")
    words, position = [], 0
    while match := _WORD.match(line, position):
        words.append(match[1])
        position = match.end()
    if line[position:].strip():
        raise UsageError(
            f"misplaced double quote in {shown(line[position:].strip())}; double quotes enclose a whole word"
        )
    return words


def parse(table: Table, words: Sequence[str]) -> Call:
    """The call that `words` stand for. Raises UsageError, or BadParameter from a value's own rule."""
    command, rest = find(table, words)
    given: dict[Parameter, Any] = {
        parameter: True if parameter.type is None or text is None else _value(parameter, text)
        for parameter, text in assign(command, rest).items()
    }
    arguments = {parameter.argument: value for parameter, value in given.items() if parameter in command.parameters}
    _check_places(command, given, arguments)
    _complete(command, given, arguments)
    secrets = frozenset(parameter.name for parameter in given if parameter.is_secret)
    return Call(command, arguments, secrets, prompt="yes" if NO_PROMPT in given else given.get(PROMPT))


def _check_places(command: Command, given: Mapping[Parameter, Any], arguments: Mapping[str, Any]) -> None:
    """Raises BadParameter for a parameter without the other one that it goes with."""
    for parameter in command.parameters:
        if parameter in given and not goes_with(parameter, arguments):
            raise BadParameter(_out_of_place(command, parameter, arguments))


def _complete(command: Command, given: Mapping[Parameter, Any], arguments: dict[str, Any]) -> None:
    """Adds defaults to `arguments`. Raises UsageError when something is missing."""
    for parameter in command.parameters:
        if parameter in given or not goes_with(parameter, arguments):
            continue
        if parameter.required and not parameter.is_secret:
            raise UsageError(_missing(command, parameter))
        if parameter.default is not None:
            arguments[parameter.argument] = parameter.default


def goes_with(parameter: Parameter, arguments: Mapping[str, Any]) -> bool:
    """Whether what `parameter` goes together with is among `arguments`."""
    needs = parameter.needs
    if needs is None:
        return True
    value = arguments.get(needs.parameter.replace("-", "_"))
    return value == needs.value if needs.value else value not in (None, False)


def _out_of_place(command: Command, parameter: Parameter, arguments: Mapping[str, Any]) -> str:
    needs = parameter.needs
    assert needs is not None
    chosen = arguments.get(needs.parameter.replace("-", "_"))
    if not needs.value or chosen is None:
        return f"{command.text}: {parameter.name} requires {needs}; give {needs.parameter} as well"
    others = [each.name for each in command.parameters if each.needs == Needs(needs.parameter, str(chosen))]
    return f"{command.text}: {parameter.name} is not valid with {needs.parameter} {chosen}; valid: {', '.join(others)}"


def _missing(command: Command, parameter: Parameter) -> str:
    if parameter.needs is not None:
        return f"{command.text}: {parameter.needs} requires {parameter.name}; syntax: {command.syntax}"
    return f"{command.text}: {parameter.name} is missing; syntax: {command.syntax}"


def find(table: Table, words: Sequence[str]) -> tuple[Command, Sequence[str]]:
    """The command that `words` begin with, and the words after it. Raises UsageError."""
    for count in range(min(len(words), _WORDS_OF_COMMAND_MAX), 0, -1):
        command = table.get(tuple(words[:count]))
        if command is not None:
            return command, words[count:]
    raise UsageError(_unknown(table, words))


def _unknown(table: Table, words: Sequence[str]) -> str:
    if not words:
        return "no command specified; `help` lists the commands"
    verbs = sorted({command.words[0] for command in table})
    verb = words[0].lower()
    if verb not in verbs:
        return f"unknown command {shown(words[0])}{nearest(verb, verbs)}; `help` lists the commands"
    objects = [" ".join(command.words[1:]) for command in table if command.words[0] == verb]
    valid = f"valid objects: {', '.join(objects)}"
    if len(words) == 1:
        return f"no object specified for {verb}; {valid}"
    return f"unknown object {shown(words[1])} for {verb}{nearest(words[1].lower(), objects)}; {valid}"


def assign(command: Command, words: Sequence[str]) -> dict[Parameter, str | None]:
    """Which parameter each of the words after those of the command belongs to. Raises UsageError for one too many, and
    for a keyword that stands where another one's value is required."""
    taken = _read(command, words)
    return {parameter: None if word is None else unquoted(word) for parameter, word in taken.items()}


def _read(command: Command, words: Sequence[str]) -> dict[Parameter, str | None]:
    """The words as they were typed, with their double quotes."""
    by_word = keywords(command)
    given: dict[Parameter, str | None] = {}
    loose: list[int] = []  # positions of the words that no keyword takes
    places: list[Parameter] = []  # what the first of them are the values of
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        parameter = by_word.get(singular(word))
        following = words[position] if position < len(words) else None
        if parameter is not None and parameter not in given and _may_stand_before(parameter, following):
            if parameter.is_flag or not _is_value_of(parameter, following):
                given[parameter] = None
            else:
                given[parameter] = following
                position += 1
            continue
        loose.append(position - 1)
        place = next((each for each in command.positionals if each not in given), None)
        if place is not None:
            given[place] = word
            places.append(place)
    refusal = WordsRead(command, by_word, words, given, loose, places).refusal()
    if refusal:
        raise UsageError(f"{refusal}; syntax: {command.syntax}")
    return given


def _may_stand_before(parameter: Parameter, following: str | None) -> bool:
    """A keyword that has no value after it, but needs one, is the positional value."""
    return following is not None or parameter.is_flag or parameter.bare


def _is_value_of(parameter: Parameter, following: str | None) -> bool:
    """Whether the word after a keyword is its value. One that may be bare has only the words of its type."""
    if following is None or not parameter.bare or parameter.type is None:
        return following is not None
    return following.lower() in parameter.type.words


def keywords(command: Command) -> dict[str, Parameter]:
    """The parameters that have a keyword, by its singular; also the answers to the question that is asked."""
    found = {
        singular(parameter.name): parameter
        for parameter in command.parameters
        if not parameter.positional or parameter.named
    }
    if command.confirmation is not None:
        found |= {"prompt": PROMPT, "noprompt": NO_PROMPT}
    return found


def _value(parameter: Parameter, text: str) -> Any:
    assert parameter.type is not None
    try:
        return value_parser.parse(parameter.type, text)
    except BadParameter as error:
        if parameter.positional or re.search(rf"(?<![\w-]){parameter.name}(?![\w-])", str(error)):
            raise
        raise BadParameter(f"{parameter.name}: {error}") from error
