"""The local command line: `offsite COMMAND…`.

It does nothing about most commands: it sends their words to a system, answers its questions, and shows what comes
back. What it knows of them is their declarations.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from offsite.errors import OffsiteError
from offsite.escaping import escaped, escaped_lines
from offsite.interfaces.cli.conversation import Conversation, is_terminal
from offsite.interfaces.cli.exit_status import DONE, DROPPED, INTERRUPTED, REFUSED, WRONG_USAGE, status_of
from offsite.interfaces.cli.options import CommandLine, OptionError, command_of, parse_options
from offsite.management.command_table.reply import Reply

if TYPE_CHECKING:
    from offsite.interfaces.cli.client import Client

PIPE_COLUMNS = 100

Verb = Callable[[CommandLine], int]
"""Something that this program does by itself. Returns the exit status."""


def run(arguments: Sequence[str], verbs: Mapping[str, Verb]) -> int:
    """Does what the command line says; returns the exit status. `verbs` are those of higher floors."""
    try:
        line = parse_options(arguments)
        status = _run(line, verbs)
        sys.stdout.flush()
        return status
    except OptionError as error:
        return _fail(error, WRONG_USAGE)
    except OffsiteError as error:
        return _refused(error, json_wanted="--json" in arguments)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except EOFError:  # nobody is at the terminal any more
        print("offsite: no answer was given; nothing was changed", file=sys.stderr)
        return REFUSED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # a full disk, a file that may not be written
        print(f"offsite: {escaped(str(error))}", file=sys.stderr)
        return REFUSED


def _run(line: CommandLine, verbs: Mapping[str, Verb]) -> int:
    if "version" in line.options:
        from offsite import __version__

        print(f"offsite {__version__}")
        return DONE
    if "help" in line.options or line.verb == "help" or not line.words:
        return _help(line)
    if line.verb in ("complete", "completion"):
        from offsite.interfaces.cli import completing

        return completing.complete(line) if line.verb == "complete" else completing.completion(line)
    if line.verb in verbs:
        return verbs[line.verb](line)
    return _ask_system(line)


def _help(line: CommandLine) -> int:
    from offsite.interfaces.cli import declared, help
    from offsite.management.command_table.parser import UsageError, find

    width = _width(sys.stdout)
    words = line.words[1:] if line.verb == "help" else line.words
    if words:
        try:
            print(help.of_command(find(declared.commands(), words)[0], width))
        except UsageError as error:
            return _fail(error, WRONG_USAGE)
        return DONE
    text = help.overview(declared.commands(), width)
    if line.words or line.options:
        print(text)
        return DONE
    print(text, file=sys.stderr)
    return WRONG_USAGE


def _width(output: TextIO) -> int:
    """Of the terminal; a pipe has no width, and gets lines of a length that is read well."""
    return shutil.get_terminal_size().columns if output.isatty() else PIPE_COLUMNS


def _ask_system(line: CommandLine) -> int:
    from offsite.interfaces.cli.system_choice import connected

    own_way = _own_way(line)
    with connected(line.options, os.environ) as client:
        asked = Conversation(client.command, asks=is_terminal() and "yes" not in line.options)
        reply = own_way(client, asked, line) if own_way is not None else asked.command(line.words)
    show(reply, line)
    return DROPPED if own_way is _replicate and _is_dropped(reply) else DONE


def _import(client: Client, _asked: Conversation, line: CommandLine) -> Reply:
    from offsite.interfaces.cli import image_files

    return image_files.import_image(client, line)


def _export(client: Client, _asked: Conversation, line: CommandLine) -> Reply:
    from offsite.interfaces.cli import image_files

    return image_files.export_image(client, line)


def _replicate(_client: Client, asked: Conversation, line: CommandLine) -> Reply:
    if "wait" not in line.options:
        return asked.command(line.words)
    from offsite.interfaces.cli import replicate_wait

    reply = replicate_wait.replicate(asked, line)
    return reply if "json" in line.options else Reply(reply.message)


def _create_certificate(_client: Client, asked: Conversation, line: CommandLine) -> Reply:
    if "json" in line.options:
        return asked.command(line.words)
    from offsite.interfaces.cli import certificate_files

    certificate_files.check(line)
    return certificate_files.write(asked.command(line.words), line)


_OWN_WAYS = {
    "import": _import,
    "export": _export,
    "replicate": _replicate,
    "create initiator-certificate": _create_certificate,
}
"""Commands with which this program does more than to send the words and show the answer."""


def _own_way(line: CommandLine) -> Callable[[Client, Conversation, CommandLine], Reply] | None:
    """The declarations are looked up only where it matters, as a command is to be done at once."""
    if not any(each.startswith(line.verb) for each in _OWN_WAYS):
        return None
    command = command_of(line.words)
    return _OWN_WAYS.get(command.text) if command is not None else None


def _is_dropped(reply: Reply) -> bool:
    """A request that the queue policy dropped was answered, not done: a script must be able to tell."""
    return any(row.get("state") == "dropped" for row in reply.rows)


def show(reply: Reply, line: CommandLine) -> None:
    if "json" in line.options:
        from offsite.interfaces.encoding.reply_json import for_programs

        json.dump(for_programs(reply), sys.stdout, indent=2)
        print()
        return
    from offsite.interfaces.cli.tables import print_reply

    print_reply(reply, sys.stdout)


def _refused(error: OffsiteError, *, json_wanted: bool) -> int:
    if json_wanted:
        from offsite.interfaces.encoding.reply_json import status

        json.dump({"status": [status("Error", str(error), error.code)]}, sys.stdout, indent=2)
        print(flush=True)
    return _fail(error, status_of(error))


def _fail(error: OffsiteError, status: int) -> int:
    print(f"offsite: {escaped_lines(str(error))}", file=sys.stderr)
    return status
