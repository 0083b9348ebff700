"""That a state directory, and what is in it, is of the user that Offsite runs as, and of nobody else.

Whoever may read it has every private key and every volume; whoever may write to it has the system.
"""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from pathlib import Path

from offsite.errors import StateDirectoryError


def check_owner(path: Path, directory: Path) -> None:
    """Raises StateDirectoryError. `directory` is the state directory, for the sentence."""
    owner, own = path.stat().st_uid, os.geteuid()
    if owner != own:
        raise StateDirectoryError(
            f"{path} belongs to {_user(owner)}, and Offsite runs as {_user(own)}; run Offsite as that user, or give "
            f"the directory to this one: chown -R {own} {shlex.quote(str(directory))}"
        )


def check_alone(path: Path, directory: Path) -> None:
    """Also that nobody else may read it or write to it."""
    check_owner(path, directory)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise StateDirectoryError(
            f"{path} has the mode {mode:04o}: other users have access, but only its owner may; chmod -R go= "
            f"{shlex.quote(str(directory))}"
        )


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
