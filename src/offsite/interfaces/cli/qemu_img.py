"""The program qemu-img, on a short lead: an image file is a stranger's, and may name other files as parts of itself.

What a header says is read here before qemu-img is let at the file, since already `qemu-img info` opens what an image
names as its data file (CVE-2024-4467). Then `info` tells of every other format; only then is anything converted.

Who can write to the image, or to its directory, can exchange what was looked at before it is converted: that is not
found out.
"""

from __future__ import annotations

import json
import os
import resource
import select
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import which
from typing import Any

from offsite.errors import BadParameter
from offsite.interfaces.cli.sparse_files import opened
from offsite.units import GIB, MIB, TIB

INFO_SECONDS = 30.0
STALL_SECONDS = 300.0  # a conversion that gets no further for so long is ended
SIZE_BYTES_MAX = 128 * TIB
_MEMORY_BYTES = 2 * GIB  # address space of the program
_PROCESSOR_SECONDS = 20  # for info
_SAID_BYTES_MAX = 1 << 20

_QCOW_MAGIC = b"QFI\xfb"
_QCOW2_EXTERNAL_DATA_FILE = 1 << 2  # of the incompatible features, docs/interop/qcow2.txt of QEMU


def check_installed(format: str) -> None:
    if which("qemu-img") is None:
        raise BadParameter(
            f"format {format} requires the program qemu-img, which is not installed; install it (Debian: qemu-utils), "
            "or use a raw image"
        )


def check_stands_alone(image: Path, format: str) -> int:
    """Returns the size of the disk in bytes. Raises BadParameter for an image that another file is a part of: what is
    in that file would be copied in, whoever it belongs to."""
    _check_qcow_header(image)
    found = _info(image, format)
    for key in ("backing-filename", "full-backing-filename", "backing-image"):
        if found.get(key):
            raise _refusal(image, f"has the backing file {_name(found[key])}")
    data: Any = (found.get("format-specific") or {}).get("data") or {}
    if data.get("data-file"):
        raise _refusal(image, f"keeps its data in {_name(data['data-file'])}")
    for extent in data.get("extents") or ():
        name = extent.get("filename")
        if name and not _is_same(Path(name), image):
            raise _refusal(image, f"has the extent {_name(name)}")
    size_bytes = found.get("virtual-size")
    if not isinstance(size_bytes, int) or not 0 <= size_bytes <= SIZE_BYTES_MAX:
        raise BadParameter(f"the disk of {image} has {str(size_bytes)[:40]} bytes; at most 128 TiB are allowed")
    return size_bytes


def convert(source: Path, source_format: str, target: Path, target_format: str, size_bytes: int) -> None:
    """`size_bytes` is what the disk has: no file that is made may become much larger."""
    command = ["qemu-img", "convert", "-p", "-f", source_format, "-O", target_format]
    limit_bytes = size_bytes + size_bytes // 8 + 64 * MIB
    process = subprocess.Popen(
        [*command, str(source.absolute()), str(target.absolute())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_limits((resource.RLIMIT_FSIZE, limit_bytes)),
    )
    try:
        said = _watch(process, source)
        if process.wait(INFO_SECONDS) != 0:
            raise BadParameter(f"qemu-img cannot convert {source}: {said or f'it ended with {process.returncode}'}")
    finally:
        process.kill()
        process.wait()


def _watch(process: subprocess.Popen[bytes], source: Path) -> str:
    """Until it closes its output; returns what it complained of. It tells its progress on stdout."""
    assert process.stdout is not None and process.stderr is not None
    said, deadline = b"", time.monotonic() + STALL_SECONDS
    open_ends = [process.stdout, process.stderr]
    progress = b""
    while open_ends:
        ready, _, _ = select.select(open_ends, [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise BadParameter(
                f"timeout: qemu-img made no progress with {source} for {STALL_SECONDS:.0f} s and was ended"
            )
        for end in ready:
            piece = os.read(end.fileno(), 4096)
            if not piece:
                open_ends.remove(end)
            elif end is process.stderr:
                said = (said + piece)[:_SAID_BYTES_MAX]
            elif piece.strip() != progress:  # the same percentage again is no progress
                progress, deadline = piece.strip(), time.monotonic() + STALL_SECONDS
    return said.decode(errors="replace").strip()


def _info(image: Path, format: str) -> dict[str, Any]:
    command: Sequence[str] = ["qemu-img", "info", "--output=json", "-f", format, str(image.absolute())]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=INFO_SECONDS,
            check=False,
            preexec_fn=_limits((resource.RLIMIT_CPU, _PROCESSOR_SECONDS), (resource.RLIMIT_FSIZE, 0)),
        )
    except subprocess.TimeoutExpired as error:
        raise BadParameter(f"timeout: qemu-img did not identify {image} within {INFO_SECONDS:.0f} s") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise BadParameter(f"qemu-img cannot read {image}: {said or f'it ended with {done.returncode}'}")
    try:
        found = json.loads(done.stdout[:_SAID_BYTES_MAX])
    except ValueError as error:
        raise BadParameter(f"qemu-img cannot identify {image}") from error
    return found if isinstance(found, dict) else {}


def _check_qcow_header(image: Path) -> None:
    """Whatever format it is said to be of: a VMDK that begins like this is none."""
    with opened(image) as descriptor:
        head = os.pread(descriptor, 80, 0)
    if head[:4] != _QCOW_MAGIC or len(head) < 20:
        return
    (version, backing_offset) = struct.unpack_from(">IQ", head, 4)
    if backing_offset:
        raise _refusal(image, "has a backing file")
    if version >= 3 and len(head) >= 80 and struct.unpack_from(">Q", head, 72)[0] & _QCOW2_EXTERNAL_DATA_FILE:
        raise _refusal(image, "keeps its data in another file")


def _refusal(image: Path, what: str) -> BadParameter:
    return BadParameter(
        f"{image} {what}, whose content would be imported as well; if both are yours, merge them into one image first: "
        f"qemu-img convert {image} NEW.qcow2"
    )


def _name(value: object) -> str:
    return repr(value)[:300]


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one that is not there is another
        return False


def _limits(*more: tuple[int, int]) -> Callable[[], None]:
    """What the program may use. To be called in its own process, before it begins."""

    def set_limits() -> None:
        for what, value in ((resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_CORE, 0), *more):
            resource.setrlimit(what, (value, value))

    return set_limits
