"""Names of the snapshots that runs leave behind. No I/O here."""

from __future__ import annotations

import re

from offsite.errors import BadParameter
from offsite.names import FORBIDDEN

BASENAME_BYTES_MAX = 26
GROUP_BASENAME_BYTES_MAX = 22  # the names of a group's snapshots also tell the member
NO_BASENAME = FORBIDDEN + "."  # characters that none has


def check_basename(text: str, *, of_group: bool = False) -> str:
    """Returns `text`, or raises BadParameter that tells which rule it breaks. Spaces may stand inside."""
    most = GROUP_BASENAME_BYTES_MAX if of_group else BASENAME_BYTES_MAX
    size = len(text.encode())
    if not text or size > most:
        whose = " for a volume group" if of_group else ""
        raise BadParameter(f"snapshot basename {text[:100]!r} has {size} bytes; 1 to {most} are allowed{whose}")
    bad = sorted({c for c in text if c in NO_BASENAME or not c.isprintable()})
    if bad:
        raise BadParameter(
            f'snapshot basename {text!r} contains {" ".join(map(repr, bad))}; " , . < \\ and unprintable characters '
            "are not allowed"
        )
    if text != text.lstrip():
        raise BadParameter(f"snapshot basename {text!r} begins with a space, which is not allowed in a volume's name")
    return text


def snapshot_names(basename: str, number: int, members: int) -> list[str]:
    """basename_nnnn; for a group basename_nnnn-m, with m from 1."""
    name = f"{basename}_{number:04d}"
    return [name] if members == 1 else [f"{name}-{member}" for member in range(1, members + 1)]


def renumbered(name: str, number: int, new_number: int) -> str | None:
    """The name of a history snapshot with another number; None for one that a user has renamed."""
    parts = re.fullmatch(rf"(.*)_{number:04d}(-\d+)?", name, re.DOTALL)
    return None if parts is None else f"{parts[1]}_{new_number:04d}{parts[2] or ''}"
