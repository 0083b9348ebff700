"""What went wrong below a request, in no protocol's terms: each target has its own numbers for it."""

from __future__ import annotations

import errno
from enum import Enum

from offsite.errors import OffsiteError, PoolFull, StateDirectoryFull


class Failure(Enum):
    NO_SPACE = "no space"
    INPUT_OUTPUT = "I/O error"
    INTERNAL = "internal error"  # a defect


def failure_of(error: OffsiteError | OSError) -> Failure:
    """Of what a pool raised."""
    full = isinstance(error, PoolFull | StateDirectoryFull) or (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    )
    return Failure.NO_SPACE if full else Failure.INPUT_OUTPUT
