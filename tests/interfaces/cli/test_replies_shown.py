"""Answers as tables and as JSON: the same answer, for people, for pipes and for programs."""

from __future__ import annotations

import io
import json
import math
import time
from typing import Any

import pytest

from offsite.interfaces.cli.tables import print_reply
from offsite.interfaces.encoding import reply_json
from offsite.interfaces.encoding.values_shown import format_duration, format_value
from offsite.management.command_table.object_types import Kind, ObjectType, Property, Value
from offsite.management.command_table.reply import Question, Reply
from tests.interfaces.rows import row

PART = ObjectType[Any]("parts", "part", (Property("who", "Who"), Property("lun", "LUN", Kind.NUMBER)), joined=True)
HIDDEN = ObjectType[Any]("details", "detail", (Property("detail", "Detail"),))
THING = ObjectType[Any](
    "things",
    "thing",
    (
        Property("name", "Name"),
        Property("size", "Size", Kind.SIZE),
        Property("made", "Made", Kind.TIME),
        Property("good", "Good", Kind.YES_NO),
        Property("error", "Error", seldom=True),
        Property("serial"),
    ),
)
RECORD = ObjectType[Any]("records", "record", (Property("a", "The A"), Property("b", "B")), record=True)


def thing(name: str, size: int, made: float | None = 0.0, *parts: tuple[str, int | None], error: str = "") -> Reply:
    values: dict[str, Value] = {"name": name, "size": size, "made": made, "good": True, "serial": "0123"}
    values["error"] = error
    rows = [row(PART, {"who": who, "lun": lun}) for who, lun in parts]
    return Reply("Done.", (row(THING, values, [*rows, row(HIDDEN, {"detail": "x"})]),))


def printed(reply: Reply) -> list[str]:
    output = io.StringIO()
    print_reply(reply, output)
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_a_table_is_aligned_and_has_neither_colours_nor_folds_in_a_pipe() -> None:
    long = "a name " * 100
    first, second = thing(long.strip(), 1536).rows[0], thing("b", 1 << 40).rows[0]
    lines = printed(Reply("Done.", (first, second)))
    assert len(lines) == 5
    head, rule, one, two, message = lines
    assert message == "Done."
    assert set(rule) == {"─"}
    assert one.startswith(long.strip())
    assert head.index("Size") + len("Size") == one.index("1.5 KiB") + len("1.5 KiB") == two.index("1 TiB") + 5
    assert "\x1b" not in "".join(lines)
    assert "Serial" not in head
    assert "0123" not in one


EVIL = "a\nb\x1b[2J\x9b\u202e\u2066\r"


@pytest.mark.parametrize("record", [False, True])
def test_a_hostile_system_can_neither_forge_lines_nor_reach_the_terminal(record: bool) -> None:
    """Its headings are shown as well as its values."""
    type = ObjectType[Any](EVIL, EVIL, (Property("name", EVIL), Property("other", "Other")), record=record)
    lines = printed(reply_json.decode(reply_json.encode(Reply(EVIL, (row(type, {"name": EVIL, "other": "x"}),)))))
    assert all(line.isprintable() for line in lines)
    assert "a\\nb\\x1b[2J\\x9b\\u202e\\u2066\\r" in "".join(lines)
    assert len(lines) == (2 + 2 if record else 3 + 2), "only its sentence has several lines"


def test_what_is_seldom_told_has_a_column_only_when_it_is() -> None:
    quiet, troubled = thing("a", 0).rows[0], thing("b", 0, error="no peer").rows[0]
    assert "Error" not in printed(Reply("", (quiet,)))[0]
    head, _, one, two = printed(Reply("", (quiet, troubled)))
    assert head.split()[-1] == "Error"
    assert two.endswith("no peer")
    assert one.startswith("a") and "no peer" not in one


def test_what_is_not_known_is_left_empty_and_markup_is_text() -> None:
    lines = printed(thing("[red]x[/red]", 0, None))
    assert "[red]x[/red]" in lines[2]
    assert "None" not in lines[2]


def encoded(**values: Value) -> dict[str, Any]:
    """An answer as it travels, with other values in it than `encode` would put there."""
    answer = reply_json.encode(thing("a", 1))
    (group,) = answer["objects"]
    names = [each[0] for each in group["properties"]]
    for name, value in values.items():
        group["rows"][0][0][names.index(name)] = value
    return answer


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", math.nan),
        ("size", math.inf),
        ("size", 1 << 80),
        ("made", 1e15),
        ("made", -math.inf),
        ("made", -1e11),
        ("name", ["x"]),
    ],
)
def test_a_value_that_cannot_be_shown_is_refused_when_it_arrives(name: str, value: Any) -> None:
    """From a system that means ill, or is broken: an error in one line, and no traceback."""
    with pytest.raises((TypeError, ValueError)):
        reply_json.decode(encoded(**{name: value}))


