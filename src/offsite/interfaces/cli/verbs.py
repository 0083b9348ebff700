"""The commands that the command line does by itself, on this machine: declared as those of systems are."""

from __future__ import annotations

from typing import Any, NoReturn

from offsite.interfaces.cli.defaults import API_PORT, LISTEN, NBD_PORT, PEER_PORT, POOL
from offsite.interfaces.cli.image_formats import FORMATS
from offsite.management.command_table import values
from offsite.management.command_table.command import Option, Subject, positional

COMMANDS = Subject("On this machine")

_PORT = values.integer(0, 65535, noun="port")
_FORMAT = Option(
    "format",
    "The format of the file, as qemu-img calls it; by default, by the end of its name, and raw.",
    values.choice(*FORMATS, noun="format"),
)


def _done_elsewhere(*_arguments: Any, **_given: Any) -> NoReturn:
    raise AssertionError("the command line does it by itself")


COMMANDS.command(
    "serve",
    "Runs a system in the foreground. At its first start it makes the directory, pool A, and the user manage, "
    "whose password is $OFFSITE_MANAGE_PASSWORD, or is made up and shown, or without a terminal put in a file.",
    positional("directory", values.path("state directory"), "The state directory of the system."),
    role=None,
    options=(
        Option("name", "The name of the system; by default, the machine's.", values.text("name")),
        Option("listen", "The address to listen on.", values.text("address"), default=LISTEN),
        Option("api-port", "The port of the API; 0 is any free one.", _PORT, default=API_PORT),
        Option("nbd-port", "The port of NBD; 0 is any free one.", _PORT, default=NBD_PORT),
        Option("peer-port", "The port for other systems; 0 is any free one.", _PORT, default=PEER_PORT),
        Option("pool-size", "The size of pool A, at the first start; by default, the free space.", values.size()),
        Option("new-keys", "Makes keys and certificates that were lost anew; peers have to be logged in to again."),
    ),
)(_done_elsewhere)

COMMANDS.command(
    "import",
    "Makes a volume of an image file: raw, or what qemu-img reads. Sparse.",
    positional("name", values.name("volume"), "The new volume."),
    positional("file", values.path("file"), "The image file, or a block device."),
    options=(Option("pool", "The pool of the new volume.", values.reference("pool"), default=POOL), _FORMAT),
)(_done_elsewhere)

COMMANDS.command(
    "export",
    "Writes a volume or snapshot, as it is at this instant, to a file. Sparse.",
    positional("name", values.reference("volume", "snapshot"), "The volume or snapshot."),
    positional("file", values.path("file"), "The image file that is made, or a block device."),
    options=(_FORMAT, Option("overwrite", "Replaces a file that is there.")),
)(_done_elsewhere)

COMMANDS.command("demo", "Shows two systems, and a volume that replicates itself from one to the other.", role=None)(
    _done_elsewhere
)

COMMANDS.command(
    "help",
    "Explains a command; without one, lists them all.",
    positional("command", values.text("command"), "The words of a command.", required=False),
    role=None,
)(_done_elsewhere)

COMMANDS.command(
    "completion",
    "Prints the script with which a shell completes words of commands, keywords, choices, and names of objects of the "
    "system that the command is for.",
    positional("shell", values.choice("bash", "zsh", "fish"), "Which shell."),
    role=None,
    examples=("completion bash",),
)(_done_elsewhere)

COMMANDS.command(
    "complete",
    "Prints what may stand next in a command that is being typed: shells ask it.",
    positional("words", values.text("words"), "The words after `offsite`, the last one perhaps empty, behind a --."),
    role=None,
    options=(Option("bash", "There is one word, a whole line of bash up to the cursor."),),
)(_done_elsewhere)
