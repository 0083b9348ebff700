"""What another system sends is checked by the same rules as what a user types, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from offsite.errors import BadParameter, ProtocolError
from offsite.replication.naming.addresses import parse_address
from offsite.replication.wire import frames
from offsite.replication.wire.message_rules import RULES, printable
from offsite.replication.wire.messages import AnyMessage
from tests.replication.wire.test_wire import EVERY_MESSAGE

UNPRINTABLE = ["\x1b[31m", "a\nb", "\x00", "\u202e", "\x7f"]


def texts(kind: inspect.Type, at: str = "") -> Iterator[tuple[str, inspect.Type, dict[str, Any]]]:
    """Every text in a message, where it is, and what is said of it."""
    extra: dict[str, Any] = {}
    if isinstance(kind, inspect.Metadata):
        extra, kind = kind.extra or {}, kind.type
    match kind:
        case inspect.StrType() | inspect.IntType() | inspect.FloatType() | inspect.BytesType() | inspect.ListType():
            yield at, kind, extra
            if isinstance(kind, inspect.ListType):
                yield from texts(kind.item_type, at + "[]")
        case inspect.UnionType(types=types):
            for each in types:
                yield from texts(each, at)
        case inspect.StructType(cls=cls, fields=fields, array_like=array_like):
            for field in fields:
                yield from texts(field.type, at if array_like else f"{at or cls.__name__}.{field.name}")


FIELDS = list(texts(inspect.type_info(AnyMessage)))


def test_every_text_has_a_rule_and_all_else_its_bounds() -> None:
    assert {at.partition(".")[0] for at, _, _ in FIELDS} >= {"Hello", "Pair", "CreateSet", "Commit", "Failed"}
    for at, kind, extra in FIELDS:
        match kind:
            case inspect.StrType():
                assert kind.pattern is not None or extra.get("rule") in RULES, f"{at} has no rule"
                assert kind.max_length is not None, at
            case inspect.IntType() | inspect.FloatType():
                assert kind.ge is not None and kind.le is not None, f"{at} has no bounds"
            case inspect.BytesType() | inspect.ListType():
                assert kind.max_length is not None, f"{at} has no bound"


def as_sent(message: AnyMessage) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message))


def replaced(value: Any, text: str, at: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The message, as what msgpack makes of it, with each of its texts in turn put in place of by another."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key != "type":
                for where, other in replaced(each, text, (*at, key)):
                    yield where, {**value, key: other}
    elif isinstance(value, list):
        for number, each in enumerate(value):
            for where, other in replaced(each, text, (*at, number)):
                yield where, [*value[:number], other, *value[number + 1 :]]
    elif isinstance(value, str):
        yield ".".join(map(str, at)), text


@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=lambda message: type(message).__name__)
def test_no_text_gets_in_that_a_terminal_would_obey(message: AnyMessage) -> None:
    for text in UNPRINTABLE:
        for where, forged in replaced(as_sent(message), text):
            try:
                taken = frames.decode_message(msgspec.msgpack.encode(forged))
            except ProtocolError as error:
                assert str(error).isprintable(), where
                assert not where.endswith("sentence"), "it would be lost with what it tells"
                continue
            assert where.endswith("sentence") or where == "password", f"{where} of {type(message).__name__}"
            assert where == "password" or taken.sentence.isprintable()  # type: ignore[union-attr]


def test_the_samples_have_every_message_and_every_text() -> None:
    there = {f"{type(message).__name__}.{at}" for message in EVERY_MESSAGE for at, _ in replaced(as_sent(message), "")}
    there = {".".join(part for part in at.split(".") if not part.isdigit()) for at in there}
    literals = {"queue_policy", "snapshot_history", "snapshot_retention_priority", "retention_priority", "role"}
    there = {at for at in there if at.rpartition(".")[2] not in literals}
    assert {at.replace("[]", "") for at, kind, _ in FIELDS if isinstance(kind, inspect.StrType)} == there


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 'a"b'),
        ("name", "a,b"),
        ("name", " a"),
        ("name", "ä" * 17),
        ("snapshot_basename", "a.b"),
        ("snapshot_basename", " keep"),
        ("snapshot_basename", "ä" * 14),
    ],
)
def test_names_are_checked_as_a_users(field: str, value: str) -> None:
    settings = {"name": "SalesDR", field: value}
    with pytest.raises(ProtocolError, match="a ChangeSet breaks a rule"):
        frames.decode_message(
            msgspec.msgpack.encode({"type": "ChangeSet", "set_uuid": "0" * 36, "generation": 1, "settings": settings})
        )


@pytest.mark.parametrize("host", ["a b", "a/b", "u@h", "[::1", "<x>", "a;b", "h\n"])
def test_hosts_are_checked_the_same_from_a_user_and_from_a_peer(host: str) -> None:
    pair = {"type": "Pair", "username": "u", "password": "p", "certificate": b"x", "host": host, "port": 1}
    with pytest.raises(ProtocolError, match="is neither a host name nor an IP address"):
        frames.decode_message(msgspec.msgpack.encode(pair))
    if host.strip() == host:
        with pytest.raises(BadParameter, match="is not HOST"):
            parse_address(host)


@pytest.mark.parametrize("port", ["²", "٣", "9" * 5000, "+1", ""])
def test_a_port_is_a_plain_number(port: str) -> None:
    with pytest.raises(BadParameter, match="is not HOST"):
        parse_address(f"[::1]:{port}" if port else "[]")


def test_a_sentence_is_made_printable_not_refused() -> None:
    """It may quote what a hook or a disk has said."""
    assert printable("pool A is full") == "pool A is full"
    assert printable("\x1b[2Jtwo\nlines\x00") == "\N{REPLACEMENT CHARACTER}[2Jtwo lines\N{REPLACEMENT CHARACTER}"
