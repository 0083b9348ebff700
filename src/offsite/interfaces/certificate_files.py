"""The files of an initiator's certificate, under the names that qemu and libnbd look for."""

from __future__ import annotations

import os
from pathlib import Path

from offsite.errors import BadParameter, ProtocolError
from offsite.interfaces.options import CommandLine
from offsite.management.reply import Reply

FILES = {"ca-certificate": "ca-cert.pem", "certificate": "client-cert.pem", "private-key": "client-key.pem"}


def write(reply: Reply, line: CommandLine) -> Reply:
    """Writes the files, readable by their owner alone; returns what to say about it.

    Raises BadParameter when a file is there already, which is never replaced.
    """
    issued = next((row for row in reply.rows if row.type.basetype == "initiator-certificate"), None)
    if issued is None:
        raise ProtocolError("the system made no certificate")
    initiator = str(issued["id"]).removeprefix("tls:")
    directory = Path(line.options.get("directory") or initiator.replace("/", "_"))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, file_name in FILES.items():
            descriptor = os.open(directory / file_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w") as file:
                file.write(str(issued[name]))
    except OSError as error:
        raise BadParameter(
            f"{error.filename or directory} cannot be written: {error.strerror}; the certificate is lost, make another"
        ) from error
    names = ", ".join(FILES.values())
    return Reply(f"{reply.message} {names} are in {directory}; keep client-key.pem secret.", ())
