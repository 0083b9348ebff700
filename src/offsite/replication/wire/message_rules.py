"""The rules for text that comes from another system: the same as for what a user types.

A type in `messages` is marked with the name of its rule; each text has one, or a pattern of its own. A name that breaks
its rule is refused. A sentence, which may quote anything, is made printable instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect

from offsite.errors import BadParameter, ProtocolError
from offsite.names import check_name
from offsite.replication.naming.addresses import check_host
from offsite.replication.naming.snapshot_names import check_basename
from offsite.replication.wire.messages import AnyMessage

Check = Callable[[Any], Any]
"""Takes a value and returns it, or what is to stand in its place. Raises BadParameter."""


def printable(sentence: str) -> str:
    """On one line, and without what a terminal would obey."""
    if sentence.isprintable():
        return sentence
    return "".join(each if each.isprintable() else _in_place_of(each) for each in sentence)


def _in_place_of(unprintable: str) -> str:
    return " " if unprintable.isspace() else "\N{REPLACEMENT CHARACTER}"


def _label(text: str) -> str:
    if not text.isprintable():
        raise BadParameter(f"{text!r} has unprintable characters")
    return text


RULES: dict[str, Check] = {
    "name": lambda name: check_name(name, "name"),
    "basename": check_basename,
    "host": lambda host: check_host(host) if host else host,
    "label": _label,
    "sentence": printable,
    "secret": lambda secret: secret,  # compared, never shown
}


def checked(message: AnyMessage) -> AnyMessage:
    """The message with its sentences made printable. Raises ProtocolError when it breaks a rule."""
    try:
        return _of_struct(message)  # type: ignore[no-any-return]
    except BadParameter as error:
        raise ProtocolError(f"a {type(message).__name__} breaks a rule: {error}") from error


def _of_struct(struct: Any) -> Any:
    for name, check in _CHECKS[type(struct)]:
        value = getattr(struct, name)
        clean = check(value)
        if clean is not value:
            struct = msgspec.structs.replace(struct, **{name: clean})
    return struct


def _of_list(check: Check) -> Check:
    def of_list(values: list[Any]) -> list[Any]:
        for value in values:
            check(value)  # no list holds sentences
        return values

    return of_list


def _check_of(kind: inspect.Type) -> Check | None:
    """None: there is no text in it, or its pattern says all."""
    match kind:
        case inspect.Metadata(extra={"rule": rule}):
            return RULES[rule]
        case inspect.Metadata(type=inner):
            return _check_of(inner)
        case inspect.ListType(item_type=item):
            inner_check = _check_of(item)
            return inner_check and _of_list(inner_check)
        case inspect.UnionType(types=types):
            checks = [check for check in map(_check_of, types) if check is not None]
            assert len(checks) <= 1, "which of them it is would have to be found out"
            return (lambda value: None if value is None else checks[0](value)) if checks else None
        case inspect.StructType(cls=cls, fields=fields):
            named = ((field.encode_name, _check_of(field.type)) for field in fields)
            _CHECKS[cls] = tuple((name, check) for name, check in named if check is not None)
            return _of_struct if _CHECKS[cls] else None
    return None


_CHECKS: dict[type, tuple[tuple[str, Check], ...]] = {}
_messages = inspect.type_info(AnyMessage)
assert isinstance(_messages, inspect.UnionType)
for _kind in _messages.types:
    _check_of(_kind)