@pytest.mark.parametrize(
    "damage", [{"properties": [["a"]]}, {"rows": [[["too few"], []]]}, {"rows": 5}, {"basetype": []}]
)
def test_an_answer_of_another_shape_is_refused_or_harmless(damage: dict[str, Any]) -> None:
    answer = reply_json.encode(thing("a", 1))
    answer["objects"][0].update(damage)
    try:
        reply = reply_json.decode(answer)
    except (KeyError, TypeError, ValueError):
        return
    assert printed(reply)


def test_what_another_system_says_cannot_steer_the_terminal() -> None:
    lines = printed(thing("\x1b[2Jgone\x07", 0))
    assert "\x1b" not in "".join(lines)
    assert "gone" in lines[2]


def test_joined_parts_share_the_line_of_what_they_are_part_of() -> None:
    lines = printed(thing("Sales", 1, 0.0, ("web1", 3), ("web2", None)))
    assert [line.split()[0] for line in lines[2:4]] == ["Sales", "Sales"]
    assert lines[2].endswith("3")
    assert lines[0].split()[-2:] == ["Who", "LUN"]
    assert "detail" not in "".join(lines).lower()


def test_a_record_is_a_line_for_each_property() -> None:
    assert printed(Reply("", (row(RECORD, {"a": "1", "b": None}),))) == ["The A:  1", "B:"]


def test_an_empty_answer_prints_nothing() -> None:
    assert printed(Reply()) == []


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Kind.SIZE, 0, "0 B"),
        (Kind.RATE, 1 << 20, "1 MiB/s"),
        (Kind.PERCENT, 99.6, "100 %"),
        (Kind.DURATION, 0.123, "0.12 s"),
        (Kind.YES_NO, False, "no"),
        (Kind.NUMBER, 7, "7"),
        (Kind.TEXT, "x", "x"),
        (Kind.SIZE, None, ""),
    ],
)
def test_values_are_written_by_their_kind(kind: Kind, value: Value, text: str) -> None:
    assert format_value(kind, value) == text


def test_a_time_is_of_the_readers_zone() -> None:
    assert format_value(Kind.TIME, 1e9) == time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1e9))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.001, "0.00 s"),
        (9.994, "9.99 s"),
        (9.996, "10 s"),
        (59, "59 s"),
        (59.6, "1 min 0 s"),
        (61.4, "1 min 1 s"),
        (7260, "2 h 1 min"),
    ],
)
def test_durations_are_as_exact_as_people_want(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_an_answer_survives_the_way_to_the_command_line() -> None:
    reply = thing("Sales", 5, None, ("web1", 3))
    assert reply_json.decode(json.loads(json.dumps(reply_json.encode(reply)))) == reply
    question = Question("Which?", "password", new=True, adds=("a", "b"))
    assert reply_json.decode_question(json.loads(json.dumps(reply_json.encode_question(question)))) == question


@pytest.mark.parametrize(
    "answer",
    [{}, {"message": "", "objects": [{}]}, {"message": "", "objects": 5}, {"message": "", "objects": [None]}],
)
def test_what_is_no_answer_is_told_apart(answer: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        reply_json.decode(answer)


def test_a_value_that_is_no_value_is_told_apart() -> None:
    answer = reply_json.encode(thing("Sales", 5))
    answer["objects"][0]["rows"][0][0][0] = ["a list"]
    with pytest.raises(ValueError, match="is not a value of"):
        reply_json.decode(answer)


def test_programs_get_raw_values_beside_readable_ones() -> None:
    found = reply_json.for_programs(thing("Sales", 1536, 0.0, ("web1", 3)))
    (thing_found,) = found["things"]
    assert (thing_found["size"], thing_found["size-numeric"]) == ("1.5 KiB", 1536)
    assert thing_found["made-numeric"] == 0.0
    assert thing_found["good"] is True
    assert thing_found["serial"] == "0123"
    assert thing_found["parts"] == [{"who": "web1", "lun": 3}]
    assert found["status"] == [
        {"response-type": "Success", "response-type-numeric": 0, "response": "Done.", "return-code": 0}
    ]
