"""The password that a first start made up, when no terminal was there to show it: in a file, until it is changed.

Whatever a service prints ends up in a journal that others can read and that is kept for long.
"""

from __future__ import annotations

from pathlib import Path

from offsite.errors import StateDirectoryError
from offsite.management.accounts.users import FIRST_USER
from offsite.store.private_files import write_atomically

FILE = "first-password"


def keep(state_directory: Path, password: str) -> Path:
    """Raises StateDirectoryError."""
    path = state_directory / FILE
    try:
        write_atomically(path, f"{password}\n".encode())
    except OSError as error:
        raise StateDirectoryError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def forget(state_directory: Path, user_name: str) -> str:
    """Once the password of the user is another one, or the user is gone. Returns what to say about it, or ''."""
    path = state_directory / FILE
    if user_name != FIRST_USER or not path.exists():
        return ""
    try:
        path.unlink()
    except OSError as error:
        return f" {path}, which holds the old password, cannot be removed ({error.strerror or error}); remove it."
    return f" {path} was removed."
