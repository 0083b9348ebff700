"""How the command line ends, for scripts."""

from __future__ import annotations

from offsite.errors import OffsiteError

DONE, REFUSED, WRONG_USAGE, DROPPED, INTERRUPTED = 0, 1, 2, 3, 130
FILES = 4  # only of `offsite complete`: names of files are expected


def status_of(error: OffsiteError | type[OffsiteError]) -> int:
    if getattr(error, "usage", False):
        return WRONG_USAGE
    return getattr(error, "exit_status", REFUSED)
