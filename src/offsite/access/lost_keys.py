"""What is left of a system's keys after a loss: put aside, so that what was lost is made anew.

The authority's key and certificate belong together, and so do the system's; half a pair is of no use. The system's
certificate is signed by the authority: without that one it is made anew as well. If only the system's is lost, the
authority stays, and with it every certificate that hosts hold.
"""

from __future__ import annotations

from pathlib import Path

_AUTHORITY = ("ca-key.pem", "ca.pem")
_SYSTEM = ("system-key.pem", "system.pem")
ASIDE = ".old"


def set_aside(keys_directory: Path) -> tuple[str, ...]:
    """The files that are to be made anew, and none when nothing is lost. Those of them that are there are renamed
    to NAME.old. It can be repeated."""
    lost: tuple[str, ...] = ()
    if not _whole(keys_directory, _AUTHORITY):
        lost = (*_AUTHORITY, *_SYSTEM)
    elif not _whole(keys_directory, _SYSTEM):
        lost = _SYSTEM
    for name in lost:
        path = keys_directory / name
        if path.exists():
            path.rename(path.with_name(name + ASIDE))
    return lost


def sentence(system_name: str, lost: tuple[str, ...], fingerprint: str) -> str:
    """For the operator."""
    hosts = "; hosts need new certificates, and the new certificate of the authority" if _AUTHORITY[0] in lost else ""
    return (
        f"Keys of system {system_name} were lost and created again ({', '.join(lost)}): its certificate now has the "
        f"fingerprint {fingerprint}{hosts}."
    )


def _whole(keys_directory: Path, names: tuple[str, ...]) -> bool:
    return all((keys_directory / name).is_file() for name in names)
