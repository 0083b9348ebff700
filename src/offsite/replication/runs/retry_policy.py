"""How long to wait before a run that failed is tried again. No I/O here."""

from __future__ import annotations

from random import Random

FIRST_SECONDS = 1.0
LAST_SECONDS = 600.0
ME4_FIRST_SECONDS, ME4_FIRST_TRIES, ME4_LATER_SECONDS = 600.0, 6, 3600.0


def retry_seconds(cadence: str, failures: int, random: Random) -> float:
    """After so many failures in a row, at least one.

    offsite: 1 s, doubling to 10 minutes, each shortened by up to a quarter so that many sets do not all come at
    once. me4: as the array does, six times after 10 minutes, then hourly.
    """
    if cadence == "me4":
        return ME4_FIRST_SECONDS if failures <= ME4_FIRST_TRIES else ME4_LATER_SECONDS
    doubled = FIRST_SECONDS * 2.0 ** min(failures - 1, 30)
    return min(LAST_SECONDS, doubled) * (1 - random.random() / 4)
