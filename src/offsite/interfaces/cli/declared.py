"""All commands as they are declared, without what does them: what the command line knows of commands.

The declarations of a system's commands stand beside what does them, which takes a second to load. So they are in the
file `commands.json` as well, which `make docs` makes from them and a test compares with them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from offsite.interfaces.cli import verbs
from offsite.management.command_table.as_data import from_data, to_data
from offsite.management.command_table.command import Command, Table

FILE = Path(__file__).with_name("commands.json")


@cache
def commands() -> Table:
    """Those of this machine, then those of a system."""
    return Table((verbs.COMMANDS, *from_data(json.loads(FILE.read_text()))))


def file_of(table: Table) -> str:
    """What `commands.json` has to hold: a line for each command."""
    lines = [json.dumps(each, ensure_ascii=False) for each in to_data(table)]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def is_of_this_machine(command: Command) -> bool:
    return command in verbs.COMMANDS.commands


if __name__ == "__main__":
    from offsite.management.commands import TABLE

    FILE.write_text(file_of(TABLE))
