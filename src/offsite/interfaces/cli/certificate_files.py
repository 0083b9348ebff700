"""The files of an initiator's certificate, under the names that qemu and libnbd look for."""

from __future__ import annotations

import os
from pathlib import Path

from offsite.errors import BadParameter, ProtocolError
from offsite.interfaces.cli import declared
from offsite.interfaces.cli.options import CommandLine
from offsite.management.command_table.parser import parse
from offsite.management.command_table.reply import Reply

FILES = {"ca-certificate": "ca-cert.pem", "certificate": "client-cert.pem", "private-key": "client-key.pem"}


def check(line: CommandLine) -> None:
    """Before the certificate is made: raises BadParameter when a file is there already, which is never replaced."""
    directory = _directory(line)
    there = next((directory / name for name in FILES.values() if (directory / name).exists()), None)
    if there is not None:
        raise BadParameter(f"{there} already exists; give another directory with --directory")


def write(reply: Reply, line: CommandLine) -> Reply:
    """Writes the files, readable by their owner alone; returns what to say about it."""
    issued = next((row for row in reply.rows if row.type.basetype == "initiator-certificate"), None)
    if issued is None:
        raise ProtocolError("the system created no certificate")
    contents = {file_name: issued.get(name) for name, file_name in FILES.items()}
    if not all(contents.values()):
        raise ProtocolError("the system created a certificate, but did not send all of it")
    directory = _directory(line)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file_name, content in contents.items():
        descriptor = os.open(directory / file_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(str(content))
    names = ", ".join(FILES.values())
    return Reply(f"{reply.message} {names} are in {directory}; keep client-key.pem secret.")


def _directory(line: CommandLine) -> Path:
    """As the option says, or by the initiator's name among the words: never as a system says. Raises UsageError."""
    given = line.options.get("directory")
    if given:
        return Path(given)
    name = str(parse(declared.commands(), line.words).arguments["name"])
    if name in (".", ".."):
        raise BadParameter(
            f"initiator name {name!r} is not allowed as a directory name; give a directory with --directory"
        )
    return Path(name.replace("/", "_"))
