"""The local command line: `offsite COMMAND…`.

It knows nothing of most commands: it sends their words to a system, answers its questions, and shows what comes
back. So the table of commands is loaded only for help.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from offsite.errors import OffsiteError
from offsite.escaping import escaped, escaped_lines
from offsite.interfaces.cli.conversation import Conversation, is_terminal
from offsite.interfaces.cli.exit_status import DONE, DROPPED, INTERRUPTED, REFUSED, WRONG_USAGE, status_of
from offsite.interfaces.cli.options import CommandLine, OptionError, parse_options
from offsite.management.command_table.reply import Reply

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
    if line.verb in verbs:
        return verbs[line.verb](line)
    return _ask_system(line)


def _help(line: CommandLine) -> int:
    from offsite.interfaces.cli import help
    from offsite.management.command_table.parser import UsageError, find
    from offsite.management.commands import TABLE

    width = _width(sys.stdout)
    words = line.words[1:] if line.verb == "help" else line.words
    if not words:
        text = help.overview(TABLE, width)
        if line.words or line.options:
            print(text)
            return DONE
        print(text, file=sys.stderr)
        return WRONG_USAGE
    verb = next((each for each in help.VERBS if each.name == words[0].lower()), None)
    if verb is not None:
        print(help.of_verb(verb, width))
        return DONE
    try:
        print(help.of_command(find(TABLE, words)[0], width))
    except UsageError as error:
        return _fail(error, WRONG_USAGE)
    return DONE


def _width(output: TextIO) -> int:
    """Of the terminal; a pipe has no width, and gets lines of a length that is read well."""
    return shutil.get_terminal_size().columns if output.isatty() else PIPE_COLUMNS


def _ask_system(line: CommandLine) -> int:
    from offsite.interfaces.cli import certificate_files
    from offsite.interfaces.cli.system_choice import connected

    wants_files = line.begins_with("create initiator-certificate") and "json" not in line.options
    if wants_files:
        certificate_files.check(line)
    with connected(line.options, os.environ) as client:
        asked = Conversation(client.command, asks=is_terminal() and "yes" not in line.options)
        if line.verb in ("import", "export"):
            from offsite.interfaces.cli import image_files

            move = image_files.import_image if line.verb == "import" else image_files.export_image
            reply = move(client, line)
        elif "wait" in line.options:
            from offsite.interfaces.cli import replicate_wait

            reply = replicate_wait.replicate(asked, line)
            if "json" not in line.options:
                reply = Reply(reply.message)
        else:
            reply = asked.command(line.words)
        if wants_files:
            reply = certificate_files.write(reply, line)
    show(reply, line)
    return DROPPED if _is_dropped(reply, line) else DONE


def _is_dropped(reply: Reply, line: CommandLine) -> bool:
    """A request that the queue policy dropped was answered, not done: a script must be able to tell."""
    return line.verb == "replicate" and any(row.get("state") == "dropped" for row in reply.rows)


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
