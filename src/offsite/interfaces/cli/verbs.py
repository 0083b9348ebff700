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
    "Format of the file, by its name in qemu-img. Default: the one of the file name's extension, else raw.",
    values.choice(*FORMATS, noun="format"),
)


def _done_elsewhere(*_arguments: Any, **_given: Any) -> NoReturn:
    raise AssertionError("the command line does it by itself")


COMMANDS.command(
    "serve",
    "Runs a system in the foreground. The first start creates the directory, pool A and the user manage. The password "
    "of the user is taken from $OFFSITE_MANAGE_PASSWORD, or generated and shown; without a terminal it goes to a file.",
    positional("directory", values.path("state directory"), "State directory of the system."),
    role=None,
    options=(
        Option("name", "Name of the system. Default: the name of the machine.", values.text("name")),
        Option("listen", "Address to listen on.", values.text("address"), default=LISTEN),
        Option("api-port", "Port of the API; 0 means any free port.", _PORT, default=API_PORT),
        Option("nbd-port", "Port of NBD; 0 means any free port.", _PORT, default=NBD_PORT),
        Option("peer-port", "Port for other systems; 0 means any free port.", _PORT, default=PEER_PORT),
        Option("pool-size", "Size of pool A at the first start. Default: the free space.", values.size()),
        Option(
            "new-keys",
            "Creates new keys and certificates in place of lost ones. Peer connections then require a new login.",
        ),
    ),
)(_done_elsewhere)

COMMANDS.command(
    "import",
    "Creates a volume from an image file in raw format or another that qemu-img reads. Holes stay unallocated.",
    positional("name", values.name("volume"), "Name of the new volume."),
    positional("file", values.path("file"), "Image file or block device to read."),
    options=(Option("pool", "Pool in which to create the volume.", values.reference("pool"), default=POOL), _FORMAT),
)(_done_elsewhere)

COMMANDS.command(
    "export",
    "Writes the current content of a volume or snapshot to a sparse file.",
    positional("name", values.reference("volume", "snapshot"), "Name of the volume or snapshot."),
    positional("file", values.path("file"), "Image file to create, or block device to write."),
    options=(_FORMAT, Option("overwrite", "Replaces an existing file.")),
)(_done_elsewhere)

COMMANDS.command(
    "demo", "Runs two systems and replicates a volume from one to the other, as a demonstration.", role=None
)(_done_elsewhere)

COMMANDS.command(
    "help",
    "Explains a command, or lists all commands.",
    positional("command", values.text("command"), "Words of the command.", required=False),
    role=None,
)(_done_elsewhere)

COMMANDS.command(
    "completion",
    "Prints the script with which a shell completes words of commands, keywords, choices, and names of objects of the "
    "system.",
    positional("shell", values.choice("bash", "zsh", "fish"), "Shell to print the script for."),
    role=None,
    examples=("completion bash",),
)(_done_elsewhere)

COMMANDS.command(
    "complete",
    "Prints the possible next words of a command that is being typed. For use by shells.",
    positional("words", values.text("words"), "Words after `offsite`, preceded by --. The last one may be empty."),
    role=None,
    options=(Option("bash", "Reads one word: the line of bash up to the cursor."),),
)(_done_elsewhere)
