"""The errors of NBD for what goes wrong below a request."""

from __future__ import annotations

from offsite.errors import OffsiteError
from offsite.targets.common.failure import Failure, failure_of
from offsite.targets.nbd import constants as nbd

NUMBERS = {Failure.NO_SPACE: nbd.ENOSPC, Failure.INPUT_OUTPUT: nbd.EIO, Failure.INTERNAL: nbd.EIO}


def error_number(error: OffsiteError | OSError) -> int:
    """For what a pool raised."""
    return NUMBERS[failure_of(error)]
