"""`offsite complete`, which a shell asks while somebody types, and `offsite completion`, the script that has it ask.

Names of objects come from the running system that the line is for, by the commands that show them. A system that does
not answer at once, or asks for something, leaves only the words that are known here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence

from offsite.errors import OffsiteError
from offsite.interfaces.cli import completion_scripts, declared, shell_words
from offsite.interfaces.cli.completion import expected, matching
from offsite.interfaces.cli.exit_status import DONE, FILES
from offsite.interfaces.cli.options import OPTIONS, CommandLine, parse_options
from offsite.interfaces.cli.system_choice import connected
from offsite.management.command_table.listings import LISTINGS
from offsite.management.command_table.parser import parse
from offsite.management.command_table.reply import Reply

DEADLINE_SECONDS = 0.7
_CHOOSING = ("state", "system", "certificate")  # not the fingerprint, by which a certificate would be remembered


def completion(line: CommandLine) -> int:
    print(completion_scripts.SCRIPTS[parse(declared.commands(), line.words).arguments["shell"]], end="")
    return DONE


def complete(line: CommandLine) -> int:
    """Prints the candidates, one a line; for `--bash`, of a whole line and as bash takes them."""
    typed, place = list(line.words[1:]) or [""], None
    if "bash" in line.options:
        place = shell_words.split(typed[0], os.environ.get("COMP_WORDBREAKS", shell_words.BREAKS))
        typed = list(place.words[1:]) or [""]
    wanted = expected(declared.commands(), OPTIONS, typed)
    if wanted.files:
        return FILES
    found = matching(wanted, typed[-1], _names(typed[:-1], wanted.objects))
    for each in found if place is None else place.inserted(found):
        print(each)
    return DONE


def _names(before: Sequence[str], objects: Sequence[str]) -> list[str]:
    """Those that came in time."""
    found: list[str] = []
    if objects:
        asking = threading.Thread(target=_ask, args=(before, objects, os.environ, found), daemon=True)
        asking.start()
        asking.join(DEADLINE_SECONDS)
    return list(found)


def _ask(before: Sequence[str], objects: Sequence[str], environment: Mapping[str, str], found: list[str]) -> None:
    try:
        options = {name: value for name, value in parse_options(before).options.items() if name in _CHOOSING}
        with connected(options, environment, asks=False) as client:
            for noun in objects:
                listing = LISTINGS[noun]
                answer = client.command(listing.command, {}, asks=False)
                if isinstance(answer, Reply):
                    found += [str(row.get(each)) for row in answer.rows for each in listing.properties if row.get(each)]
    except (OffsiteError, OSError):
        return  # nothing is said: somebody is typing
