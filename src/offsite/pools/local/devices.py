"""A block device that is to become a pool: what is on it, and the making of a header that can be taken back.

Whoever gives a device away by its wrong name loses a file system. So the device is opened for this process alone, and
nothing is written before whatever knows how to look has found nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from offsite.errors import DeviceNotEmpty, StateDirectoryError
from offsite.pools.local.header import HEADER_BYTES, Header
from offsite.pools.local.page_store import HEADER_WRITTEN_BYTES, PageStore, open_device
from offsite.units import MIB

PROBE_SECONDS = 30.0
ENDS_BYTES = MIB  # at either end, which must be zero: nearly all that is ever on a disk is told there
_FOUND_MAX = 8
_SYSTEM_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_BLKID_NOTHING, _BLKID_SEVERAL = 2, 8  # exit statuses
_SAID_CHARACTERS = 200

IsLeftOver = Callable[[Header], bool]
"""Whether a header is one of ours that no pool has: of a creation or deletion that was cut."""


def found_on(path: Path, is_left_over: IsLeftOver) -> str:
    """What is on the device, for people; empty if nothing is. Raises InUse, or StateDirectoryError."""
    descriptor = open_device(path)
    try:
        return _found(path, descriptor, is_left_over)
    finally:
        os.close(descriptor)


def device_bytes(path: Path) -> int:
    """The size of a block device. Raises InUse, or StateDirectoryError."""
    descriptor = open_device(path)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


class NewDevice:
    """A device with the header of a new pool on it, which `put_back` takes away as long as no database names it."""

    def __init__(self, path: Path, header: Header, is_left_over: IsLeftOver, *, overwrite: bool) -> None:
        """Raises InUse, DeviceNotEmpty or StateDirectoryError, with nothing written."""
        descriptor = open_device(path)
        try:
            found = _found(path, descriptor, is_left_over)
            if found and not overwrite:
                raise DeviceNotEmpty(
                    f"the block device {path} is not empty: it has {found}; nothing was changed; to "
                    "discard this data, give overwrite"
                )
            self._before = os.pread(descriptor, HEADER_WRITTEN_BYTES, 0)
            self._is_overwritten = bool(found)
            self.store = PageStore(path, descriptor, header)
            try:
                self.store.write_header(header)
                self.store.sync()
            except OSError as error:
                with suppress(OSError):  # it is the device that failed
                    self._write_back()
                raise StateDirectoryError(f"the block device {path} cannot hold a pool: {error.strerror}") from error
        except BaseException:
            os.close(descriptor)
            raise

    def put_back(self) -> None:
        """Leaves the device as it was found, and closes it."""
        try:
            self._write_back()
        finally:
            self.store.close()

    def settle(self) -> None:
        """The pool is there: wipes what else tells what was on the device before, or it would still be found."""
        if self._is_overwritten:
            wipe_ends(self.store.descriptor, HEADER_WRITTEN_BYTES)

    def _write_back(self) -> None:
        os.pwrite(self.store.descriptor, self._before, 0)
        os.fsync(self.store.descriptor)


def wipe_ends(descriptor: int, start: int = 0) -> None:
    """Zeros on the first and the last MiB: nothing is found on the device any more."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    first = min(ENDS_BYTES, size)
    last = max(first, size - ENDS_BYTES)
    os.pwrite(descriptor, bytes(first - start), start)
    os.pwrite(descriptor, bytes(size - last), last)
    os.fsync(descriptor)


def _found(path: Path, descriptor: int, is_left_over: IsLeftOver) -> str:
    header = Header.unpacked(os.pread(descriptor, HEADER_BYTES, 0))
    ours = isinstance(header, Header) and is_left_over(header)
    if isinstance(header, Header) and not ours:
        return header.sentence
    found = _asked("wipefs", ["--no-act", "--parsable", str(path)], _told_by_wipefs)
    found = found or _asked("blkid", ["-p", "-o", "export", str(path)], _told_by_blkid)
    return found or _data_at_the_ends(descriptor, HEADER_BYTES if ours else 0)


def _data_at_the_ends(descriptor: int, start: int) -> str:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if os.pread(descriptor, ENDS_BYTES, start).strip(b"\0"):
        return "data in its first MiB"
    last = max(0, size - ENDS_BYTES)
    if size > ENDS_BYTES and os.pread(descriptor, size - last, last).strip(b"\0"):
        return "data in its last MiB"
    return ""


def _asked(program: str, arguments: list[str], told: Callable[[int, str], str]) -> str:
    """What a program finds; empty where it is not installed. That it could not look is a finding, too."""
    full_path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}")
    if full_path is None:
        return ""
    try:
        done = subprocess.run(
            [full_path, *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
            env={"PATH": _SYSTEM_PATH, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return f"unknown data: {program} timed out after {PROBE_SECONDS:.0f} s"
    except OSError as error:
        return f"unknown data: {program} cannot be started: {error.strerror}"
    found = told(done.returncode, done.stdout)
    if found or done.returncode in (0, _BLKID_NOTHING):
        return found
    said = _fit(done.stderr) or f"status {done.returncode}"
    return f"unknown data: {program} reports {said}"


def _told_by_wipefs(_status: int, output: str) -> str:
    """Lines of offset,uuid,label,type, after those that begin with #."""
    found = []
    for line in output.splitlines():
        fields = line.split(",")
        if line.startswith("#") or len(fields) < 4:
            continue
        label = f" labelled {_fit(fields[2])}" if fields[2] else ""
        found.append(f"{_fit(fields[3])}{label} at {_fit(fields[0])}")
    more = f" and {len(found) - _FOUND_MAX} more" if len(found) > _FOUND_MAX else ""
    return ", ".join(found[:_FOUND_MAX]) + more


def _told_by_blkid(status: int, output: str) -> str:
    if status == _BLKID_SEVERAL:
        return "the signatures of several file systems"
    values = dict(line.partition("=")[::2] for line in output.splitlines())
    return ", ".join(_fit(values[key]) for key in ("TYPE", "PTTYPE") if values.get(key))


def _fit(text: str) -> str:
    """What was read from a device, fit for a sentence."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split())[:_SAID_CHARACTERS])
