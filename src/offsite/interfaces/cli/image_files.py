"""`offsite import` and `offsite export`: image files in and out, sparse, with progress."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from offsite.errors import BadParameter, ProtocolError
from offsite.interfaces.cli import declared, qemu_img
from offsite.interfaces.cli.client import Client
from offsite.interfaces.cli.defaults import POOL
from offsite.interfaces.cli.image_formats import RAW
from offsite.interfaces.cli.options import CommandLine
from offsite.interfaces.cli.other_formats import as_raw, format_of, replacing
from offsite.interfaces.cli.progress_bar import bar
from offsite.interfaces.cli.sparse_files import data_extents, opened, read_frames, write_frames
from offsite.interfaces.encoding import frames
from offsite.management.command_table.parser import parse
from offsite.management.command_table.reply import Reply
from offsite.units import format_size

SIZE_STEP_BYTES = 4096
SIZE_BYTES_MAX = 2**63 - 1  # off_t of the kernel


def import_image(client: Client, line: CommandLine) -> Reply:
    name, source = _name_and_file(line)
    with as_raw(source, format_of(line, source)) as raw, opened(raw) as descriptor:
        size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
        rounded = -(-size_bytes // SIZE_STEP_BYTES) * SIZE_STEP_BYTES
        query = {"name": name, "pool": line.options.get("pool", POOL), "size": str(rounded)}
        extents = list(data_extents(descriptor, size_bytes))
        with bar(f"Importing {name}", sum(length for _, length in extents)) as advance:
            return client.send("/offsite/v1/import", query, read_frames(descriptor, extents, rounded, advance))


def export_image(client: Client, line: CommandLine) -> Reply:
    name, file = _name_and_file(line)
    target = file.resolve()
    format = format_of(line, target)
    _check_target(target, format, overwrite="overwrite" in line.options)
    with client.receive("/offsite/v1/export", {"name": name}) as response:
        size_bytes, data_bytes = (_size(response.headers.get(each)) for each in ("size-bytes", "data-bytes"))
        chunks = iter(lambda: response.read1(frames.PIECE_BYTES_MAX), b"")
        with replacing(target, format) as raw, bar(f"Exporting {name}", data_bytes) as advance:
            descriptor = _opened_to_write(raw)
            with open(descriptor, "wb", buffering=0):
                write_frames(descriptor, size_bytes, chunks, advance)
                os.fsync(descriptor)
    sizes = f"{format_size(size_bytes)}, {format_size(data_bytes)} of it data"
    return Reply(f"{name} was exported to {target}: {sizes}.")


def _name_and_file(line: CommandLine) -> tuple[str, Path]:
    """Raises UsageError."""
    arguments = parse(declared.commands(), line.words).arguments
    return arguments["name"], Path(arguments["file"]).expanduser()


def _check_target(target: Path, format: str, *, overwrite: bool) -> None:
    """A device holds somebody's data as a file does, and is asked about alike."""
    if target.exists():
        if not target.is_file() and not target.is_block_device():
            raise BadParameter(f"{target} is neither a file nor a block device")
        if not overwrite:
            raise BadParameter(f"{target} already exists; give another name, or --overwrite")
    if format != RAW:
        if target.is_block_device():
            raise BadParameter(f"{target} is a block device; only a raw image can be written to one")
        qemu_img.check_installed(format)


def _opened_to_write(raw: Path) -> int:
    """A block device for nobody else: one that is mounted, or a part of something, is refused by the kernel."""
    flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_EXCL if raw.is_block_device() else os.O_CREAT)
    try:
        return os.open(raw, flags, 0o666)
    except OSError as error:
        why = "it is mounted or in use by another program" if error.errno == errno.EBUSY else error.strerror
        raise BadParameter(f"{raw} cannot be written to: {why}") from error


def _size(header: str | None) -> int:
    digits = header if header is not None and header.isascii() and header.isdigit() and len(header) <= 19 else ""
    if not digits or int(digits) > SIZE_BYTES_MAX:
        raise ProtocolError(f"the system sent an invalid size of the image: {str(header)[:40]!r} bytes")
    return int(digits)
