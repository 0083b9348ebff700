"""Types of objects: what is declared of a property once is all that faces get."""

from __future__ import annotations

from dataclasses import dataclass

from offsite.interfaces.encoding.reply_json import decode, encode, for_programs
from offsite.interfaces.encoding.values_shown import cells
from offsite.management.command_table import properties
from offsite.management.command_table.object_types import ObjectType
from offsite.management.command_table.reply import Reply


@dataclass
class Lamp:
    name: str
    colour: str
    heat: float | None
    mass_bytes: int = 1536


LAMP = ObjectType[Lamp](
    "lamps",
    "lamp",
    (
        properties.text("name", lambda lamp: lamp.name, "Name", key=True),
        properties.enumeration("colour", {"red": 3, "green": 7}, lambda lamp: lamp.colour, "Colour"),
        properties.text("heat", lambda lamp: "cold" if lamp.heat is None else "hot", twin=lambda lamp: lamp.heat),
        properties.size("mass", lambda lamp: lamp.mass_bytes, "Mass", display_name="Weight"),
    ),
)
ROWS = (LAMP.row(Lamp("a", "green", 41.5)), LAMP.row(Lamp("b", "", None, 0)))


def test_a_row_is_made_from_an_object_by_the_declarations() -> None:
    assert [ROWS[0][name] for name in ("name", "colour", "colour-numeric", "heat", "heat-numeric", "mass")] == [
        "a", "green", 7, "hot", 41.5, 1536,
    ]  # fmt: skip
    assert ROWS[1].get("nothing of the kind") is None


def test_each_property_comes_with_its_text_and_its_number() -> None:
    found = [(each.property.name, each.text, each.twin) for row in ROWS for each in cells(row)]
    assert found[:4] == [("name", "a", None), ("colour", "green", 7), ("heat", "hot", 41.5), ("mass", "1.5 KiB", 1536)]
    assert found[4:] == [("name", "b", None), ("colour", "", None), ("heat", "cold", None), ("mass", "0 B", 0)]


def test_programs_get_the_same_here_and_behind_the_command_line() -> None:
    """A command line of another version knows no codes: they travel as numbers."""
    reply = Reply("Done.", ROWS)
    assert for_programs(decode(encode(reply))) == for_programs(reply)
    assert for_programs(reply)["lamps"][0] == {
        "name": "a", "colour": "green", "colour-numeric": 7, "heat": "hot", "heat-numeric": 41.5,
        "mass": "1.5 KiB", "mass-numeric": 1536,
    }  # fmt: skip


def test_a_display_name_is_the_name_unless_me4_has_another() -> None:
    assert [each.me4_display_name for each in LAMP.properties] == ["Name", "Colour", "Heat", "Weight"]
