"""Answers as JSON: between a system and the command line, and for programs.

Between the two, an answer keeps all that the table of commands knows of it, so that the command line can show
answers of a system of any version. For programs (`--json`) it is plain objects by their ME4 names, with raw
values: what is a number has it under its name with `-numeric` (sizes in bytes, times in seconds since the
epoch), and under its name alone as people read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from offsite.interfaces.encoding.values_shown import cells
from offsite.management.command_table.object_types import MEASURED, Kind, ObjectType, Property, Row, Value
from offsite.management.command_table.reply import Question, Reply

_NUMBER_MAX = 1 << 64
_TIME_MAX = datetime(9999, 12, 30, tzinfo=UTC).timestamp()


def encode(reply: Reply) -> dict[str, Any]:
    return {"message": reply.message, "objects": _encode_rows(reply.rows)}


def decode(answer: Mapping[str, Any]) -> Reply:
    """Raises KeyError, TypeError or ValueError for what `encode` did not make."""
    return Reply(str(answer["message"]), _decode_rows(answer["objects"]))


def encode_question(question: Question) -> dict[str, Any]:
    return {
        "text": question.text,
        "secret": question.secret,
        "new": question.new,
        "adds": list(question.adds),
    }


def decode_question(answer: Mapping[str, Any]) -> Question:
    adds = tuple(str(word) for word in answer["adds"])
    return Question(str(answer["text"]), str(answer["secret"]), bool(answer["new"]), adds)


def decode_answer(answer: Mapping[str, Any]) -> Reply | Question:
    """As `decode`, of a command: it may have a question instead."""
    return decode_question(answer["question"]) if "question" in answer else decode(answer)


def for_programs(reply: Reply) -> dict[str, Any]:
    """ME4's shape: a list for each basetype, and the status last."""
    found: dict[str, Any] = {}
    for row in reply.rows:
        found.setdefault(row.type.basetype, []).append(_object(row))
    return found | {"status": [status("Success", reply.message or "Command completed successfully.", 0)]}


def status(response_type: str, response: str, code: int) -> dict[str, Any]:
    return {
        "response-type": response_type,
        "response-type-numeric": 0 if response_type == "Success" else 1,
        "response": response,
        "return-code": code,
    }


def _object(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in cells(row):
        name = each.property.name
        found[name] = each.text if each.property.kind in MEASURED else each.value
        if each.property.has_twin:
            found[f"{name}-numeric"] = each.twin
    for part in row.parts:
        found.setdefault(part.type.basetype, []).append(_object(part))
    return found


def _encode_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of a type together, each type told once. A twin that is a value of its own is told as a property."""
    groups: dict[ObjectType[Any], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.type, []).append(row)
    return [
        {
            "basetype": type.basetype,
            "name": type.name,
            "record": type.record,
            "joined": type.joined,
            "properties": [[each.name, each.heading, each.kind.value, each.seldom] for each in type.all_properties],
            "rows": [[list(row.values), _encode_rows(row.parts)] for row in group],
        }
        for type, group in groups.items()
    ]


def _decode_rows(groups: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
    rows = []
    for group in groups:
        properties: tuple[Property[Any], ...] = tuple(
            Property(str(name), str(heading), Kind(kind), bool(seldom))
            for name, heading, kind, seldom in group["properties"]
        )
        type = ObjectType[Any](
            str(group["basetype"]), str(group["name"]), properties, bool(group["record"]), bool(group["joined"])
        )
        for values, parts in group["rows"]:
            checked = tuple(_value(each, value) for each, value in zip(properties, values, strict=True))
            rows.append(Row(type, checked, _decode_rows(parts)))
    return tuple(rows)


def _value(property: Property[Any], value: object) -> Value:
    """One that can be shown: a system that means ill sends a number that is none, or a time in no year."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (int, float)) and _least(property) <= value <= _most(property):
        return value  # nor is NaN, which no comparison holds for
    raise ValueError(f"{value!r} is not a value of {property.name}")


def _least(property: Property[Any]) -> float:
    return 0 if property.kind is Kind.TIME else -_NUMBER_MAX


def _most(property: Property[Any]) -> float:
    return _TIME_MAX if property.kind is Kind.TIME else _NUMBER_MAX
